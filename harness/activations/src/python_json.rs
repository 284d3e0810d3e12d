//! JSON such as `config.json` as Python reads it: JSON, in which `NaN`, `Infinity` and numbers beyond `f64` are values too.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The key by which transformers spells a number that JSON lacks: `{"__float__": "NaN"}`.
const FLOAT_TAG: &str = "__float__";

/// Parses `text`. A number that JSON lacks becomes an object with the key `__float__`, the spelling of transformers itself, so that
/// it is an error only where the number is needed.
pub(crate) fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&tag_special_numbers(text))
}

/// The number `value`, which can be NaN or infinite.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Object(map) => special_number(map),
        _ => None,
    }
}

/// Whether `value` is an object, but not a tagged number.
pub(crate) fn is_nested(value: &Value) -> bool {
    value.as_object().is_some_and(|map| special_number(map).is_none())
}

/// Whether Python takes `value` for true.
pub(crate) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// `value` for an error or a warning, cut to a readable length.
pub(crate) fn describe(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match number(value) {
        Some(number) if !number.is_finite() => number.to_string(),
        _ => value.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn special_number(map: &Map<String, Value>) -> Option<f64> {
    match (map.len(), map.get(FLOAT_TAG)?.as_str()?) {
        (1, "NaN") => Some(f64::NAN),
        (1, "Infinity") => Some(f64::INFINITY),
        (1, "-Infinity") => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Replaces each number that JSON lacks, outside strings.
fn tag_special_numbers(text: &str) -> Cow<'_, str> {
    let mut tagged = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let length = match rest.as_bytes()[0] {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                let word = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
                let word = &rest[..rest.find(word).unwrap_or(rest.len())];
                if let Some(name) = special_name(word) {
                    tagged.push_str(&text[copied..at]);
                    tagged.push_str(&format!("{{\"{FLOAT_TAG}\": \"{name}\"}}"));
                    copied = at + word.len();
                }
                word.len()
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        at += length;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    tagged.push_str(&text[copied..]);
    Cow::Owned(tagged)
}

/// Bytes of the string literal at the start of `text`, both quotes included; all of `text` if it does not end.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The name of the number that Python reads from `word`, if JSON lacks it.
fn special_name(word: &str) -> Option<&'static str> {
    match word {
        "NaN" => Some("NaN"),
        "Infinity" => Some("Infinity"),
        "-Infinity" => Some("-Infinity"),
        // `f64::from_str` also reads "inf" and "nan", which Python's JSON does not.
        _ if !word.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) => None,
        _ => match word.parse::<f64>() {
            Ok(f64::INFINITY) => Some("Infinity"),
            Ok(f64::NEG_INFINITY) => Some("-Infinity"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_are_read_outside_strings_only() {
        let value = parse(
            r#"{"a": NaN, "b": [-Infinity,Infinity], "c": "NaN \" Infinity", "d": 1e999, "e": -1e999, "f": 1e-9}"#,
        )
        .unwrap();
        assert!(number(&value["a"]).unwrap().is_nan());
        assert_eq!(number(&value["b"][0]), Some(f64::NEG_INFINITY));
        assert_eq!(number(&value["b"][1]), Some(f64::INFINITY));
        assert_eq!(value["c"], "NaN \" Infinity");
        assert_eq!(number(&value["d"]), Some(f64::INFINITY));
        assert_eq!(number(&value["e"]), Some(f64::NEG_INFINITY));
        assert_eq!(number(&value["f"]), Some(1e-9));
        assert_eq!(number(&parse(r#"{"__float__": "Infinity"}"#).unwrap()), Some(f64::INFINITY));
        for broken in ["nan", "inf", "{NaN: 1}", "[NaNs]", "\"é", "{\"a\": 'é'}", "-"] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(describe(&parse("NaN").unwrap()), "NaN");
        assert_eq!(describe(&parse("\"é\"").unwrap()), "\"é\"");
        assert_eq!(describe(&Value::String("é".repeat(100))).chars().count(), 63);
    }
}
