//! The one repair of what agents and chat platforms say (1.R14, 3.R2, 4.R6): invalid UTF-8, unpaired surrogate
//! escapes and U+0000 each become U+FFFD. What operators configure is refused instead.

use std::borrow::Cow;

/// JSON text made storable and parsable: invalid UTF-8, unpaired `\ud8xx`-style escapes and, if `nul` says so,
/// `\u0000` become U+FFFD. Borrowed when there was nothing to repair. Text that is not JSON stays as broken as
/// it was.
#[must_use]
pub fn json(bytes: &[u8], nul: Nul) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    match escapes(&text, nul) {
        Some(repaired) => Cow::Owned(repaired),
        None => text,
    }
}

/// What becomes of `\u0000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nul {
    /// It is repaired: the text is about to be stored, and Postgres refuses it.
    Repair,
    /// It stays: the text is about to be forwarded.
    Keep,
}

/// Plain text made storable: U+0000 becomes U+FFFD.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// The longest prefix of at most `max` bytes that ends on a character boundary.
#[must_use]
pub fn prefix(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// `text` when it has at most `max` bytes, else [`prefix`] and `...` (4.R5).
#[must_use]
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max { Cow::Borrowed(text) } else { Cow::Owned(format!("{}...", prefix(text, max))) }
}

fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(br"\u")?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// The text with its unpaired surrogate escapes replaced; `None` when there are none. A backslash means
/// something only inside a string, and outside one it is no JSON anyway, so strings need not be tracked.
fn escapes(text: &str, nul: Nul) -> Option<String> {
    let bytes = text.as_bytes();
    let mut repaired: Option<String> = None;
    let (mut copied, mut at) = (0, 0);
    while let Some(next) = bytes[at..].iter().position(|b| *b == b'\\') {
        at += next;
        let width = match unit(bytes, at) {
            // An escaped backslash or quote: what follows it is no escape.
            None => {
                at = (at + 2).min(bytes.len());
                continue;
            }
            Some(0) if nul == Nul::Repair => 6,
            Some(0xd800..=0xdbff) if unit(bytes, at + 6).is_some_and(|u| (0xdc00..=0xdfff).contains(&u)) => {
                at += 12;
                continue;
            }
            Some(0xd800..=0xdfff) => 6,
            Some(_) => {
                at += 6;
                continue;
            }
        };
        let out = repaired.get_or_insert_with(|| String::with_capacity(text.len()));
        out.push_str(&text[copied..at]);
        out.push_str("\\ufffd");
        at += width;
        copied = at;
    }
    repaired.map(|mut out| {
        out.push_str(&text[copied..]);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_repair_is_repaired() {
        // 3.R2, 4.R6, 4.R7
        for (sent, stored) in [
            (r#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"a":"\ud83d\u0041"}"#, r#"{"a":"\ufffd\u0041"}"#),
            (r#"{"a":"\udc00\ud800"}"#, r#"{"a":"\ufffd\ufffd"}"#),
            (r#"{"\u0000":"\u0000x"}"#, r#"{"\ufffd":"\ufffdx"}"#),
        ] {
            assert_eq!(json(sent.as_bytes(), Nul::Repair), stored);
        }
        assert_eq!(json(b"{\"a\":\"\xff\"}", Nul::Repair), "{\"a\":\"\u{fffd}\"}");
        assert_eq!(json(br#"{"a":"\u0000\ud83d"}"#, Nul::Keep), r#"{"a":"\u0000\ufffd"}"#);
    }

    #[test]
    fn what_is_sound_is_borrowed() {
        for sound in [r#"{"a":"\ud83d\ude00 \\ud83d \n \"","n":1e400}"#, "", "\\", r"\u12", "not json"] {
            assert!(
                matches!(json(sound.as_bytes(), Nul::Repair), Cow::Borrowed(text) if text == sound),
                "{sound}"
            );
        }
        assert!(matches!(text("ü"), Cow::Borrowed("ü")));
        assert_eq!(text("a\0b"), "a\u{fffd}b");
    }

    #[test]
    fn cuts_end_on_characters() {
        // 4.R5
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöü", 5), "äö...");
        assert_eq!(prefix("äöü", 3), "ä");
    }
}
