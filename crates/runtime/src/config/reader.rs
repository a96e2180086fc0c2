//! Reads values out of the environment and notes what could not be used.

use std::collections::HashMap;
use std::str::FromStr;

use secrecy::SecretString;

use super::variables::VARIABLES;

/// The longest part of an unusable value that a warning shows, in bytes.
const SHOWN_MAX: usize = 120;

/// The variables of [`VARIABLES`] as they were set, and the warnings that reading them gave.
pub(super) struct Reader {
    values: HashMap<&'static str, String>,
    pub(super) warnings: Vec<String>,
}

impl Reader {
    /// Keeps what is ours. An empty value is the same as none.
    pub(super) fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = environment
            .into_iter()
            .filter_map(|(name, value)| {
                let variable = VARIABLES.iter().find(|variable| variable.name == name)?;
                (!value.trim().is_empty()).then_some((variable.name, value))
            })
            .collect();
        Self { values, warnings: Vec::new() }
    }

    /// The trimmed value, if there is one.
    pub(super) fn text(&self, name: &'static str) -> Option<&str> {
        debug_assert!(VARIABLES.iter().any(|variable| variable.name == name), "{name} is not listed");
        self.values.get(name).map(|value| value.trim())
    }

    pub(super) fn string(&self, name: &'static str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A secret, trimmed.
    pub(super) fn secret(&self, name: &'static str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    /// A secret of which every byte may count.
    pub(super) fn exact_secret(&self, name: &'static str) -> Option<SecretString> {
        self.values.get(name).map(|value| SecretString::from(value.as_str()))
    }

    /// What `parse` makes of the value; none, with a warning, when it makes nothing of it.
    pub(super) fn parse<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.text(name)?);
        if parsed.is_none() {
            let default = VARIABLES.iter().find(|v| v.name == name).map_or("the default", |v| v.default);
            self.warn(name, &format!("is not usable; taking the default: {default}"));
        }
        parsed
    }

    /// A whole number above zero.
    pub(super) fn positive<T: FromStr + PartialOrd + Default>(&mut self, name: &'static str) -> Option<T> {
        self.parse(name, |text| text.parse().ok().filter(|number| *number > T::default()))
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.parse(name, parse_bool)
    }

    /// The entries of a list separated by commas, trimmed, without empty ones; `parse` may refuse single ones.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        mut parse: impl FnMut(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let text = self.string(name)?;
        let mut items = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match parse(entry) {
                Some(item) => items.push(item),
                None => self
                    .warnings
                    .push(format!("{name}: the entry {} is not usable; leaving it out", shown(entry))),
            }
        }
        Some(items)
    }

    /// Adds a warning that names the variable and, unless it is secret, its value.
    pub(super) fn warn(&mut self, name: &'static str, text: &str) {
        let open = VARIABLES.iter().any(|variable| variable.name == name && !variable.secret);
        let warning = match self.text(name) {
            Some(value) if open => format!("{name}={} {text}", shown(value)),
            _ => format!("{name} {text}"),
        };
        self.warnings.push(warning);
    }
}

/// The value in quotes and on one line; nothing of it when it may hold a password, as a URL before an `@` does.
fn shown(value: &str) -> String {
    if value.contains('@') {
        return "(not shown)".to_owned();
    }
    let end = value.floor_char_boundary(SHOWN_MAX);
    let dots = if end < value.len() { "…" } else { "" };
    format!("{:?}{dots}", &value[..end])
}

/// The spellings of 4.R40, and no other.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
