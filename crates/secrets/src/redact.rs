use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// Patterns in the order in which they apply, each with the label that replaces a match.
///
/// Classes are ASCII: `\s`, `\b` and case folding must not reach beyond it. `\S` is spelled out, because its
/// ASCII form matches single bytes of a character.
const PATTERNS: [(&str, &str); 11] = [
    (r"(?i-u:\b[A-Z][A-Z0-9_]*_API_KEY\s*=\s*)[^\t\n\x0B\x0C\r ]+", "API_KEY"),
    (r"(?i-u:\b[A-Z][A-Z0-9_]*_TOKEN\s*=\s*)[^\t\n\x0B\x0C\r ]+", "TOKEN"),
    (r"(?i-u:\b[A-Z][A-Z0-9_]*_SECRET\s*=\s*)[^\t\n\x0B\x0C\r ]+", "SECRET"),
    (r"(?-u:Bearer\s+)[^\t\n\x0B\x0C\r ]+", "BEARER_TOKEN"),
    (r"sk-[A-Za-z0-9\-_]{16,}", "SK_TOKEN"),
    (r"ctx7_[A-Za-z0-9]+", "CTX7_TOKEN"),
    (r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}", "GITHUB_TOKEN"),
    (r"xox[abprs]-[A-Za-z0-9-]{10,}", "SLACK_TOKEN"),
    (r"AKIA[0-9A-Z]{16}", "AWS_KEY"),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)-----END [A-Z ]*PRIVATE KEY-----", "PRIVATE_KEY"),
    (r"[A-Za-z0-9+/]{33,}={0,2}", "BASE64_BLOB"),
];

struct Rule {
    pattern: Regex,
    replacement: String,
}

#[expect(clippy::expect_used, reason = "the patterns are constants, compiled by every test of this module")]
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    PATTERNS
        .iter()
        .map(|(pattern, label)| Rule {
            pattern: Regex::new(pattern).expect("a constant pattern compiles"),
            replacement: format!("[REDACTED:{label}]"),
        })
        .collect()
});

/// Replaces everything that looks like a credential by `[REDACTED:<label>]`.
///
/// Text without a match is returned borrowed, byte for byte. Applying it twice changes nothing more. A run of 33
/// or more letters, digits, `+` and `/` counts as a blob, so long paths and hexadecimal ids are replaced too.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut redacted = Cow::Borrowed(text);
    for rule in RULES.iter() {
        if let Cow::Owned(changed) = rule.pattern.replace_all(&redacted, rule.replacement.as_str()) {
            redacted = Cow::Owned(changed);
        }
    }
    redacted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_pattern_has_its_label() {
        // 5.R157, 5.R241
        let blob33 = "A".repeat(33);
        for (text, expected) in [
            ("OPENAI_API_KEY=sk-1234567890abcdefgh", "[REDACTED:API_KEY]"),
            ("openai_api_key = x y", "[REDACTED:API_KEY] y"),
            ("MY_SERVICE_TOKEN=ghp_ABCDEFGHIJKLMNOPQRSTUVWX", "[REDACTED:TOKEN]"),
            ("DATABASE_SECRET=x", "[REDACTED:SECRET]"),
            ("Authorization: Bearer abc.def", "Authorization: [REDACTED:BEARER_TOKEN]"),
            ("key sk-abcdefghij-_0123", "key [REDACTED:SK_TOKEN]"),
            ("ctx7_a", "[REDACTED:CTX7_TOKEN]"),
            ("ghs_abcdefghij0123456789", "[REDACTED:GITHUB_TOKEN]"),
            ("github_pat_abcdefghij_0123456789", "[REDACTED:GITHUB_TOKEN]"),
            ("xoxb-0123456789", "[REDACTED:SLACK_TOKEN]"),
            ("AKIA0123456789ABCDEF", "[REDACTED:AWS_KEY]"),
            (
                "a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b",
                "a [REDACTED:PRIVATE_KEY] b",
            ),
            (
                "-----BEGIN PRIVATE KEY-----a-----END PRIVATE KEY----- and -----BEGIN PRIVATE KEY-----b-----END PRIVATE KEY-----",
                "[REDACTED:PRIVATE_KEY] and [REDACTED:PRIVATE_KEY]",
            ),
            (&format!("{blob33}=="), "[REDACTED:BASE64_BLOB]"),
        ] {
            assert_eq!(redact(text), expected, "{text}");
        }
    }

    #[test]
    fn clean_text_is_returned_as_it_is() {
        // 5.R157
        let blob32 = "A".repeat(32);
        for text in [
            "",
            "the token is rotated on Fridays",
            "_API_KEY=x",
            "bearer lower case",
            "Bearer",
            "sk-tooshort",
            "ghx_abcdefghij0123456789",
            "AKIA0123456789ABCDE",
            "-----BEGIN PRIVATE KEY----- without an end",
            "-----BEGIN PUBLIC KEY-----a-----END PUBLIC KEY-----",
            &blob32,
            "Zoë — ünïcode \u{1F600}",
        ] {
            assert!(matches!(redact(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn classes_are_ascii() {
        // 5.R157: a no-break space neither separates nor ends a value, the long s is no S, é is no word character.
        assert_eq!(redact("A_TOKEN=abc\u{a0}def ghi"), "[REDACTED:TOKEN] ghi");
        assert_eq!(redact("A_TOKEN\u{a0}=abc"), "A_TOKEN\u{a0}=abc");
        assert_eq!(redact("Bearer\u{a0}abc"), "Bearer\u{a0}abc");
        assert_eq!(redact("A_\u{17f}ECRET=abc"), "A_\u{17f}ECRET=abc");
        assert_eq!(redact("éA_SECRET=abc"), "é[REDACTED:SECRET]");
    }

    proptest! {
        #[test]
        fn redacting_twice_changes_nothing_more(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("A_API_KEY=".to_owned()),
                    Just("B_TOKEN = ".to_owned()),
                    Just("C_SECRET=".to_owned()),
                    Just("Bearer ".to_owned()),
                    Just("-----BEGIN PRIVATE KEY-----".to_owned()),
                    Just("-----END PRIVATE KEY-----".to_owned()),
                    "sk-[a-z]{16}",
                    "ghp_[a-z]{20}",
                    "AKIA[0-9]{16}",
                    "[A-Za-z+/]{30,40}=?",
                    " ",
                    ".{0,6}",
                ],
                0..8,
            ),
        ) {
            let once = redact(&parts.concat()).into_owned();
            prop_assert_eq!(redact(&once), once.as_str());
        }
    }
}
