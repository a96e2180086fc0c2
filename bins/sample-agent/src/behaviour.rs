//! What a message makes the agent do.

use std::time::Duration;

const MAX_SLEEP: u64 = 600;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// Ask the peer of this name.
    Ask {
        name: &'a str,
        text: &'a str,
    },
    Sleep(Duration),
    /// Answer HTTP 500.
    Fail,
    /// End the process.
    Crash,
    Echo(&'a str),
}

impl<'a> Command<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let trimmed = text.trim();
        match trimmed {
            "fail" => return Self::Fail,
            "crash" => return Self::Crash,
            _ => {}
        }
        if let Some((name, question)) = trimmed.strip_prefix("ask ").and_then(|rest| rest.split_once(':')) {
            let (name, question) = (name.trim(), question.trim());
            if !name.is_empty() {
                return Self::Ask { name, text: question };
            }
        }
        if let Some(seconds) = trimmed.strip_prefix("sleep ").and_then(|n| n.trim().parse::<u64>().ok()) {
            return Self::Sleep(Duration::from_secs(seconds.min(MAX_SLEEP)));
        }
        Self::Echo(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_recognised() {
        let cases = [
            ("ask Bob: how are you?", Command::Ask { name: "Bob", text: "how are you?" }),
            ("ask Bob: a: b", Command::Ask { name: "Bob", text: "a: b" }),
            ("ask : x", Command::Echo("ask : x")),
            ("ask Bob", Command::Echo("ask Bob")),
            ("sleep 3", Command::Sleep(Duration::from_secs(3))),
            ("sleep 999999", Command::Sleep(Duration::from_secs(600))),
            ("sleep -1", Command::Echo("sleep -1")),
            (" fail ", Command::Fail),
            ("crash", Command::Crash),
            ("crash now", Command::Echo("crash now")),
            (" hello ", Command::Echo(" hello ")),
            ("", Command::Echo("")),
        ];
        for (text, expected) in cases {
            assert_eq!(Command::parse(text), expected, "{text}");
        }
    }
}
