//! What the demo says. Standard output is its product.

use std::fmt;
use std::io::{self, Write};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Out;

impl Out {
    pub(crate) fn line(self, text: fmt::Arguments<'_>) {
        let mut out = io::stdout().lock();
        // A reader that went away must not keep the clean-up from its end.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    pub(crate) fn heading(self, text: &str) {
        self.line(format_args!("\n{text}"));
    }
}

/// What an agent wrote, unable to command the terminal: control characters become blanks, all on one line.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_cannot_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{9b}d\u{7f}é"), "a [2Jb c d é");
    }
}
