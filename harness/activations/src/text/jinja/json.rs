//! transformers' `tojson`: `json.dumps` without HTML escapes, and with non-ASCII text kept.

use std::sync::Arc;

use super::arguments::{CallArguments, text};
use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::show;
use super::value::Value;

/// The options of `json.dumps`.
struct Style {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: Arc<str>,
    key: Arc<str>,
}

impl Interpreter<'_> {
    /// The filter `tojson`.
    pub(super) fn to_json(&self, value: &Value, arguments: CallArguments) -> Outcome<Value> {
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let [ensure_ascii, indent, separators, sort_keys] = arguments.bind("tojson", 0, names)?;
        let indent = match indent {
            None | Some(Value::None) => None,
            Some(Value::Text(text)) => Some(text.to_string()),
            Some(indent) => {
                let width = super::arguments::length(&indent, "indent")?;
                self.meter.build(width)?;
                Some(" ".repeat(width))
            }
        };
        let (item, key) = match separators {
            None | Some(Value::None) if indent.is_some() => (Arc::from(","), Arc::from(": ")),
            None | Some(Value::None) => (Arc::from(", "), Arc::from(": ")),
            Some(pair) => match self.iterate(&pair)?.values.as_slice() {
                [item, key] => (text(item, "a separator")?, text(key, "a separator")?),
                _ => return Err(Failure::of_value("separators must be a pair")),
            },
        };
        let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
        let style = Style { ensure_ascii: is_true(ensure_ascii), sort_keys: is_true(sort_keys), indent, item, key };
        let mut output = String::new();
        self.write_json(value, &style, 0, &mut output)?;
        Ok(Value::text(output))
    }

    fn put_json(&self, output: &mut String, text: &str) -> Outcome<()> {
        self.meter.extend(output.len(), text.len())?;
        output.push_str(text);
        Ok(())
    }

    fn write_json(&self, value: &Value, style: &Style, depth: usize, output: &mut String) -> Outcome<()> {
        self.meter.nested(|| match value {
            Value::Text(text) | Value::Markup(text) => {
                self.meter.build(text.len())?;
                self.put_json(output, &quoted(text, style.ensure_ascii)?)
            }
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                self.put_json(output, &scalar(value).unwrap_or_default())
            }
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
                self.write_all(["[", "]"], items.values.len(), style, depth, output, |position, output| {
                    self.write_json(&items.values[position], style, depth + 1, output)
                })
            }
            Value::Dict(dict) => {
                let mut keys: Vec<&super::value::Key> = dict.entries.keys().collect();
                let sorted;
                if style.sort_keys {
                    let pairs = keys.iter().map(|key| (vec![key.0.clone()], key.0.clone())).collect();
                    sorted = self.sorted(pairs, false)?.into_iter().map(super::value::Key).collect::<Vec<_>>();
                    keys = sorted.iter().collect();
                }
                self.write_all(["{", "}"], keys.len(), style, depth, output, |position, output| {
                    let key = match &keys[position].0 {
                        Value::Text(text) => Arc::clone(text),
                        key => match scalar(key) {
                            Some(text) => Arc::from(text),
                            None => return Err(Failure::of_type("keys of JSON must be strings or numbers")),
                        },
                    };
                    self.put_json(output, &quoted(&key, style.ensure_ascii)?)?;
                    self.put_json(output, &style.key)?;
                    self.write_json(&dict.entries[keys[position]], style, depth + 1, output)
                })
            }
            _ => Err(Failure::of_type(format!("object of type {} is not JSON serializable", value.type_name()))),
        })
    }

    fn write_all(
        &self,
        [open, close]: [&str; 2],
        count: usize,
        style: &Style,
        depth: usize,
        output: &mut String,
        write: impl Fn(usize, &mut String) -> Outcome<()>,
    ) -> Outcome<()> {
        let break_line = |output: &mut String, depth: usize| {
            if let Some(indent) = &style.indent {
                self.put_json(output, "\n")?;
                for _ in 0..depth {
                    self.put_json(output, indent)?;
                }
            }
            Ok::<(), Failure>(())
        };
        self.put_json(output, open)?;
        for position in 0..count {
            if position > 0 {
                self.put_json(output, &style.item)?;
            }
            break_line(output, depth + 1)?;
            write(position, output)?;
        }
        if count > 0 {
            break_line(output, depth)?;
        }
        self.put_json(output, close)
    }
}

/// The JSON of a value without parts.
fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::None => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) if number.is_nan() => "NaN".to_owned(),
        Value::Float(number) if number.is_infinite() => if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Value::Float(number) => show::float(*number),
        _ => return None,
    })
}

fn quoted(text: &str, ensure_ascii: bool) -> Outcome<String> {
    let quoted = serde_json::to_string(text).map_err(|error| Failure::other(format!("tojson: {error}")))?;
    if !ensure_ascii || (quoted.is_ascii() && !quoted.contains('\u{7f}')) {
        return Ok(quoted);
    }
    let mut output = String::with_capacity(quoted.len());
    for character in quoted.chars() {
        if character.is_ascii() {
            output.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                output.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(output)
}
