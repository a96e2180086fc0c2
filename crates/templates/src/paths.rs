//! The relative-path rule (6.R5).

/// The longest path that is accepted, in bytes.
const PATH_MAX: usize = 1024;
/// The longest component that is accepted, in bytes.
const COMPONENT_MAX: usize = 255;

/// A path that breaks the rule; the text says nothing about the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid path")]
pub struct InvalidPath;

/// The cleaned form of a path that stays below whatever root it is joined to: without `./`, `//` and trailing
/// slashes. It is safe as text; whether a symlink leads elsewhere is for the file system to say (6.R6).
///
/// # Errors
/// When the path breaks 6.R5: empty, absolute, too long, with `..` anywhere, also still encoded, or with a character
/// that some system reads as something else.
pub fn relative_path(path: &str) -> Result<String, InvalidPath> {
    let refused = path.len() > PATH_MAX
        || path.starts_with('/')
        || path.contains("..")
        || path.to_ascii_lowercase().contains("%2e")
        || path.contains(|c: char| c == '\\' || c.is_control());
    if refused {
        return Err(InvalidPath);
    }
    let components: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let Some(first) = components.first() else { return Err(InvalidPath) };
    // Of what is left: the cleaning must not make a drive's name out of "./c:".
    let drive =
        first.starts_with(|c: char| c.is_ascii_alphabetic()) && first.as_bytes().get(1) == Some(&b':');
    if drive || components.iter().any(|part| part.len() > COMPONENT_MAX) {
        return Err(InvalidPath);
    }
    Ok(components.join("/"))
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    // 6.R5
    #[test]
    fn accepted_paths_are_cleaned() {
        for (path, cleaned) in [
            ("./a", "a"),
            ("a/./b", "a/b"),
            ("a//b/", "a/b"),
            (".env", ".env"),
            ("a/b/c.txt", "a/b/c.txt"),
            ("a b/é.md", "a b/é.md"),
            ("ab:c", "ab:c"),
        ] {
            assert_eq!(relative_path(path).as_deref(), Ok(cleaned), "{path}");
        }
        let longest = format!("{}/{}", "a".repeat(255), "b/".repeat(384));
        assert!(longest.len() <= 1024 && relative_path(&longest).is_ok());
    }

    // 6.R5
    #[test]
    fn refused_paths() {
        let (long, wide) = ("a/".repeat(513), "a".repeat(256));
        for path in [
            "", ".", "./", "//", "/a", "..", "../", "../a", "a/../b", "foo/..", "a..b", "..%2Fx", "%2e%2e/x",
            "a/%2E%2e", "a\0b", "a\nb", "a\u{7f}", "a\u{85}b", "a\\b", "C:/x", "c:", "./c:/x", ".//c:",
            &long, &wide,
        ] {
            assert_eq!(relative_path(path), Err(InvalidPath), "{path:?}");
        }
    }

    proptest! {
        // 6.R5, 6.R6
        #[test]
        fn an_accepted_path_never_leaves_its_root(path in r"([a-zé.%2eE\\:/\x00 -]|\.\./|\./|//){0,24}") {
            if let Ok(cleaned) = relative_path(&path) {
                let parts: Vec<_> = Path::new(&cleaned).components().collect();
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(relative_path(&cleaned), Ok(cleaned.clone()));
            }
        }
    }
}
