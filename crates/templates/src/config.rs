//! The keys of a template's `config.yaml` that the server reads; the rest belongs to the agent (6 §2).

use serde::Deserialize;

use crate::yaml::{Malformed, parse};

/// What the server reads of a `config.yaml`. Texts are trimmed; an empty one is the same as none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateConfig {
    pub name: Option<String>,
    pub description: Option<String>,
    pub tier: Option<i64>,
    /// As written; it may be unknown to this server.
    pub runtime: Option<String>,
    /// The top-level `model`, else `runtime_config.model` (6.R12).
    pub model: Option<String>,
    /// Variables without which the agent cannot run, in file order, each once.
    pub required_env: Vec<String>,
    /// The limit for provisioning that the template asks for, in seconds; above zero.
    pub provision_timeout_seconds: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    name: Option<String>,
    description: Option<String>,
    tier: Option<i64>,
    runtime: Option<String>,
    model: Option<String>,
    runtime_config: Option<RuntimeConfig>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    model: Option<String>,
    required_env: Option<Vec<Option<String>>>,
    provision_timeout_seconds: Option<i64>,
}

impl TemplateConfig {
    /// Reads a `config.yaml`: `null` is the same as absent, scalars in lists become strings, unknown keys do not
    /// matter (6.R15).
    ///
    /// # Errors
    /// When it is not one YAML document within the bounds of 6.R16, or a key has an unusable type (6.R14).
    pub fn parse(yaml: &str) -> Result<Self, Malformed> {
        let document = parse::<Option<Document>>(yaml)?.unwrap_or_default();
        let runtime_config = document.runtime_config.unwrap_or_default();
        let seconds = runtime_config.provision_timeout_seconds.filter(|seconds| *seconds > 0);
        Ok(Self {
            name: some(document.name),
            description: some(document.description),
            tier: document.tier,
            runtime: some(document.runtime),
            model: some(document.model).or_else(|| some(runtime_config.model)),
            required_env: names(runtime_config.required_env.unwrap_or_default()),
            provision_timeout_seconds: seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
        })
    }
}

fn some(text: Option<String>) -> Option<String> {
    let text = text?;
    let trimmed = text.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

fn names(list: Vec<Option<String>>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in list.into_iter().filter_map(some) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The variables that `runtime_config.required_env` of the `config.yaml` asks for, in file order (2.R103).
///
/// # Errors
/// As [`TemplateConfig::parse`]; the caller then skips the check with a warning (6.R29).
pub fn required_env(yaml: &str) -> Result<Vec<String>, Malformed> {
    Ok(TemplateConfig::parse(yaml)?.required_env)
}

/// What a user reads when required variables are missing (6.R29).
#[must_use]
pub fn missing_env_message<S: AsRef<str>>(missing: &[S]) -> String {
    match missing {
        [name] => {
            let name = name.as_ref();
            format!(
                "missing required env var \"{name}\" — add it under Config → Env Vars (or as a Global secret) and retry"
            )
        }
        names => {
            let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
            let names = names.join(", ");
            format!(
                "missing required env vars {names} — add them under Config → Env Vars (or as Global secrets) and retry"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{CONFIG_MAX, NODES_MAX};

    fn read(yaml: &str) -> TemplateConfig {
        TemplateConfig::parse(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
    }

    // 6 §2, 1.R37
    #[test]
    fn the_keys_are_read_as_yaml_scalars() {
        let config = read(
            "name: 'Hermes Agent' # shown\ndescription: \"a: b\"\ntier: 2\nruntime:  hermes \nmodel: m\n\
             runtime_config:\n  required_env: [A, B, A]\n  provision_timeout_seconds: 720\n  timeout: 0\n",
        );
        let expected = TemplateConfig {
            name: Some("Hermes Agent".into()),
            description: Some("a: b".into()),
            tier: Some(2),
            runtime: Some("hermes".into()),
            model: Some("m".into()),
            required_env: vec!["A".into(), "B".into()],
            provision_timeout_seconds: Some(720),
        };
        assert_eq!(config, expected);
    }

    // 6.R12
    #[test]
    fn the_top_level_model_wins_unless_it_is_empty() {
        for (yaml, model) in [
            ("model: a\nruntime_config: {model: b}", Some("a")),
            ("model: ''\nruntime_config: {model: b}", Some("b")),
            ("model:\nruntime_config: {model: b}", Some("b")),
            ("runtime_config: {model: ' b '}", Some("b")),
            ("runtime_config: {model: null}", None),
            ("name: x", None),
        ] {
            assert_eq!(read(yaml).model.as_deref(), model, "{yaml}");
        }
    }

    // 6.R15
    #[test]
    fn nulls_scalars_and_unknown_keys_do_not_drop_a_template() {
        for yaml in [
            "",
            "# nothing\n",
            "null",
            "{}",
            "skills:\nproviders: null\nversion: 1.0\nruntime_config:\n",
            "name: ~\ntier: null\nruntime_config: {required_env: [ ], provision_timeout_seconds: null}",
            "runtime_config: {required_env: }",
            "x: {y: [1, .nan, !!binary aGk=, !custom z, 2024-01-01]}\n1: x\ntrue: y\n",
        ] {
            assert_eq!(read(yaml), TemplateConfig::default(), "{yaml}");
        }
        let config = read(
            "name: 42\nmodel: 1.10\nruntime: true\nruntime_config: {required_env: [1, true, null, 1.0]}",
        );
        assert_eq!(config.name.as_deref(), Some("42"));
        assert_eq!(config.model.as_deref(), Some("1.10"));
        assert_eq!(config.runtime.as_deref(), Some("true"));
        assert_eq!(config.required_env, ["1", "true", "1.0"]);
        assert_eq!(read("name: a\nname: b").name.as_deref(), Some("b"));
    }

    // 6.R14
    #[test]
    fn an_unusable_type_or_text_is_malformed() {
        for yaml in [
            "name: [a]",
            "name: {a: b}",
            "tier: high",
            "runtime_config: x",
            "runtime_config: {required_env: A}",
            "runtime_config: {required_env: [[A]]}",
            "runtime_config: {provision_timeout_seconds: soon}",
            "[a, b]",
            "text",
            "a: b: c",
            "name: 'open",
            "a: *nowhere",
            "name: a\n---\nname: b",
        ] {
            assert!(TemplateConfig::parse(yaml).is_err(), "{yaml}");
        }
    }

    // 6.R33: values at or below zero are ignored
    #[test]
    fn a_timeout_must_be_above_zero() {
        for (value, seconds) in [("0", None), ("-5", None), ("1", Some(1)), ("99999999999", Some(u32::MAX))] {
            let yaml = format!("runtime_config: {{provision_timeout_seconds: {value}}}");
            assert_eq!(read(&yaml).provision_timeout_seconds, seconds, "{value}");
        }
    }

    // 6.R16
    #[test]
    fn size_and_nodes_are_bounded() {
        let fits = format!("name: a\n#{}", "x".repeat(CONFIG_MAX - 9));
        assert_eq!(fits.len(), CONFIG_MAX);
        read(&fits);
        assert!(TemplateConfig::parse(&format!("{fits}x")).is_err());

        // One map, two scalars, one list.
        let list = |items: usize| format!("x: [{}]", vec!["a"; items].join(","));
        read(&list(NODES_MAX - 3));
        assert!(TemplateConfig::parse(&list(NODES_MAX - 2)).is_err());
        assert!(TemplateConfig::parse(&"[".repeat(5000)).is_err());
    }

    // 6.R16
    #[test]
    fn aliases_count_as_often_as_they_are_used_also_below_unknown_keys() {
        let anchor = format!("a: &a [{}]\n", vec!["x"; 97].join(","));
        let uses = |times: usize| format!("{anchor}b: [{}]", vec!["*a"; times].join(","));
        // 102 nodes besides the uses of the list, which is 98 of them.
        read(&uses(101));
        assert!(TemplateConfig::parse(&uses(102)).is_err());

        let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 10].join(",");
            laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(TemplateConfig::parse(&laughs).is_err());
    }

    // 6.R29
    #[test]
    fn the_message_names_what_is_missing() {
        assert_eq!(
            missing_env_message(&["X"]),
            "missing required env var \"X\" — add it under Config → Env Vars (or as a Global secret) and retry"
        );
        assert_eq!(
            missing_env_message(&["A".to_owned(), "B".to_owned()]),
            "missing required env vars A, B — add them under Config → Env Vars (or as Global secrets) and retry"
        );
    }

    proptest::proptest! {
        // 6.R14: whatever a file holds, it drops that template only
        #[test]
        fn no_text_makes_the_parser_panic(yaml in "[a-z:{}\\[\\]&*!|>'\"#%@,\\-?~ \n\t\\\\]{0,80}") {
            let _ = TemplateConfig::parse(&yaml);
        }
    }
}
