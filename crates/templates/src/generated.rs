//! The `config.yaml` of a workspace that has no template (6.R27, 2.R102).

use serde::Serialize;

/// What is known of the workspace.
#[derive(Clone, Copy, Debug)]
pub struct GeneratedConfig<'a> {
    pub name: &'a str,
    /// May be empty.
    pub role: &'a str,
    pub tier: i32,
    /// Sanitised: see [`KnownRuntimes::sanitise`](crate::KnownRuntimes::sanitise).
    pub runtime: &'a str,
    /// The platform chooses none.
    pub model: Option<&'a str>,
}

#[derive(Serialize)]
struct Document {
    name: String,
    description: String,
    version: &'static str,
    tier: i32,
    runtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    runtime_config: RuntimeConfig,
}

#[derive(Serialize)]
struct RuntimeConfig {
    timeout: u32,
}

/// The serialiser refused the document. No strings and numbers are known that make it do so.
#[derive(Debug, thiserror::Error)]
#[error("no configuration could be generated")]
pub struct GenerateError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// The document as YAML; it parses to exactly the values given, with line breaks turned into spaces.
///
/// # Errors
/// When the serialiser refuses the document.
pub fn generated_config(config: &GeneratedConfig<'_>) -> Result<String, GenerateError> {
    let document = Document {
        name: one_line(config.name),
        description: one_line(config.role),
        version: "1.0.0",
        tier: config.tier,
        runtime: one_line(config.runtime),
        model: config.model.map(one_line),
        runtime_config: RuntimeConfig { timeout: 0 },
    };
    // Agents read YAML 1.1, where a bare `on`, `1:30` or `2024-01-01` is no string.
    let options = serde_saphyr::ser_options! { quote_all: true, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&document, options).map_err(|error| GenerateError(error.into()))
}

fn one_line(text: &str) -> String {
    let is_break =
        |c: char| matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    text.replace("\r\n", " ").replace(is_break, " ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(config: &GeneratedConfig<'_>) -> (String, Value) {
        let yaml = generated_config(config).unwrap();
        let value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        (yaml, value)
    }

    // 6.R27, 2.R102
    #[test]
    fn the_keys_come_in_their_order_and_the_model_only_when_known() {
        let mut config = GeneratedConfig {
            name: "Lead",
            role: "",
            tier: 2,
            runtime: "sample",
            model: Some("sample/echo"),
        };
        let (yaml, value) = parsed(&config);
        let keys: Vec<&str> =
            yaml.lines().filter(|l| !l.starts_with(' ')).filter_map(|l| l.split(':').next()).collect();
        assert_eq!(keys, ["name", "description", "version", "tier", "runtime", "model", "runtime_config"]);
        assert_eq!(
            value,
            json!({"name": "Lead", "description": "", "version": "1.0.0", "tier": 2, "runtime": "sample",
                   "model": "sample/echo", "runtime_config": {"timeout": 0}})
        );
        config.model = None;
        assert!(parsed(&config).1.get("model").is_none());
    }

    // 2.R102
    #[test]
    fn line_breaks_become_spaces() {
        assert_eq!(one_line("a\r\nb\nc\rd\u{85}e\u{2028}f\u{2029}g"), "a b c d e f g");
    }

    // 2.R102: every string is quoted, so that no parser has to guess
    #[test]
    fn strings_stay_strings_for_older_parsers() {
        for name in [
            "Lead",
            "on",
            "No",
            "1:30",
            "0o17",
            "1_000",
            "2024-01-01",
            "~",
            "",
            "null",
            ".inf",
            "<<",
            "=",
            "1e3",
        ] {
            let (yaml, value) =
                parsed(&GeneratedConfig { name, role: name, tier: 1, runtime: name, model: Some(name) });
            assert_eq!(value["name"], name);
            assert!(yaml.starts_with("name: \"") || yaml.starts_with("name: '"), "{yaml}");
        }
    }

    proptest! {
        // 2.R102, 6.R27
        #[test]
        fn whatever_the_values_hold_no_key_is_added_and_none_is_changed(
            name in hostile(), role in hostile(), runtime in hostile(), model in proptest::option::of(hostile()), tier: i32,
        ) {
            let (_, value) = parsed(&GeneratedConfig {
                name: &name, role: &role, tier, runtime: &runtime, model: model.as_deref(),
            });
            let mut expected = json!({"name": one_line(&name), "description": one_line(&role), "version": "1.0.0",
                "tier": tier, "runtime": one_line(&runtime), "runtime_config": {"timeout": 0}});
            if let Some(model) = &model {
                expected["model"] = one_line(model).into();
            }
            prop_assert_eq!(value, expected);
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[a-z:#{}\\[\\]&*!|>'\"%@,\\-?~ \\n\\r\\t\\\\\\x00-\\x1f\u{7f}-\u{a0}\u{2028}\u{feff}]{0,40}",
            Just("x\"; evil: y; #".to_owned()),
            Just("x\nrequired_env: [A]\n---\n".to_owned()),
            ("[a-z ]{60,200}", 0..3usize).prop_map(|(text, blanks)| format!("{}{text}", " ".repeat(blanks))),
        ]
    }
}
