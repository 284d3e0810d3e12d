//! Jinja2's filters: their names, and those of numbers and of whole values.

use std::sync::Arc;

use super::arguments::{CallArguments, integer};
use super::failure::{Failure, FailureKind, Outcome};
use super::formats::truncated;
use super::interpreter::Interpreter;
use super::numerals::Layout;
use super::syntax::Operator;
use super::unicode::is_space;
use super::value::{Generator, Key, Value, ViewKind};

/// The names of all filters of Jinja2, sorted.
const FILTERS: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

/// The longest value that `pprint` writes in one line.
const LINE: usize = 80;

/// Whether Jinja2 has a filter of this name.
pub(super) fn has_filter(name: &str) -> bool {
    FILTERS.binary_search(&name).is_ok()
}

impl Interpreter<'_> {
    /// The value of `value|name(arguments)`.
    pub(super) fn filter(&self, name: &str, value: Value, arguments: CallArguments) -> Outcome<Value> {
        match name {
            "tojson" => self.to_json(&value, arguments),
            "abs" => {
                let [] = arguments.bind(name, 0, [])?;
                value.defined()?;
                match value {
                    Value::Float(number) => Ok(Value::Float(number.abs())),
                    value => {
                        let number = integer(&value, "the value of abs")?;
                        let size = number.checked_abs();
                        size.map(Value::Int).ok_or_else(|| Failure::unsupported("an integer of more than 127 bits"))
                    }
                }
            }
            "int" => {
                let [default, base] = arguments.bind(name, 0, ["default", "base"])?;
                let base = base.map_or(Ok(10), |base| integer(&base, "base"))?;
                self.to_int(&value, default.unwrap_or(Value::Int(0)), base)
            }
            "float" => {
                let [default] = arguments.bind(name, 0, ["default"])?;
                match self.to_float(&value) {
                    Ok(number) => Ok(Value::Float(number)),
                    Err(Failure { kind: FailureKind::Type | FailureKind::Value, .. }) => {
                        Ok(default.unwrap_or(Value::Float(0.0)))
                    }
                    Err(failure) => Err(failure),
                }
            }
            "round" => {
                let [precision, method] = arguments.bind(name, 0, ["precision", "method"])?;
                let precision = precision.map_or(Ok(0), |precision| integer(&precision, "precision"))?;
                let method =
                    method.map_or(Ok(Arc::from("common")), |method| super::arguments::text(&method, "method"))?;
                self.rounded(&value, precision, &method)
            }
            "filesizeformat" => {
                let [binary] = arguments.bind(name, 0, ["binary"])?;
                let size = self.to_float(&value)?;
                Ok(Value::text(file_size(size, binary.is_some_and(|binary| binary.is_true()))?))
            }
            "default" | "d" => {
                let [default, boolean] = arguments.bind(name, 0, ["default_value", "boolean"])?;
                let replaces = value.is_undefined() || (boolean.is_some_and(|flag| flag.is_true()) && !value.is_true());
                Ok(if replaces { default.unwrap_or_else(|| Value::text("")) } else { value })
            }
            "attr" => {
                let [attribute] = arguments.bind(name, 1, ["name"])?;
                value.defined()?;
                let attribute = super::arguments::text(&attribute.unwrap_or(Value::None), "the name")?;
                // A key of a mapping is not an attribute.
                match &value {
                    Value::Dict(_) if !self.has_method(&value, &attribute) && !attribute.starts_with("__") => {
                        Ok(Value::undefined(format!("'dict object' has no attribute '{attribute}'")))
                    }
                    _ => self.attribute(&value, &attribute),
                }
            }
            "string" => {
                let [] = arguments.bind(name, 0, [])?;
                match value {
                    Value::Text(_) | Value::Markup(_) => Ok(value),
                    value => Ok(Value::text(&*self.to_text(&value)?)),
                }
            }
            "length" | "count" => {
                let [] = arguments.bind(name, 0, [])?;
                match &value {
                    Value::Loop(state) => Ok(self.loop_attribute(state, "length")?.unwrap_or(Value::None)),
                    _ => match value.length() {
                        Some(length) => Ok(Value::Int(length as i128)),
                        None => Err(Failure::of_type(format!("object of type '{}' has no len()", value.type_name()))),
                    },
                }
            }
            "pprint" => {
                let [] = arguments.bind(name, 0, [])?;
                let text = self.repr(&self.with_sorted_keys(&value)?)?;
                if text.chars().count() > LINE {
                    return Err(Failure::unsupported(format!("'pprint' of more than {LINE} characters")));
                }
                Ok(Value::text(text))
            }
            "items" => {
                let [] = arguments.bind(name, 0, [])?;
                match &value {
                    Value::Undefined(_) => Generator::value(Vec::new(), None),
                    Value::Dict(dict) => {
                        let view = Value::View(ViewKind::Items, std::rc::Rc::clone(dict));
                        Generator::value(self.iterate(&view)?.values.clone(), None)
                    }
                    // Raised when the iteration begins.
                    _ => Generator::value(Vec::new(), Some(Failure::of_type("can only get item pairs from a mapping"))),
                }
            }
            "random" | "urlize" | "wordwrap" => Err(Failure::unsupported(format!("the filter '{name}'"))),
            _ if has_filter(name) => match self.text_filter(name, &value, arguments)? {
                Ok(result) => Ok(result),
                Err(arguments) => self.sequence_filter(name, &value, arguments),
            },
            _ => Err(Failure::other(format!("no filter named '{name}'"))),
        }
    }

    /// The value with the keys of its dictionaries sorted, as `pprint` shows them.
    fn with_sorted_keys(&self, value: &Value) -> Outcome<Value> {
        self.meter.nested(|| match value {
            Value::List(items) => {
                Value::list(items.values.iter().map(|item| self.with_sorted_keys(item)).collect::<Outcome<_>>()?)
            }
            Value::Tuple(items) => {
                Value::tuple(items.values.iter().map(|item| self.with_sorted_keys(item)).collect::<Outcome<_>>()?)
            }
            Value::Dict(dict) => {
                let pairs = dict.entries.keys().map(|key| (vec![key.0.clone()], key.0.clone())).collect();
                let keys = self.sorted(pairs, false);
                let keys = keys.map_err(|_| Failure::unsupported("'pprint' of keys without an order"))?;
                let entry = |key: Value| {
                    let key = Key(key);
                    let value = self.with_sorted_keys(&dict.entries[&key])?;
                    Ok((key, value))
                };
                Value::dict(keys.into_iter().map(entry).collect::<Outcome<_>>()?)
            }
            value => Ok(value.clone()),
        })
    }

    fn to_int(&self, value: &Value, default: Value, base: i128) -> Outcome<Value> {
        let first = match value {
            Value::Undefined(_) => return value.defined().map(|()| default),
            Value::Text(text) | Value::Markup(text) => {
                self.meter.read(text.len())?;
                parsed_int(text, base)
            }
            Value::Float(number) => truncated(*number),
            value => integer(value, "the value of int"),
        };
        let converted = match first {
            Err(Failure { kind: FailureKind::Type | FailureKind::Value, .. }) => match self.to_float(value) {
                Ok(number) => truncated(number),
                Err(failure) => Err(failure),
            },
            converted => converted,
        };
        match converted {
            Ok(number) => Ok(Value::Int(number)),
            Err(Failure { kind: FailureKind::Unsupported | FailureKind::Limit, message }) => {
                Err(Failure::new(FailureKind::Unsupported, message))
            }
            // An infinity is an error as a float and the default as a text.
            Err(failure) if failure.kind == FailureKind::Other && matches!(value, Value::Float(_)) => Err(failure),
            Err(_) => Ok(default),
        }
    }

    /// Python's `float(value)`.
    fn to_float(&self, value: &Value) -> Outcome<f64> {
        value.defined()?;
        match value {
            Value::Float(number) => Ok(*number),
            Value::Text(text) | Value::Markup(text) => {
                self.meter.read(text.len())?;
                parsed_float(text)
            }
            value => integer(value, "a float").map(|number| number as f64),
        }
    }

    fn rounded(&self, value: &Value, precision: i128, method: &str) -> Outcome<Value> {
        value.defined()?;
        match method {
            "common" => {}
            "ceil" | "floor" => {
                let scale = self.arithmetic(Operator::Power, Value::Int(10), Value::Int(precision))?;
                let product = self.arithmetic(Operator::Multiply, value.clone(), scale.clone())?;
                let number = match product {
                    Value::Float(number) => {
                        truncated(if method == "ceil" { number.ceil() } else { number.floor() }).map(Value::Int)?
                    }
                    product => Value::Int(integer(&product, "the value of round")?),
                };
                return self.arithmetic(Operator::Divide, number, scale);
            }
            _ => return Err(Failure::other("method must be common, ceil or floor")),
        }
        match (value, usize::try_from(precision)) {
            (Value::Float(number), Ok(digits)) => {
                // Longer fractions than a float has.
                let text = format!("{number:.*}", digits.min(400));
                Ok(Value::Float(if number.is_finite() { text.parse().unwrap_or(*number) } else { *number }))
            }
            (Value::Float(_), Err(_)) => Err(Failure::unsupported("rounding a float to tens")),
            (value, Ok(_)) => integer(value, "the value of round").map(Value::Int),
            (_, Err(_)) => Err(Failure::unsupported("rounding an integer to tens")),
        }
    }
}

/// Python's `int(text, base)`.
fn parsed_int(text: &str, base: i128) -> Outcome<i128> {
    let invalid = || Failure::of_value("invalid literal for int()");
    if base != 0 && !(2..=36).contains(&base) {
        return Err(Failure::of_value("int() base must be >= 2 and <= 36, or 0"));
    }
    let trimmed = text.trim_matches(is_space);
    if !trimmed.is_ascii() && trimmed.chars().any(super::unicode::is_decimal) {
        return Err(Failure::unsupported("a number in digits beyond ASCII"));
    }
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    let lower = digits.to_ascii_lowercase();
    let prefixes = [("0b", 2), ("0o", 8), ("0x", 16)];
    let prefixed = prefixes
        .into_iter()
        .find(|(prefix, radix)| lower.starts_with(prefix) && (base == 0 || base == *radix) && lower.len() > 2);
    let (digits, radix) = match prefixed {
        Some((_, radix)) => (lower[2..].strip_prefix('_').unwrap_or(&lower[2..]), radix),
        None if base == 0 => (&*lower, 10),
        None => (&*lower, base),
    };
    let fits = |digit: char| digit.is_digit(radix as u32);
    let parts: Vec<&str> = digits.split('_').collect();
    if parts.iter().any(|part| part.is_empty() || !part.chars().all(fits)) {
        return Err(invalid());
    }
    let plain = parts.concat();
    if base == 0
        && prefixed.is_none()
        && plain.len() > 1
        && plain.starts_with('0')
        && !plain.trim_matches('0').is_empty()
    {
        return Err(invalid());
    }
    let sign = if trimmed.starts_with('-') { "-" } else { "" };
    i128::from_str_radix(&format!("{sign}{plain}"), radix as u32)
        .map_err(|_| Failure::unsupported("an integer of more than 127 bits"))
}

/// Python's `float(text)`.
fn parsed_float(text: &str) -> Outcome<f64> {
    let trimmed = text.trim_matches(is_space);
    if !trimmed.is_ascii() && trimmed.chars().any(super::unicode::is_decimal) {
        return Err(Failure::unsupported("a number in digits beyond ASCII"));
    }
    let bytes = trimmed.as_bytes();
    let digit = |position: Option<usize>| position.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let separates = |at: usize| digit(at.checked_sub(1)) && digit(Some(at + 1));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'_' && !separates(at)) {
        return Err(Failure::of_value("could not convert string to float"));
    }
    trimmed.replace('_', "").parse().map_err(|_| Failure::of_value("could not convert string to float"))
}

fn file_size(size: f64, binary: bool) -> Outcome<String> {
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    if size == 1.0 {
        return Ok("1 Byte".to_owned());
    }
    if size < base {
        return Ok(format!("{} Bytes", truncated(size)?));
    }
    let layout = Layout { kind: Some('f'), precision: Some(1), ..Layout::default() };
    let mut unit = base;
    for (position, prefix) in prefixes.into_iter().enumerate() {
        unit *= base;
        if size < unit || position + 1 == prefixes.len() {
            let unit_name = match (binary, prefix) {
                (true, "k") => "KiB".to_owned(),
                (true, prefix) => format!("{prefix}iB"),
                (false, prefix) => format!("{prefix}B"),
            };
            return Ok(format!("{} {unit_name}", layout.float(base * size / unit)));
        }
    }
    Err(Failure::of_value("a size that is not a number"))
}
