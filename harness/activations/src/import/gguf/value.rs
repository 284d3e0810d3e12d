//! The values of GGUF metadata.

/// One metadata value. Integers of any width are widened to one type of either sign.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An unsigned integer of 8 to 64 bits.
    Unsigned(u64),
    /// A signed integer of 8 to 64 bits.
    Signed(i64),
    /// A single. Kept as it is: its shortest decimal form is the number its author wrote.
    Float32(f32),
    /// A double.
    Float64(f64),
    /// A flag.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one type, which is not an array.
    Array(Vec<Value>),
}

impl Value {
    /// What it is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Unsigned(_) | Value::Signed(_) => "an integer",
            Value::Float32(_) | Value::Float64(_) => "a float",
            Value::Bool(_) => "a flag",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
        }
    }

    /// The value as a non-negative integer.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The value as a number; a single becomes the double nearest to its shortest decimal form, so that the single
    /// `1e-5` gives the double `1e-5` and not `9.99999974e-6`.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            Value::Float32(value) => value.to_string().parse().ok(),
            Value::Float64(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a flag.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The value as a list.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(values) => Some(values),
            _ => None,
        }
    }
}
