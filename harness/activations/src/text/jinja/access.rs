//! Attributes, subscripts and slices by the rules of Jinja2's immutable sandbox.
//!
//! `value.name` prefers an attribute of the Python object to a key of a mapping; `value["name"]` prefers the key.

use std::rc::Rc;
use std::sync::Arc;

use super::arguments::integer;
use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::value::{Function, Namespace, Range, Value};

/// Methods of Python's `str`.
const TEXT_METHODS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// Methods of Python's `dict` that do not change it.
const DICT_METHODS: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];

/// Methods of Python's containers that change them, which the sandbox hides.
const CHANGES: [&str; 13] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "__setitem__",
    "__delitem__",
];

/// Attributes of numbers, ranges, generators and views that are not reproduced.
const OTHER_ATTRIBUTES: [&str; 27] = [
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "denominator",
    "from_bytes",
    "imag",
    "numerator",
    "real",
    "to_bytes",
    "fromhex",
    "hex",
    "is_integer",
    "close",
    "send",
    "throw",
    "gi_code",
    "gi_frame",
    "gi_running",
    "gi_suspended",
    "gi_yieldfrom",
    "isdisjoint",
    "mapping",
    "start",
    "stop",
    "step",
    "unescape",
];

impl Interpreter<'_> {
    /// Whether calling `value.name(...)` calls a method of the Python object.
    pub(super) fn has_method(&self, value: &Value, name: &str) -> bool {
        match value {
            Value::Text(_) | Value::Markup(_) => TEXT_METHODS.contains(&name),
            Value::Dict(_) => DICT_METHODS.contains(&name),
            Value::List(_) => matches!(name, "copy" | "count" | "index"),
            Value::Tuple(_) | Value::Group(_) | Value::Range(_) => matches!(name, "count" | "index"),
            Value::Loop(_) => matches!(name, "cycle" | "changed"),
            Value::Function(function) => match **function {
                Function::Cycler(..) => matches!(name, "next" | "reset"),
                _ => false,
            },
            _ => false,
        }
    }

    /// An attribute of the Python object itself.
    fn own_attribute(&self, value: &Value, name: &str) -> Outcome<Option<Value>> {
        if let Value::Namespace(namespace) = value {
            let found = namespace.attributes.borrow().get(name).cloned();
            return Ok(found.filter(|_| !name.starts_with('_')));
        }
        if name.starts_with("__") {
            return Err(Failure::unsupported(format!("the attribute '{name}'")));
        }
        if let Value::Loop(state) = value {
            return self.loop_attribute(state, name);
        }
        if self.has_method(value, name) {
            return Ok(Some(Value::Function(Rc::new(Function::Method(value.clone(), Arc::from(name))))));
        }
        Ok(match value {
            Value::List(_) | Value::Dict(_) if CHANGES.contains(&name) => {
                let hidden = format!("access to attribute '{name}' of '{}' object is unsafe", value.type_name());
                Some(Value::undefined(hidden))
            }
            Value::Group(items) if name == "grouper" => Some(items.values[0].clone()),
            Value::Group(items) if name == "list" => Some(items.values[1].clone()),
            Value::Function(function) => match &**function {
                Function::Macro(definition, _) => match name {
                    "name" => Some(Value::Text(Arc::clone(&definition.name))),
                    "arguments" => {
                        let parameters = definition.parameters.iter();
                        let names = parameters.map(|(id, _)| Value::Text(Arc::clone(&self.names[*id as usize])));
                        Some(Value::tuple(names.collect())?)
                    }
                    "catch_kwargs" => Some(Value::Bool(definition.uses_kwargs)),
                    "catch_varargs" => Some(Value::Bool(definition.uses_varargs)),
                    "caller" => Some(Value::Bool(definition.uses_caller)),
                    "explicit_caller" => return Err(Failure::unsupported("the attribute 'explicit_caller'")),
                    _ => None,
                },
                Function::Cycler(items, position) => match name {
                    "current" => Some(items.values[position.get()].clone()),
                    "pos" => Some(Value::Int(position.get() as i128)),
                    "items" => Some(Value::Tuple(Rc::clone(items))),
                    _ => None,
                },
                Function::Joiner(separator, used) => match name {
                    "sep" => Some(Value::Text(Arc::clone(separator))),
                    "used" => Some(Value::Bool(used.get())),
                    _ => None,
                },
                Function::Global(super::value::Global::Dict) if name == "fromkeys" => {
                    return Err(Failure::unsupported("the attribute 'fromkeys'"));
                }
                _ => None,
            },
            Value::Range(Range { start, .. }) if name == "start" => Some(Value::Int(*start)),
            Value::Int(_)
            | Value::Bool(_)
            | Value::Float(_)
            | Value::Range(_)
            | Value::Generator(_)
            | Value::View(..)
            | Value::Markup(_)
                if OTHER_ATTRIBUTES.contains(&name) =>
            {
                return Err(Failure::unsupported(format!("the attribute '{name}' of '{}'", value.type_name())));
            }
            _ => None,
        })
    }

    fn missing(value: &Value, name: &str) -> Value {
        Value::undefined(format!("'{} object' has no attribute '{name}'", value.type_name()))
    }

    /// `value.name`.
    pub(super) fn attribute(&self, value: &Value, name: &str) -> Outcome<Value> {
        value.defined()?;
        if let Some(found) = self.own_attribute(value, name)? {
            return Ok(found);
        }
        if let Value::Dict(dict) = value
            && let Some(found) = dict.get(name)
        {
            return Ok(found.clone());
        }
        Ok(Self::missing(value, name))
    }

    /// `value[item]`.
    pub(super) fn item(&self, value: &Value, item: &Value) -> Outcome<Value> {
        value.defined()?;
        match (value, item.as_int()) {
            (Value::Dict(dict), _) => {
                if let Value::Text(text) | Value::Markup(text) = item {
                    self.meter.read(text.len())?;
                    if let Some(found) = dict.get(text) {
                        return Ok(found.clone());
                    }
                } else if !matches!(item, Value::List(_) | Value::Dict(_)) {
                    item.defined()?;
                    if let Some(found) = dict.entries.get(&self.key(item)?) {
                        return Ok(found.clone());
                    }
                }
            }
            (Value::List(items) | Value::Tuple(items) | Value::Group(items), Some(position)) => {
                if let Some(position) = index(position, items.values.len()) {
                    return Ok(items.values[position].clone());
                }
            }
            (Value::Text(text) | Value::Markup(text), Some(position)) => {
                self.meter.read(text.len())?;
                let found = match usize::try_from(position) {
                    Ok(position) => text.chars().nth(position),
                    Err(_) => usize::try_from(-1 - position).ok().and_then(|back| text.chars().nth_back(back)),
                };
                if let Some(character) = found {
                    return Ok(like(value, &character.to_string()));
                }
            }
            (Value::Range(range), Some(position)) => {
                if let Some(position) = index(position, range.len()) {
                    return Ok(Value::Int(range.start + range.step * position as i128));
                }
            }
            _ => {}
        }
        match item.as_text() {
            Some(name) => Ok(self.own_attribute(value, name)?.unwrap_or_else(|| Self::missing(value, name))),
            None => Ok(Value::undefined(format!("'{} object' has no such element", value.type_name()))),
        }
    }

    /// `value[start:stop:step]`.
    pub(super) fn slice(&self, value: &Value, bounds: &[Option<Value>; 3]) -> Outcome<Value> {
        value.defined()?;
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            match bound {
                None | Some(Value::None) => {}
                Some(bound) => match bound.as_int() {
                    Some(found) => *number = Some(found),
                    None => return Err(Failure::of_type("slice indices must be integers")),
                },
            }
        }
        let [start, stop, step] = numbers;
        let positions = |length| positions(start, stop, step.unwrap_or(1), length);
        match value {
            Value::Text(text) | Value::Markup(text) => {
                self.meter.build(text.len())?;
                if step.unwrap_or(1) == 1 {
                    let length = if text.is_ascii() { text.len() } else { text.chars().count() };
                    let (start, count) = positions(length)?.map_or((0, 0), |span| (span.0, span.2));
                    return Ok(like(value, characters(text, start, count)));
                }
                self.meter.spend(text.len())?;
                let all: Vec<char> = text.chars().collect();
                let taken: String = spread(positions(all.len())?).map(|position| all[position]).collect();
                Ok(like(value, &taken))
            }
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
                let taken: Vec<Value> =
                    spread(positions(items.values.len())?).map(|position| items.values[position].clone()).collect();
                self.meter.spend(taken.len())?;
                if matches!(value, Value::List(_)) { Value::list(taken) } else { Value::tuple(taken) }
            }
            Value::Range(range) => {
                let step_by = step.unwrap_or(1);
                Ok(match positions(range.len())? {
                    Some((first, _, count)) => {
                        let step = range.step * step_by;
                        let start = range.start + range.step * first as i128;
                        Value::Range(Range { start, stop: start + step * count as i128, step })
                    }
                    None => return Err(Failure::unsupported("an empty slice of a range")),
                })
            }
            _ => Err(Failure::of_type(format!("'{}' object has no slices", value.type_name()))),
        }
    }

    /// Sets an attribute of a namespace.
    pub(super) fn set_attribute(&self, namespace: &Namespace, name: &Arc<str>, value: Value) -> Outcome<()> {
        if name.starts_with('_') {
            return Err(Failure::other(format!("a namespace cannot have the attribute '{name}'")));
        }
        if matches!(value, Value::Loop(_)) {
            return Err(Failure::unsupported("the variable 'loop' inside of another value"));
        }
        // The old value is dropped after the borrow.
        let old = namespace.attributes.borrow_mut().insert(Arc::clone(name), value);
        drop(old);
        Ok(())
    }

    /// The attribute of a path such as `message.content` or `0.name`, by the rules of filters such as `map`.
    pub(super) fn path(&self, value: &Value, path: &[PathPart]) -> Outcome<Value> {
        path.iter().try_fold(value.clone(), |value, part| match part {
            PathPart::Position(position) => self.item(&value, &Value::Int(*position)),
            PathPart::Name(name) => self.item(&value, &Value::Text(Arc::clone(name))),
        })
    }

    /// The parts of a path.
    pub(super) fn path_parts(&self, path: &Value) -> Outcome<Vec<PathPart>> {
        match path {
            Value::None => Ok(Vec::new()),
            Value::Text(text) | Value::Markup(text) => {
                self.meter.read(text.len())?;
                text.split('.')
                    .map(|part| {
                        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                        match part.parse() {
                            Ok(position) if digits => Ok(PathPart::Position(position)),
                            _ => Ok(PathPart::Name(Arc::from(part))),
                        }
                    })
                    .collect()
            }
            _ => integer(path, "an attribute").map(|position| vec![PathPart::Position(position)]),
        }
    }
}

/// A part of an attribute path.
#[derive(Clone, Debug)]
pub(super) enum PathPart {
    Name(Arc<str>),
    Position(i128),
}

/// `text` with the type of `value`, which is a text.
pub(super) fn like(value: &Value, text: &str) -> Value {
    match value {
        Value::Markup(_) => Value::Markup(Arc::from(text)),
        _ => Value::text(text),
    }
}

/// A Python index as a position.
fn index(position: i128, length: usize) -> Option<usize> {
    let position = if position < 0 { position.checked_add(length as i128)? } else { position };
    usize::try_from(position).ok().filter(|position| *position < length)
}

/// `count` characters of `text` from the character `start` on.
pub(super) fn characters(text: &str, start: usize, count: usize) -> &str {
    let byte = |text: &str, position: usize| {
        if text.is_ascii() {
            position.min(text.len())
        } else {
            text.char_indices().nth(position).map_or(text.len(), |(byte, _)| byte)
        }
    };
    let rest = &text[byte(text, start)..];
    &rest[..byte(rest, count)]
}

/// Start and stop of a slice with a positive step, as Python limits them to the length.
pub(super) fn limited(start: Option<i128>, stop: Option<i128>, length: usize) -> (usize, usize) {
    let limit = |bound: Option<i128>, default: usize| match bound {
        None => default,
        Some(bound) if bound < 0 => usize::try_from(bound.saturating_add(length as i128)).unwrap_or(0),
        Some(bound) => usize::try_from(bound).unwrap_or(usize::MAX).min(length),
    };
    (limit(start, 0), limit(stop, length))
}

/// The first position, the step and the number of the elements of a slice; `None` if it is empty.
fn positions(
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
    length: usize,
) -> Outcome<Option<(usize, i128, usize)>> {
    if step == 0 {
        return Err(Failure::of_value("slice step cannot be zero"));
    }
    let length = length as i128;
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let limit = |bound: Option<i128>, default: i128| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).max(lowest),
        Some(bound) => bound.min(highest),
    };
    let (start, stop) =
        if step > 0 { (limit(start, 0), limit(stop, length)) } else { (limit(start, length - 1), limit(stop, -1)) };
    let span = if step > 0 { stop - start } else { start - stop };
    if span <= 0 {
        return Ok(None);
    }
    let count = (span - 1) / step.saturating_abs() + 1;
    Ok(Some((start as usize, step, count as usize)))
}

/// The positions of a slice.
fn spread(slice: Option<(usize, i128, usize)>) -> impl Iterator<Item = usize> {
    let (start, step, count) = slice.unwrap_or((0, 1, 0));
    (0..count).map(move |number| (start as i128 + step.saturating_mul(number as i128)) as usize)
}
