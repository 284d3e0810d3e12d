//! The values of GGUF metadata.

/// A metadata value. Integers of all widths are widened to one type per signedness.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// An unsigned integer of 8 to 64 bits.
    Unsigned(u64),
    /// A signed integer of 8 to 64 bits.
    Signed(i64),
    /// A single-precision number, not widened: its shortest decimal form is the number its author wrote.
    Float32(f32),
    /// A double-precision number.
    Float64(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Values of one scalar type.
    Array(Vec<GgufValue>),
}

impl GgufValue {
    /// The kind of the value, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            GgufValue::Unsigned(_) | GgufValue::Signed(_) => "an integer",
            GgufValue::Float32(_) | GgufValue::Float64(_) => "a float",
            GgufValue::Bool(_) => "a boolean",
            GgufValue::String(_) => "a string",
            GgufValue::Array(_) => "an array",
        }
    }

    /// The value for error messages, if it is short; otherwise its kind.
    pub fn describe(&self) -> String {
        match self {
            GgufValue::Unsigned(value) => value.to_string(),
            GgufValue::Signed(value) => value.to_string(),
            GgufValue::Float32(value) => value.to_string(),
            GgufValue::Float64(value) => value.to_string(),
            GgufValue::Bool(value) => value.to_string(),
            GgufValue::String(_) | GgufValue::Array(_) => self.kind().to_owned(),
        }
    }

    /// Whether the value is an integer.
    pub fn is_integer(&self) -> bool {
        matches!(self, GgufValue::Unsigned(_) | GgufValue::Signed(_))
    }

    /// The value as a non-negative integer.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            GgufValue::Unsigned(value) => Some(*value),
            GgufValue::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The value as a number. A single-precision number becomes the double nearest to its shortest decimal form:
    /// `1e-5f32` becomes `1e-5` and not `9.99999974e-6`.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            GgufValue::Unsigned(value) => Some(*value as f64),
            GgufValue::Signed(value) => Some(*value as f64),
            GgufValue::Float32(value) => value.to_string().parse().ok(),
            GgufValue::Float64(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            GgufValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            GgufValue::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as a list.
    pub fn as_array(&self) -> Option<&[GgufValue]> {
        match self {
            GgufValue::Array(values) => Some(values),
            _ => None,
        }
    }
}
