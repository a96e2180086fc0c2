//! Everything that comes in as JSON or as a parameter is read here: derived deserialisers are stricter than the
//! contract in some places (duplicate keys, `3.0`, lone surrogates) and laxer in others (1.R10 to R15).

use http::Uri;
use mws_models::repair::{self, Nul};
use serde_json::{Map, Number, Value};
use url::form_urlencoded;

use crate::ApiError;

/// What becomes of text that the database cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// 400: what operators configure (1.R14).
    Refuse,
    /// U+FFFD: what agents say (3.R2).
    Repair,
}

/// The members of a JSON object. `null` counts as absent; unknown members are ignored; of a repeated one the
/// last counts. Each getter fails with the sentence that the route gives malformed bodies.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    members: Map<String, Value>,
    mode: Mode,
    malformed: &'static str,
}

impl Fields {
    /// Reads a body that must be one JSON object.
    pub(crate) fn parse(body: &[u8], mode: Mode, malformed: &'static str) -> Result<Self, ApiError> {
        let parsed = match mode {
            Mode::Refuse => serde_json::from_slice(body),
            Mode::Repair => serde_json::from_str(&repair::json(body, Nul::Repair)),
        };
        match parsed {
            Ok(Value::Object(members)) => Ok(Self { members, mode, malformed }),
            _ => Err(ApiError::bad_request(malformed)),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// The route's 400 for a malformed body.
    pub(crate) fn malformed(&self) -> ApiError {
        ApiError::bad_request(self.malformed)
    }

    fn read<'a, T>(
        &'a self,
        name: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.malformed()),
        }
    }

    /// A string that can be stored.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let text = self.read(name, Value::as_str)?;
        match text {
            Some(text) if self.mode == Mode::Refuse && text.contains('\0') => Err(self.malformed()),
            text => Ok(text),
        }
    }

    /// A string that must be there and not empty.
    pub(crate) fn required_text(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| self.malformed())
    }

    /// Any JSON number without a fraction that fits (1.R13).
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.read(name, |value| value.as_number().and_then(whole))
    }

    /// Any finite JSON number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, ApiError> {
        self.read(name, Value::as_f64)
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, Value::as_bool)
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, ApiError> {
        self.read(name, Value::as_object)
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<&Vec<Value>>, ApiError> {
        self.read(name, Value::as_array)
    }

    /// A member of whatever type: for what must never fail its message.
    pub(crate) fn raw(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }

    /// A nested object as fields of its own.
    pub(crate) fn nested(&self, name: &str) -> Result<Option<Self>, ApiError> {
        let members = self.object(name)?;
        Ok(members.map(|members| Self {
            members: members.clone(),
            mode: self.mode,
            malformed: self.malformed,
        }))
    }
}

fn whole(number: &Number) -> Option<i64> {
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
    // Exactly representable bounds: -2^63 fits, 2^63 does not.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float);
    #[expect(clippy::cast_possible_truncation, reason = "whole and within the range of i64")]
    fits.then_some(float as i64)
}

/// The parameters of a query string; of a repeated one the first counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &Uri) -> Self {
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Self(pairs.take(64).map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// A parameter; one with U+0000 is 400 (1.R14).
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let value = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        match value {
            Some(value) if value.contains('\0') => {
                Err(ApiError::bad_request(format!("{name} contains invalid characters")))
            }
            value => Ok(value),
        }
    }

    /// Whether a switch is on: its value must be exactly `true`.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.0.iter().any(|(known, value)| known == name && value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refuse(body: &str) -> Result<Fields, ApiError> {
        Fields::parse(body.as_bytes(), Mode::Refuse, "bad")
    }

    #[test]
    fn objects_only_and_nothing_behind_them() {
        // 1.R11, 3.R1
        for bad in ["", "[]", "null", "5", "\"x\"", "{", "{}{}", "{} x", "{'a':1}", "\u{feff}{}"] {
            assert!(refuse(bad).is_err(), "{bad}");
        }
        assert!(refuse(" {} \n").is_ok());
    }

    #[test]
    fn the_last_of_a_repeated_key_counts_and_null_is_absent() {
        // 1.R10, 1.R11, 1.R12
        let fields = refuse(r#"{"a":"x","a":"y","b":null,"unknown":{"deep":[1]}}"#).unwrap();
        assert_eq!(fields.text("a").unwrap(), Some("y"));
        assert_eq!(fields.text("b").unwrap(), None);
        assert!(fields.raw("b").is_none());
    }

    #[test]
    fn integers_are_whole_numbers_that_fit() {
        // 1.R13
        let fields = refuse(r#"{"a":3,"b":3.0,"c":3.5,"d":"3","e":1e3,"f":9223372036854775807,"g":9223372036854775808,"h":true}"#).unwrap();
        assert_eq!(fields.integer("a").unwrap(), Some(3));
        assert_eq!(fields.integer("b").unwrap(), Some(3));
        assert_eq!(fields.integer("e").unwrap(), Some(1000));
        assert_eq!(fields.integer("f").unwrap(), Some(i64::MAX));
        for bad in ["c", "d", "g", "h"] {
            assert!(fields.integer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_types_are_refused() {
        // 1.R13
        let fields = refuse(r#"{"text":1,"flag":"true","object":[],"list":{},"number":"1"}"#).unwrap();
        assert!(fields.text("text").is_err());
        assert!(fields.flag("flag").is_err());
        assert!(fields.object("object").is_err());
        assert!(fields.list("list").is_err());
        assert!(fields.number("number").is_err());
    }

    #[test]
    fn text_that_cannot_be_stored_is_refused_or_repaired() {
        // 1.R14, 3.R2
        for body in [r#"{"a":"x\u0000"}"#, r#"{"a":"\ud83d"}"#] {
            assert!(refuse(body).and_then(|fields| fields.text("a").map(drop)).is_err(), "{body}");
            let repaired = Fields::parse(body.as_bytes(), Mode::Repair, "bad").unwrap();
            assert!(repaired.text("a").unwrap().unwrap().contains('\u{fffd}'), "{body}");
        }
        assert!(Fields::parse(b"{\"a\":\"\xff\"}", Mode::Refuse, "bad").is_err());
        assert!(Fields::parse(b"{\"a\":\"\xff\"}", Mode::Repair, "bad").is_ok());
    }

    #[test]
    fn query_values_are_decoded_once() {
        // 1.R14, 1.R78
        let query = Query::of(&"/x?a=b%20c&a=d&t=true&u=True&n=%00".parse().unwrap());
        assert_eq!(query.get("a").unwrap(), Some("b c"));
        assert!(query.is_true("t") && !query.is_true("u") && !query.is_true("missing"));
        assert!(query.get("n").is_err());
    }

    proptest! {
        #[test]
        fn junk_never_panics(body in prop::collection::vec(any::<u8>(), 0..200), name in "[a-d]") {
            for mode in [Mode::Refuse, Mode::Repair] {
                if let Ok(fields) = Fields::parse(&body, mode, "bad") {
                    let _ = (fields.text(&name), fields.integer(&name), fields.number(&name), fields.nested(&name));
                }
            }
        }
    }
}
