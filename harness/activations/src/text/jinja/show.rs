//! Python's `str` and `repr`.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::unicode::is_printable;
use super::value::{Dict, Function, Value, ViewKind};

impl Interpreter<'_> {
    /// Python's `str(value)`, which a template prints.
    pub(super) fn to_text<'v>(&self, value: &'v Value) -> Outcome<Cow<'v, str>> {
        Ok(match value {
            Value::Text(text) | Value::Markup(text) => Cow::Borrowed(&**text),
            Value::Undefined(_) => Cow::Borrowed(""),
            Value::None => Cow::Borrowed("None"),
            Value::Bool(true) => Cow::Borrowed("True"),
            Value::Bool(false) => Cow::Borrowed("False"),
            Value::Int(number) => Cow::Owned(number.to_string()),
            Value::Float(number) => Cow::Owned(float(*number)),
            _ => Cow::Owned(self.repr(value)?),
        })
    }

    /// Python's `repr(value)`.
    pub(super) fn repr(&self, value: &Value) -> Outcome<String> {
        let mut output = String::new();
        self.write_repr(value, &mut output)?;
        Ok(output)
    }

    fn put(&self, output: &mut String, text: &str) -> Outcome<()> {
        self.meter.extend(output.len(), text.len())?;
        output.push_str(text);
        Ok(())
    }

    fn write_repr(&self, value: &Value, output: &mut String) -> Outcome<()> {
        self.meter.nested(|| match value {
            Value::Undefined(_) => self.put(output, "Undefined"),
            Value::Text(text) => {
                self.meter.read(text.len())?;
                self.put(output, &quoted(text))
            }
            Value::Markup(text) => self.put(output, &format!("Markup({})", quoted(text))),
            Value::List(items) => self.write_items(&items.values, "[", "]", output),
            Value::Tuple(items) | Value::Group(items) => {
                let close = if items.values.len() == 1 { ",)" } else { ")" };
                self.write_items(&items.values, "(", close, output)
            }
            Value::Dict(dict) => self.write_dict(dict, output),
            Value::View(kind, dict) => {
                let name = match kind {
                    ViewKind::Keys => "dict_keys(",
                    ViewKind::Values => "dict_values(",
                    ViewKind::Items => "dict_items(",
                };
                let _ = dict;
                self.put(output, name)?;
                self.write_items(&self.iterate(value)?.values, "[", "]", output)?;
                self.put(output, ")")
            }
            Value::Range(range) => {
                let mut text = format!("range({}, {}", range.start, range.stop);
                if range.step != 1 {
                    let _ = write!(text, ", {}", range.step);
                }
                self.put(output, &(text + ")"))
            }
            Value::Namespace(namespace) => {
                self.put(output, "<Namespace {")?;
                for (position, (name, value)) in namespace.attributes.borrow().iter().enumerate() {
                    if matches!(value, Value::Namespace(_)) {
                        return Err(Failure::unsupported("printing a namespace inside of a namespace"));
                    }
                    let comma = if position > 0 { ", " } else { "" };
                    self.put(output, &format!("{comma}{}: ", quoted(name)))?;
                    self.write_repr(value, output)?;
                }
                self.put(output, "}>")
            }
            Value::Function(function) => match &**function {
                Function::Macro(definition, _) => self.put(output, &format!("<Macro {}>", quoted(&definition.name))),
                _ => Err(Failure::unsupported("printing a function")),
            },
            Value::Generator(_) | Value::Loop(_) => {
                Err(Failure::unsupported(format!("printing a value of type '{}'", value.type_name())))
            }
            _ => {
                let text = self.to_text(value)?;
                self.put(output, &text)
            }
        })
    }

    fn write_items(&self, items: &[Value], open: &str, close: &str, output: &mut String) -> Outcome<()> {
        self.put(output, open)?;
        for (position, item) in items.iter().enumerate() {
            if position > 0 {
                self.put(output, ", ")?;
            }
            self.write_repr(item, output)?;
        }
        self.put(output, close)
    }

    fn write_dict(&self, dict: &Dict, output: &mut String) -> Outcome<()> {
        self.put(output, "{")?;
        for (position, (key, value)) in dict.entries.iter().enumerate() {
            if position > 0 {
                self.put(output, ", ")?;
            }
            self.write_repr(&key.0, output)?;
            self.put(output, ": ")?;
            self.write_repr(value, output)?;
        }
        self.put(output, "}")
    }
}

/// Python's `repr` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    format!("{number:?}")
}

/// Python's `repr` of a string.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut output = String::with_capacity(text.len() + 2);
    output.push(quote);
    for character in text.chars() {
        match character {
            '\\' => output.push_str("\\\\"),
            '\n' => output.push_str("\\n"),
            '\r' => output.push_str("\\r"),
            '\t' => output.push_str("\\t"),
            _ if character == quote => {
                output.push('\\');
                output.push(quote);
            }
            _ if is_printable(character) => output.push(character),
            _ => {
                let code = u32::from(character);
                let _ = match code {
                    0..=0xff => write!(output, "\\x{code:02x}"),
                    0x100..=0xffff => write!(output, "\\u{code:04x}"),
                    _ => write!(output, "\\U{code:08x}"),
                };
            }
        }
    }
    output.push(quote);
    output
}
