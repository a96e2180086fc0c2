//! The bearer credential of a request.

use std::fmt;

/// The bearer that a request presented: never empty, not judged yet. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bearer<'a>(&'a [u8]);

impl<'a> Bearer<'a> {
    /// Reads the value of an `Authorization` header; of several such headers the first counts.
    ///
    /// The value must start with the exact bytes `Bearer ` (5.R1); the rest, without surrounding whitespace, is
    /// the bearer. `None` when nothing is left. Bytes that are not text still count as a presented bearer, one
    /// that no token equals: a malformed credential must not be taken for an absent one.
    #[must_use]
    pub fn from_header(value: &'a [u8]) -> Option<Self> {
        let bearer = value.strip_prefix(b"Bearer ")?.trim_ascii();
        (!bearer.is_empty()).then_some(Self(bearer))
    }

    /// The presented bytes, for hashing and comparing. Never log them.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(header: &str) -> Option<&str> {
        Bearer::from_header(header.as_bytes()).map(|b| std::str::from_utf8(b.as_bytes()).unwrap())
    }

    #[test]
    fn only_the_exact_scheme_counts() {
        // 5.R1
        let table = [
            ("", None),
            ("xyz", None),
            ("bearer abc", None),
            ("BEARER abc", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer \t  ", None),
            ("Bearer\tabc", None),
            (" Bearer abc", None),
            ("Basic abc", None),
            ("Bearerabc", None),
            ("Bearer abc", Some("abc")),
            ("Bearer   spaced  ", Some("spaced")),
            ("Bearer \tabc\t", Some("abc")),
            ("Bearer two words", Some("two words")),
            ("Bearer Bearer abc", Some("Bearer abc")),
        ];
        for (header, expected) in table {
            assert_eq!(text(header), expected, "{header:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_a_presented_bearer() {
        // 5.R44
        assert!(Bearer::from_header(b"Bearer \xff").is_some());
    }

    #[test]
    fn it_is_never_shown() {
        // 5.B2
        assert_eq!(format!("{:?}", Bearer::from_header(b"Bearer hunter2")), "Some([redacted])");
    }

    proptest! {
        #[test]
        fn a_token_survives_any_padding(token in "[!-~]([ -~]{0,60}[!-~])?", before in "[ \t]{0,5}", after in "[ \t]{0,5}") {
            let header = format!("Bearer {before}{token}{after}");
            prop_assert_eq!(text(&header), Some(token.as_str()));
        }

        #[test]
        fn whatever_comes_it_is_trimmed_and_not_empty(header in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(bearer) = Bearer::from_header(&header) {
                prop_assert!(header.starts_with(b"Bearer "));
                prop_assert!(!bearer.as_bytes().is_empty());
                prop_assert_eq!(bearer.as_bytes().trim_ascii(), bearer.as_bytes());
            }
        }
    }
}
