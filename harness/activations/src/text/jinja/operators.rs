//! Python's arithmetic and comparisons.

use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use super::failure::{Failure, Outcome};
use super::html;
use super::interpreter::Interpreter;
use super::syntax::{Comparison, Operator};
use super::value::{Items, Value, ViewKind};

/// Integers up to this magnitude are floats exactly.
const EXACT: u128 = 1 << 53;

/// A number of either type.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Number> {
        match value {
            Value::Float(number) => Some(Number::Float(*number)),
            _ => value.as_int().map(Number::Int),
        }
    }

    fn float(self) -> f64 {
        match self {
            Number::Int(number) => number as f64,
            Number::Float(number) => number,
        }
    }
}

fn overflow() -> Failure {
    Failure::unsupported("an integer of more than 127 bits")
}

fn no_division() -> Failure {
    Failure::other("division by zero")
}

impl Interpreter<'_> {
    /// The value of `left operator right`.
    pub(super) fn arithmetic(&self, operator: Operator, left: Value, right: Value) -> Outcome<Value> {
        if operator == Operator::Modulo
            && let Value::Text(format) = &left
        {
            return self.percent_format(format, &right);
        }
        left.defined()?;
        right.defined()?;
        if let (Some(a), Some(b)) = (Number::of(&left), Number::of(&right)) {
            return match (a, b) {
                (Number::Int(a), Number::Int(b)) => integers(operator, a, b),
                _ => floats(operator, a.float(), b.float()).map(Value::Float),
            };
        }
        match (operator, &left, &right) {
            (Operator::Add, Value::Text(a), Value::Text(b)) => self.joined(a, b).map(Value::text),
            (Operator::Add, Value::Markup(a), Value::Markup(b)) => self.joined(a, b).map(Value::Markup),
            (Operator::Add, Value::Markup(a), Value::Text(b)) => self.joined(a, &self.escaped(b)?).map(Value::Markup),
            (Operator::Add, Value::Text(a), Value::Markup(b)) => self.joined(&self.escaped(a)?, b).map(Value::Markup),
            (Operator::Add, Value::List(a), Value::List(b)) => self.appended(a, b).and_then(Value::list),
            (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => self.appended(a, b).and_then(Value::tuple),
            (Operator::Multiply, sequence, count) | (Operator::Multiply, count, sequence)
                if count.as_int().is_some() && sequence.as_int().is_none() =>
            {
                self.repeated(sequence, count.as_int().unwrap_or(0))
            }
            (Operator::Modulo, Value::Markup(_), _) => Err(Failure::unsupported("'%' of a safe string")),
            (Operator::Subtract, Value::View(..), _) | (Operator::Subtract, _, Value::View(..)) => {
                Err(Failure::unsupported("arithmetic of dictionary views"))
            }
            _ => Err(Failure::of_type(format!(
                "unsupported operand types: '{}' and '{}'",
                left.type_name(),
                right.type_name()
            ))),
        }
    }

    fn joined(&self, a: &str, b: &str) -> Outcome<Arc<str>> {
        self.meter.build(a.len() + b.len())?;
        let mut text = String::with_capacity(a.len() + b.len());
        text.push_str(a);
        text.push_str(b);
        Ok(Arc::from(text))
    }

    /// The text with HTML escapes.
    pub(super) fn escaped(&self, text: &str) -> Outcome<Arc<str>> {
        self.meter.build(html::escaped_length(text))?;
        Ok(Arc::from(html::escaped(text)))
    }

    fn appended(&self, a: &Rc<Items>, b: &Rc<Items>) -> Outcome<Vec<Value>> {
        self.meter.spend(a.values.len() + b.values.len())?;
        Ok(a.values.iter().chain(&b.values).cloned().collect())
    }

    fn repeated(&self, sequence: &Value, count: i128) -> Outcome<Value> {
        let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
        match sequence {
            Value::Text(text) | Value::Markup(text) => {
                self.meter.build(text.len().saturating_mul(count))?;
                let text = if text.is_empty() { String::new() } else { text.repeat(count) };
                Ok(super::access::like(sequence, &text))
            }
            Value::List(items) | Value::Tuple(items) => {
                let length = items.values.len();
                self.meter.spend(length.saturating_mul(count))?;
                let values = (0..if length == 0 { 0 } else { count }).flat_map(|_| items.values.iter().cloned());
                if matches!(sequence, Value::List(_)) {
                    Value::list(values.collect())
                } else {
                    Value::tuple(values.collect())
                }
            }
            _ => Err(Failure::of_type(format!("'{}' cannot be multiplied by an integer", sequence.type_name()))),
        }
    }

    /// The value of `-value` or `+value`.
    pub(super) fn signed(&self, negative: bool, value: &Value) -> Outcome<Value> {
        value.defined()?;
        match Number::of(value) {
            Some(Number::Int(number)) if negative => number.checked_neg().map(Value::Int).ok_or_else(overflow),
            Some(Number::Int(number)) => Ok(Value::Int(number)),
            Some(Number::Float(number)) => Ok(Value::Float(if negative { -number } else { number })),
            None => Err(Failure::of_type(format!("bad operand type for a sign: '{}'", value.type_name()))),
        }
    }

    /// The truth of `left comparison right`.
    pub(super) fn compare(&self, comparison: Comparison, left: &Value, right: &Value) -> Outcome<bool> {
        let ordered =
            |accepts: fn(Ordering) -> bool| self.ordering(left, right).map(|found| found.is_some_and(accepts));
        match comparison {
            Comparison::Equal => self.equal(left, right),
            Comparison::NotEqual => Ok(!self.equal(left, right)?),
            Comparison::Less => ordered(Ordering::is_lt),
            Comparison::LessEqual => ordered(Ordering::is_le),
            Comparison::Greater => ordered(Ordering::is_gt),
            Comparison::GreaterEqual => ordered(Ordering::is_ge),
            Comparison::In => self.contains(right, left),
            Comparison::NotIn => Ok(!self.contains(right, left)?),
        }
    }

    /// Python's `==`.
    pub(super) fn equal(&self, left: &Value, right: &Value) -> Outcome<bool> {
        self.meter.spend(1)?;
        if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
            return Ok(compared(a, b) == Some(Ordering::Equal));
        }
        Ok(match (left, right) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Text(a) | Value::Markup(a), Value::Text(b) | Value::Markup(b)) => {
                self.meter.read(a.len().min(b.len()))?;
                a == b
            }
            (Value::List(a), Value::List(b)) => self.all_equal(&a.values, &b.values)?,
            (Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
                self.all_equal(&a.values, &b.values)?
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    match b.entries.get(key) {
                        Some(other) if self.equal(value, other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::Range(a), Value::Range(b)) => {
                let (n_a, n_b) = (a.len(), b.len());
                n_a == n_b && (n_a == 0 || (a.start == b.start && (n_a == 1 || a.step == b.step)))
            }
            (Value::View(..), Value::View(..)) => return Err(Failure::unsupported("a comparison of dictionary views")),
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
            (Value::Generator(a), Value::Generator(b)) => Rc::ptr_eq(a, b),
            (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
            (Value::Function(a), Value::Function(b)) => match (&**a, &**b) {
                (super::value::Function::Global(a), super::value::Function::Global(b)) => a == b,
                (super::value::Function::Method(..), super::value::Function::Method(..)) => {
                    return Err(Failure::unsupported("a comparison of methods"));
                }
                _ => Rc::ptr_eq(a, b),
            },
            _ => false,
        })
    }

    pub(super) fn all_equal(&self, left: &[Value], right: &[Value]) -> Outcome<bool> {
        if left.len() != right.len() {
            return Ok(false);
        }
        for (a, b) in left.iter().zip(right) {
            if !self.equal(a, b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The order of two values; `None` if one is not a number.
    ///
    /// # Errors
    /// Python orders no values of these types.
    pub(super) fn ordering(&self, left: &Value, right: &Value) -> Outcome<Option<Ordering>> {
        self.meter.spend(1)?;
        left.defined()?;
        right.defined()?;
        if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
            return Ok(compared(a, b));
        }
        match (left, right) {
            (Value::Text(a) | Value::Markup(a), Value::Text(b) | Value::Markup(b)) => {
                self.meter.read(a.len().min(b.len()))?;
                Ok(Some(a.cmp(b)))
            }
            (Value::List(a), Value::List(b)) => self.lists_ordering(&a.values, &b.values),
            (Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
                self.lists_ordering(&a.values, &b.values)
            }
            (Value::View(..), Value::View(..)) => Err(Failure::unsupported("a comparison of dictionary views")),
            _ => Err(Failure::of_type(format!("'{}' and '{}' have no order", left.type_name(), right.type_name()))),
        }
    }

    /// The order of the first elements that are not equal, and then of the lengths.
    pub(super) fn lists_ordering(&self, left: &[Value], right: &[Value]) -> Outcome<Option<Ordering>> {
        for (a, b) in left.iter().zip(right) {
            if !self.equal(a, b)? {
                return self.ordering(a, b);
            }
        }
        Ok(Some(left.len().cmp(&right.len())))
    }

    /// Python's `item in container`.
    pub(super) fn contains(&self, container: &Value, item: &Value) -> Outcome<bool> {
        match container {
            Value::Text(text) | Value::Markup(text) => {
                item.defined()?;
                let Some(part) = item.as_text() else {
                    return Err(Failure::of_type(format!(
                        "'in <string>' requires a string, not '{}'",
                        item.type_name()
                    )));
                };
                self.meter.read(text.len())?;
                Ok(text.contains(&**part))
            }
            Value::Dict(dict) | Value::View(ViewKind::Keys, dict) => {
                if let Value::Text(text) = item {
                    self.meter.read(text.len())?;
                    return Ok(dict.get(text).is_some());
                }
                // Undefined values have a hash in Jinja2, and equal no key.
                if item.is_undefined() {
                    return Ok(false);
                }
                Ok(dict.entries.contains_key(&self.key(item)?))
            }
            Value::Namespace(_)
            | Value::Function(_)
            | Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_) => Err(Failure::of_type(format!("'{}' is not a container", container.type_name()))),
            _ => {
                for value in &self.iterate(container)?.values {
                    if self.equal(value, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

fn integers(operator: Operator, a: i128, b: i128) -> Outcome<Value> {
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::FloorDivide | Operator::Modulo if b == 0 => return Err(no_division()),
        Operator::FloorDivide => a.checked_div_euclid(b).and_then(|quotient| {
            // The floor differs from the Euclidean quotient where the divisor is negative and leaves a rest.
            if b < 0 && a.checked_rem_euclid(b)? != 0 { quotient.checked_sub(1) } else { Some(quotient) }
        }),
        Operator::Modulo => a.checked_rem_euclid(b).map(|rest| if b < 0 && rest != 0 { rest + b } else { rest }),
        Operator::Divide => {
            if b == 0 {
                return Err(no_division());
            }
            if a.unsigned_abs() > EXACT || b.unsigned_abs() > EXACT {
                return Err(Failure::unsupported("a division of integers beyond 2^53"));
            }
            return Ok(Value::Float(a as f64 / b as f64));
        }
        Operator::Power => match u32::try_from(b) {
            Ok(exponent) => a.checked_pow(exponent),
            Err(_) if b > 0 => (-1..=1).contains(&a).then_some(if a == -1 && b % 2 == 0 { 1 } else { a }),
            Err(_) => return floats(operator, a as f64, b as f64).map(Value::Float),
        },
    };
    result.map(Value::Int).ok_or_else(overflow)
}

fn floats(operator: Operator, a: f64, b: f64) -> Outcome<f64> {
    // Python takes the sign of the divisor for the rest, and rounds the quotient without the rest.
    let divided = || {
        let rest = a % b;
        let rest = if rest != 0.0 && (b < 0.0) != (rest < 0.0) { rest + b } else { rest };
        let quotient = (a - rest) / b;
        let floor = quotient.floor();
        let quotient = if quotient - floor > 0.5 { floor + 1.0 } else { floor };
        let quotient = if quotient == 0.0 { 0.0_f64.copysign(a / b) } else { quotient };
        (quotient, if rest == 0.0 { 0.0_f64.copysign(b) } else { rest })
    };
    Ok(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide | Operator::FloorDivide | Operator::Modulo if b == 0.0 => return Err(no_division()),
        Operator::Divide => a / b,
        Operator::FloorDivide => divided().0,
        Operator::Modulo => divided().1,
        Operator::Power => {
            if a == 0.0 && b < 0.0 {
                return Err(no_division());
            }
            if a < 0.0 && b.fract() != 0.0 && a.is_finite() && b.is_finite() {
                return Err(Failure::unsupported("a complex number"));
            }
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err(Failure::other("numerical result out of range"));
            }
            power
        }
    })
}

/// The exact order of two numbers.
fn compared(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        (Number::Int(a), Number::Float(b)) => int_and_float(a, b),
        (Number::Float(a), Number::Int(b)) => int_and_float(b, a).map(Ordering::reverse),
    }
}

fn int_and_float(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // The float is compared by its whole part, which is exact within the range of the integer.
    if b >= 1.7e38 {
        return Some(Ordering::Less);
    }
    if b <= -1.7e38 {
        return Some(Ordering::Greater);
    }
    Some(a.cmp(&(b.trunc() as i128)).then_with(|| 0.0_f64.partial_cmp(&b.fract()).unwrap_or(Ordering::Equal)))
}
