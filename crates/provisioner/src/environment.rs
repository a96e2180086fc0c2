//! The complete environment of a container (contract 2 §4.2).

use std::collections::BTreeMap;

use crate::spec::StartSpec;

/// What the agent is, not a setting: nothing may override these.
const IDENTITY: [&str; 2] = ["WORKSPACE_ID", "WORKSPACE_CONFIG_PATH"];

/// Where `/configs` is mounted.
pub(crate) const CONFIGS_PATH: &str = "/configs";

/// The fixed rows with the assembled map on top: one value per name, the assembled one wins except for identity.
/// Nothing of the server's own environment is in it.
///
/// Entries that no process environment can hold (an empty name, `=` in the name, a NUL) are dropped with a log
/// line.
#[must_use]
pub fn container_env(spec: &StartSpec) -> BTreeMap<String, String> {
    let mut env = fixed_rows(spec);
    for (name, value) in &spec.env {
        if IDENTITY.contains(&name.as_str()) {
            tracing::warn!(workspace_id = %spec.workspace_id, name, "identity variable cannot be overridden, dropped");
        } else if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            tracing::warn!(workspace_id = %spec.workspace_id, name = ?name, "not a possible variable, dropped");
        } else {
            env.insert(name.clone(), value.clone());
        }
    }
    env
}

fn fixed_rows(spec: &StartSpec) -> BTreeMap<String, String> {
    let tier = spec.tier.number().to_string();
    let mut rows = vec![
        ("WORKSPACE_ID", spec.workspace_id.to_string()),
        ("WORKSPACE_CONFIG_PATH", CONFIGS_PATH.to_owned()),
        ("PLATFORM_URL", spec.platform_url.clone()),
        ("MOLECULE_URL", spec.platform_url.clone()),
        ("TIER", tier.clone()),
        ("WORKSPACE_TIER", tier),
        ("PLUGINS_DIR", "/plugins".to_owned()),
        ("PYTHONPATH", "/app".to_owned()),
    ];
    if let Some(url) = spec.awareness_url.as_ref().filter(|url| !url.is_empty()) {
        rows.push(("AWARENESS_NAMESPACE", format!("workspace:{}", spec.workspace_id)));
        rows.push(("AWARENESS_URL", url.clone()));
    }
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Reads a boolean variable: `1`, `t`, `true` and `0`, `f`, `false`, also capitalised or in capitals. `None` for
/// anything else.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the session volume starts empty (2.R37).
pub(crate) fn resets_session(spec: &StartSpec) -> bool {
    spec.reset_session
        || spec.env.get("WORKSPACE_RESET_SESSION").and_then(|text| parse_bool(text)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::testing::spec;

    #[test]
    fn the_table_is_complete() {
        // 4.2: names and values; 2.R34: nothing else
        let mut spec = spec();
        spec.env.clear();
        let env = container_env(&spec);
        let id = spec.workspace_id.to_string();
        let expected: BTreeMap<String, String> = [
            ("WORKSPACE_ID", id.as_str()),
            ("WORKSPACE_CONFIG_PATH", "/configs"),
            ("PLATFORM_URL", spec.platform_url.as_str()),
            ("MOLECULE_URL", spec.platform_url.as_str()),
            ("TIER", "2"),
            ("WORKSPACE_TIER", "2"),
            ("PLUGINS_DIR", "/plugins"),
            ("PYTHONPATH", "/app"),
        ]
        .into_iter()
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect();
        assert_eq!(env, expected);
    }

    #[test]
    fn awareness_comes_with_both_variables_or_none() {
        let mut spec = spec();
        spec.awareness_url = Some("http://awareness:9000".into());
        let env = container_env(&spec);
        assert_eq!(env["AWARENESS_URL"], "http://awareness:9000");
        assert_eq!(env["AWARENESS_NAMESPACE"], format!("workspace:{}", spec.workspace_id));
        spec.awareness_url = Some(String::new());
        assert!(!container_env(&spec).contains_key("AWARENESS_NAMESPACE"));
    }

    #[test]
    fn the_assembled_map_wins_except_over_identity() {
        // 2.R33
        let mut spec = spec();
        spec.env = [
            ("PYTHONPATH", "/mine"),
            ("WORKSPACE_ID", "forged"),
            ("WORKSPACE_CONFIG_PATH", "/etc"),
            ("A=B", "c"),
            ("", "empty"),
            ("NUL", "a\0b"),
            ("EMPTY", ""),
        ]
        .into_iter()
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect();
        let env = container_env(&spec);
        assert_eq!(env["PYTHONPATH"], "/mine");
        assert_eq!(env["WORKSPACE_ID"], spec.workspace_id.to_string());
        assert_eq!(env["WORKSPACE_CONFIG_PATH"], "/configs");
        assert_eq!(env["EMPTY"], "");
        assert!(!env.contains_key("A=B") && !env.contains_key("") && !env.contains_key("NUL"));
    }

    #[test]
    fn a_session_is_reset_by_request_or_by_variable() {
        // 2.R37
        let mut spec = spec();
        assert!(!resets_session(&spec));
        for (text, expected) in [("true", true), ("1", true), ("0", false), ("yes", false), ("", false)] {
            spec.env.insert("WORKSPACE_RESET_SESSION".into(), text.into());
            assert_eq!(resets_session(&spec), expected, "{text}");
        }
        spec.reset_session = true;
        assert!(resets_session(&spec));
    }
}
