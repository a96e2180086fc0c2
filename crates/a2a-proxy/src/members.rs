//! One level of a JSON object, with the text of its values untouched.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON object with its members' order and text kept. Of a repeated key the last one counts, as receivers
/// read it; the others stay, since looking each key up while parsing would make a large body quadratic.
#[derive(Default)]
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Object<'a> {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'a, str>, Cow<'a, RawValue>)> = Vec::new();
                while let Some(key) = map.next_key::<Key<'a>>()? {
                    members.push((key.0, Cow::Borrowed(map.next_value::<&'a RawValue>()?)));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object(std::marker::PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key.as_ref(), value.as_ref())))
    }
}

/// A value as JSON text.
pub(crate) fn raw<'a>(value: &impl Serialize) -> Option<Cow<'a, RawValue>> {
    serde_json::value::to_raw_value(value).ok().map(Cow::Owned)
}

impl<'a> Members<'a> {
    /// The members of a JSON object; `None` for anything else.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&RawValue> {
        self.find(key).map(Cow::as_ref)
    }

    pub(crate) fn find(&self, key: &str) -> Option<&Cow<'a, RawValue>> {
        self.0.iter().rfind(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The value of a key that is present and not `null`.
    pub(crate) fn set_value(&self, key: &str) -> Option<&RawValue> {
        self.get(key).filter(|value| value.get() != "null")
    }

    /// A string; `None` when the value is something else.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.get(key).and_then(|value| serde_json::from_str(value.get()).ok())
    }

    pub(crate) fn put(&mut self, key: &'static str, value: Cow<'a, RawValue>) {
        match self.0.iter_mut().rfind(|(known, _)| known == key) {
            Some(member) => member.1 = value,
            None => self.0.push((Cow::Borrowed(key), value)),
        }
    }

    /// The members of an object among the values.
    pub(crate) fn object(&self, key: &str) -> Option<Members<'_>> {
        self.get(key).and_then(|value| Members::parse(value.get()))
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }
}
