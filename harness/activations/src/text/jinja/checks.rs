//! Jinja2's tests, such as `x is defined`.

use std::rc::Rc;
use std::sync::Arc;

use super::arguments::CallArguments;
use super::failure::{Failure, Outcome};
use super::filters::has_filter;
use super::interpreter::Interpreter;
use super::syntax::{Comparison, Operator};
use super::value::Value;

/// The names of all tests of Jinja2 that are identifiers, sorted.
const TESTS: [&str; 33] = [
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// Further tests, which `select` can name.
const OPERATORS: [&str; 6] = ["!=", "<", "<=", "==", ">", ">="];

/// Whether Jinja2 has a test of this name.
pub(super) fn has_test(name: &str) -> bool {
    TESTS.binary_search(&name).is_ok() || OPERATORS.contains(&name)
}

impl Interpreter<'_> {
    /// The truth of `value is name(arguments)`.
    pub(super) fn test(&self, name: &str, value: &Value, arguments: CallArguments) -> Outcome<bool> {
        let comparison = match name {
            "eq" | "==" | "equalto" => Some(Comparison::Equal),
            "ne" | "!=" => Some(Comparison::NotEqual),
            "lt" | "<" | "lessthan" => Some(Comparison::Less),
            "le" | "<=" => Some(Comparison::LessEqual),
            "gt" | ">" | "greaterthan" => Some(Comparison::Greater),
            "ge" | ">=" => Some(Comparison::GreaterEqual),
            "in" => Some(Comparison::In),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let [other] = arguments.bind(name, 1, [if name == "in" { "seq" } else { "" }])?;
            return self.compare(comparison, value, &other.unwrap_or(Value::None));
        }
        if matches!(name, "divisibleby" | "sameas") {
            let [other] = arguments.bind(name, 1, [if name == "sameas" { "other" } else { "num" }])?;
            let other = other.unwrap_or(Value::None);
            return if name == "sameas" { same(value, &other) } else { self.leaves_rest(value, other, 0) };
        }
        if !has_test(name) {
            return Err(Failure::other(format!("no test named '{name}'")));
        }
        let [] = arguments.bind(name, 0, [])?;
        Ok(match name {
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
            "string" => value.as_text().is_some(),
            "mapping" => matches!(value, Value::Dict(_)),
            "sequence" => match value {
                Value::View(..) => false,
                Value::Loop(_) => false,
                value => value.length().is_some(),
            },
            "iterable" => Self::is_iterable(value),
            "callable" => matches!(value, Value::Function(_) | Value::Undefined(_) | Value::Loop(_)),
            "escaped" => matches!(value, Value::Markup(_)),
            "odd" => self.leaves_rest(value, Value::Int(2), 1)?,
            "even" => self.leaves_rest(value, Value::Int(2), 0)?,
            "lower" | "upper" => {
                let text: Arc<str> = Arc::from(&*self.to_text(value)?);
                let method = if name == "lower" { "islower" } else { "isupper" };
                self.text_method(&text, method, CallArguments::default())?.is_true()
            }
            "filter" => value.as_text().is_some_and(|name| has_filter(name)),
            "test" => value.as_text().is_some_and(|name| has_test(name)),
            _ => return Err(Failure::other(format!("no test named '{name}'"))),
        })
    }

    /// Whether `value % divisor` equals `rest`.
    fn leaves_rest(&self, value: &Value, divisor: Value, rest: i128) -> Outcome<bool> {
        let found = self.arithmetic(Operator::Modulo, value.clone(), divisor)?;
        self.equal(&found, &Value::Int(rest))
    }
}

/// Python's `is`, where it does not depend on how an interpreter stores values.
fn same(a: &Value, b: &Value) -> Outcome<bool> {
    let unknown = || Failure::unsupported(format!("'sameas' of equal values of type '{}'", a.type_name()));
    match (a, b) {
        (Value::None, Value::None) => Ok(true),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        // CPython keeps one object for each small integer.
        (Value::Int(a), Value::Int(b)) if a == b => {
            if (-5..=256).contains(a) {
                Ok(true)
            } else {
                Err(unknown())
            }
        }
        (Value::Float(a), Value::Float(b)) if a == b => Err(unknown()),
        (Value::Text(a), Value::Text(b)) if a == b => Err(unknown()),
        (Value::Undefined(_), Value::Undefined(_)) => Err(unknown()),
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Ok(Rc::ptr_eq(a, b)),
        (Value::Dict(a), Value::Dict(b)) => Ok(Rc::ptr_eq(a, b)),
        (Value::Namespace(a), Value::Namespace(b)) => Ok(Rc::ptr_eq(a, b)),
        _ => Ok(false),
    }
}
