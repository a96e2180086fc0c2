//! JSON as it rests in a `jsonb` column, on its way out.

use serde_json::value::RawValue;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::types::Json;
use sqlx::{Decode, Postgres, Type};

/// Stored JSON, compact: the database writes blanks after `:` and `,`, the API does not (1.R1). Numbers keep
/// every digit.
#[derive(Debug)]
pub struct StoredJson(Box<RawValue>);

impl StoredJson {
    /// The JSON text.
    #[must_use]
    pub fn raw(&self) -> &RawValue {
        &self.0
    }
}

impl Type<Postgres> for StoredJson {
    fn type_info() -> PgTypeInfo {
        Json::<Box<RawValue>>::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        Json::<Box<RawValue>>::compatible(ty)
    }
}

impl<'r> Decode<'r, Postgres> for StoredJson {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let Json(stored) = Json::<&'r RawValue>::decode(value)?;
        Ok(Self(RawValue::from_string(compact(stored.get()))?))
    }
}

fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_go_but_not_from_strings() {
        // 1.R1
        let stored = r#"{"a": [1, 2.50, "x: \" y, \\"], "b": {"c": null}}"#;
        assert_eq!(compact(stored), r#"{"a":[1,2.50,"x: \" y, \\"],"b":{"c":null}}"#);
    }
}
