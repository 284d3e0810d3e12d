//! Labels: one rule for all file formats.
//!
//! A label is exactly 0 or 1: the number, `false` or `true` in any case, or a text with either. Everything else is an
//! error, also a number that only rounds to 0 or 1.

use serde_json::Value;

/// A label from a text: a CSV cell, a string, or a number as it is written.
pub(super) fn from_text(text: &str) -> Result<bool, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(missing());
    }
    if text.eq_ignore_ascii_case("true") {
        return Ok(true);
    }
    if text.eq_ignore_ascii_case("false") {
        return Ok(false);
    }
    exact_digit(text).ok_or_else(|| bad(&format!("{text:?}")))
}

/// A label from a JSON value. `raw` is the text of a number, if the caller has it: `1e-400` is not 0, though its nearest
/// double is.
pub(super) fn from_json(label: Option<&Value>, raw: Option<&str>) -> Result<bool, String> {
    match label {
        None | Some(Value::Null) => Err(missing()),
        Some(Value::Bool(label)) => Ok(*label),
        Some(Value::String(text)) => from_text(text),
        Some(Value::Number(number)) => {
            let text = raw.map_or_else(|| number.to_string(), str::to_owned);
            exact_digit(&text).ok_or_else(|| bad(&text))
        }
        Some(other) => Err(bad(&other.to_string())),
    }
}

fn missing() -> String {
    "has no `label`; set it to 0 or 1, or remove the row".to_owned()
}

/// The message for a label that is neither 0 nor 1.
pub(super) fn bad(label: &str) -> String {
    let mut shown: String = label.chars().take(40).collect();
    if shown.len() < label.len() {
        shown.push_str("...");
    }
    format!("label {shown} is neither 0 nor 1; probes are binary, so map the labels to 0 and 1")
}

/// Whether a decimal number such as `1`, `1.0`, `10e-1` or `-0.0` is exactly 0 or exactly 1; `None` if it is neither, or
/// no number.
fn exact_digit(text: &str) -> Option<bool> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    if exponent_digits.is_empty() || !is_number(exponent_digits) || mantissa.ends_with('.') {
        return None;
    }
    let digits = [whole, fraction].concat();
    let significant = digits.trim_matches('0');
    if significant.is_empty() {
        return Some(false);
    }
    // The digit 1 at `position` places left of the point stands for 10^position.
    let position = whole.len() as i64 - 1 - digits.find('1')? as i64;
    let is_one = significant == "1" && !negative && exponent.parse::<i64>().ok()?.checked_add(position)? == 0;
    is_one.then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_zero_and_one_are_labels() {
        for text in ["0", "0.0", "-0", "-0.000", "0e5", "000", "false", "FALSE", " False ", "0E-400"] {
            assert_eq!(from_text(text), Ok(false), "{text}");
        }
        for text in ["1", "1.0", "1.", "01", "10e-1", "0.1e1", "100E-02", "1e0", "1e+0", "true", "True", "TRUE\t"] {
            let expected = if text == "1." { Err(bad("\"1.\"")) } else { Ok(true) };
            assert_eq!(from_text(text), expected, "{text}");
        }
    }

    #[test]
    fn everything_else_is_rejected() {
        let others = [
            "2",
            "-1",
            "+1",
            "0.5",
            "1e-400",
            "1e1",
            "10",
            "11",
            "1.0000000000000000000001",
            "0.99999999999999999999",
            "NaN",
            "nan",
            "inf",
            "yes",
            "t",
            "1 0",
            "0x1",
            "1e",
            "1e1e1",
            ".",
            "-",
            "e0",
            "1_0",
            "1,0",
            "１",
            "1e99999999999999999999",
        ];
        for text in others {
            assert!(from_text(text).unwrap_err().contains("neither 0 nor 1"), "{text}");
        }
        assert!(from_text("  ").unwrap_err().starts_with("has no `label`"));
    }

    #[test]
    fn json_values_follow_the_same_rule() {
        let label = |text: &str| from_json(Some(&serde_json::from_str(text).unwrap()), Some(text));
        for (text, expected) in
            [("0", false), ("-0.0", false), ("1", true), ("1.0", true), ("true", true), ("\"1\"", true)]
        {
            assert_eq!(label(text), Ok(expected), "{text}");
        }
        for text in ["1e-400", "0.9999999999999999999999", "2", "[1]", "{}", "\"yes\"", "\"1e-400\""] {
            assert!(label(text).is_err(), "{text}");
        }
        assert!(from_json(None, None).is_err() && from_json(Some(&Value::Null), None).is_err());
    }
}
