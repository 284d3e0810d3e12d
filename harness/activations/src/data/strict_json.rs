//! JSON without duplicate keys.
//!
//! RFC 8259 leaves the meaning of an object with two equal keys open, and `serde_json` keeps the last value without a
//! word. In a data file two values of one key are a mistake, so this reader names the key.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

/// Parses a JSON text.
///
/// # Errors
/// A text that is not one JSON value, nests more than 127 levels, or has a key twice in an object. The error describes
/// the defect and its column (and its line, if the text has several), as the end of a sentence: `is not JSON: ...`.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str::<StrictValue>(text).map(|StrictValue(value)| value).map_err(|error| {
        let reason = error.to_string();
        // serde_json ends its message with the position, which is given below in another form.
        let reason = reason.rfind(" at line ").map_or(reason.as_str(), |end| &reason[..end]);
        let place = match text.trim_end().contains('\n') {
            true => format!("line {}, column {}", error.line(), error.column()),
            false => format!("column {}", error.column()),
        };
        match error.classify() {
            Category::Data => format!("{reason} ({place})"),
            _ => format!("is not JSON: {reason} ({place})"),
        }
    })
}

/// The text of the value of `key` in the object `text`, which must be valid JSON. Numbers are only there as written.
pub(crate) fn raw_value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let mut rest = text.trim_start().strip_prefix('{')?;
    loop {
        let (name, after) = first_value::<String>(rest)?;
        rest = after.trim_start().strip_prefix(':')?;
        let (IgnoredAny, after) = first_value::<IgnoredAny>(rest)?;
        if name == key {
            return Some(rest[..rest.len() - after.len()].trim());
        }
        rest = after.trim_start().strip_prefix(',')?;
    }
}

/// The JSON value at the start of `text`, and the text behind it.
fn first_value<'t, T: Deserialize<'t>>(text: &'t str) -> Option<(T, &'t str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

struct StrictValue(Value);

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(StrictValue)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(StrictValue(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("has the key {key:?} twice in one object; remove one")));
            }
            let StrictValue(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn duplicate_keys_are_errors_at_any_depth() {
        let error = |text: &str| parse(text).unwrap_err();
        insta::assert_snapshot!(error(r#"{"a": 1, "a": 1}"#), @r#"has the key "a" twice in one object; remove one (column 12)"#);
        insta::assert_snapshot!(error(r#"[{"b": [{"k": 1, "\u006b": 2}]}]"#), @r#"has the key "k" twice in one object; remove one (column 25)"#);
        insta::assert_snapshot!(error("[1,\n 2"), @"is not JSON: EOF while parsing a list (line 2, column 2)");
        insta::assert_snapshot!(error("[NaN]"), @"is not JSON: expected value (column 2)");
        insta::assert_snapshot!(error("1 2"), @"is not JSON: trailing characters (column 3)");
        assert!(parse(r#"{"a": {"k": 1}, "b": {"k": 1}}"#).is_ok());
        assert!(error(&"[".repeat(100_000)).starts_with("is not JSON: recursion limit"));
    }

    #[test]
    fn raw_text_of_number_is_found() {
        let row = r#" {"messages": [{"label": 3}, "\"label\": 2"], "lab\u0065l" : 1e-400 , "x": 1}"#;
        assert_eq!(raw_value(row, "label"), Some("1e-400"));
        assert_eq!(raw_value(row, "x"), Some("1"));
        assert_eq!(raw_value(row, "y"), None);
        assert_eq!(raw_value("[1]", "label"), None);
    }

    proptest! {
        #[test]
        fn valid_text_has_the_same_value_as_in_serde_json(text in json_text()) {
            prop_assert_eq!(parse(&text).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
        }
    }

    /// Objects with distinct keys, lists and scalars, as text.
    fn json_text() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            Just(Value::Null),
        ];
        let value = scalar.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        });
        value.prop_map(|value| value.to_string())
    }
}
