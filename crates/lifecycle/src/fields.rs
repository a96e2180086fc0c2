//! The bounds of a workspace's fields: pure checks, each with the sentence it answers.

use std::path::{Component, Path};

/// Characters that `name`, `role`, `model` and `runtime` may have at most.
pub(crate) const MAX_NAME: usize = 255;
pub(crate) const MAX_ROLE: usize = 1000;
pub(crate) const MAX_MODEL: usize = 100;
pub(crate) const MAX_RUNTIME: usize = 100;
/// The most tasks a workspace may run at once.
pub(crate) const MAX_CONCURRENT_TASKS: i64 = 1000;

/// Characters that would mean something in generated YAML.
const YAML_SPECIAL: [char; 9] = ['{', '}', '[', ']', '|', '>', '*', '&', '!'];

/// Host folders that no agent may be given, with everything below them.
const FORBIDDEN_ROOTS: [&str; 12] =
    ["/etc", "/var", "/proc", "/sys", "/dev", "/boot", "/sbin", "/bin", "/lib", "/lib64", "/run", "/usr"];

/// What is stored is trimmed, so that its length counts; control characters are refused at the ends as well.
fn text(field: &str, value: &str, max: usize) -> Result<(), String> {
    if value.chars().any(|c| c < '\u{20}' || c == '\u{7f}') {
        return Err(format!("{field} must not contain control characters"));
    }
    if value.trim().chars().count() > max {
        return Err(format!("{field} must be at most {max} characters"));
    }
    Ok(())
}

fn plain_text(field: &str, value: &str, max: usize) -> Result<(), String> {
    text(field, value, max)?;
    if value.contains(YAML_SPECIAL) {
        return Err(format!("{field} contains invalid characters"));
    }
    Ok(())
}

pub(crate) fn name(value: &str) -> Result<(), String> {
    plain_text("name", value, MAX_NAME)
}

pub(crate) fn role(value: &str) -> Result<(), String> {
    plain_text("role", value, MAX_ROLE)
}

pub(crate) fn model(value: &str) -> Result<(), String> {
    text("model", value, MAX_MODEL)
}

pub(crate) fn runtime(value: &str) -> Result<(), String> {
    text("runtime", value, MAX_RUNTIME)
}

/// A secret's key: 1 to 256 bytes without control characters, whitespace or `=` (5.R142).
pub(crate) fn secret_key(key: &str) -> Result<(), String> {
    let bad = key.chars().any(|c| c.is_control() || c.is_whitespace() || c == '=');
    if key.is_empty() || key.len() > 256 || bad {
        return Err("secrets contains an invalid key".into());
    }
    Ok(())
}

/// A secret's value at create: at most 65 536 bytes, no NUL, may be empty (1.R47).
pub(crate) fn secret_value(key: &str, value: &str) -> Result<(), String> {
    if value.len() > 65_536 || value.contains('\0') {
        return Err(format!("secret {key} has an invalid value"));
    }
    Ok(())
}

/// Whether a host folder may be mounted (1.R41).
pub(crate) fn workspace_dir(dir: &str) -> bool {
    let path = Path::new(dir);
    if !path.is_absolute() || dir.contains('\0') || path.components().any(|c| c == Component::ParentDir) {
        return false;
    }
    let clean: Vec<_> = path
        .components()
        .filter_map(|c| if let Component::Normal(part) = c { part.to_str() } else { None })
        .collect();
    match clean.as_slice() {
        [] => false,
        ["root"] => false,
        ["root", below, ..] if below.starts_with('.') => false,
        [first, ..] => !FORBIDDEN_ROOTS.iter().any(|root| root.trim_start_matches('/') == *first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_characters_and_include_the_limit() {
        // 1.R35
        for (check, max) in [
            (name as fn(&str) -> Result<(), String>, MAX_NAME),
            (role, MAX_ROLE),
            (model, MAX_MODEL),
            (runtime, MAX_RUNTIME),
        ] {
            assert!(check(&"ü".repeat(max)).is_ok());
            assert!(check(&"ü".repeat(max + 1)).is_err());
            for control in ['\n', '\r', '\0', '\u{1f}', '\u{7f}'] {
                assert!(check(&format!("a{control}")).is_err(), "{control:?}");
            }
        }
        for special in YAML_SPECIAL {
            assert!(name(&format!("a{special}b")).is_err());
            assert!(role(&format!("a{special}b")).is_err());
            assert!(model(&format!("a{special}b")).is_ok());
        }
        assert!(name("it's \"quoted\": #1, 50% – done").is_ok());
    }

    #[test]
    fn host_folders() {
        // 1.R41
        for good in ["/srv/project", "/etcetera", "/home/me/x", "/root/project", "/data//x/./y", "/library"] {
            assert!(workspace_dir(good), "{good}");
        }
        for bad in [
            "",
            "relative",
            "/",
            "//",
            "/etc",
            "/etc/x",
            "/var/lib",
            "/usr",
            "/usr/local",
            "/root",
            "/root/.ssh",
            "/root/.ssh/x",
            "/a/../etc",
            "/srv/..",
            "/lib64/x",
            "/run",
            "/proc/1",
            "/srv/\0",
        ] {
            assert!(!workspace_dir(bad), "{bad}");
        }
    }

    #[test]
    fn secrets_are_bounded() {
        // 1.R47, 5.R142
        assert!(secret_key("OPENAI_API_KEY").is_ok());
        assert!(secret_key(&"K".repeat(256)).is_ok());
        for bad in ["", "A B", "A=B", "A\n", &"K".repeat(257)] {
            assert!(secret_key(bad).is_err(), "{bad:?}");
        }
        assert!(secret_value("K", "").is_ok());
        assert!(secret_value("K", &"v".repeat(65_536)).is_ok());
        assert!(secret_value("K", &"v".repeat(65_537)).is_err());
        assert!(secret_value("K", "a\0b").is_err());
    }
}
