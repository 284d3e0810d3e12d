//! Python's `%` on strings, and `str.format` by the rules of Jinja2's sandbox.

use std::sync::Arc;

use super::arguments::CallArguments;
use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::numerals::Layout;
use super::show::quoted;
use super::value::Value;

/// The nesting of fields inside of format specifications.
const MAX_FIELDS: usize = 2;

/// The arguments of `%`, which are consumed in order.
struct PercentValues<'v> {
    values: &'v Value,
    position: usize,
}

impl PercentValues<'_> {
    fn next(&mut self) -> Outcome<Value> {
        let missing = || Failure::of_type("not enough arguments for format string");
        self.position += 1;
        match self.values {
            Value::Tuple(items) | Value::Group(items) => {
                items.values.get(self.position - 1).cloned().ok_or_else(missing)
            }
            value if self.position == 1 => Ok(value.clone()),
            _ => Err(missing()),
        }
    }

    /// Whether Python complains that values are left.
    fn has_rest(&self) -> bool {
        match self.values {
            Value::Tuple(items) | Value::Group(items) => self.position < items.values.len(),
            // Mappings and lists can be the source of named values.
            Value::Dict(_) | Value::List(_) | Value::Range(_) => false,
            _ => self.position == 0,
        }
    }
}

impl Interpreter<'_> {
    fn put_formatted(&self, output: &mut String, text: &str) -> Outcome<()> {
        self.meter.extend(output.len(), text.len())?;
        output.push_str(text);
        Ok(())
    }

    /// `format % values`.
    pub(super) fn percent_format(&self, format: &str, values: &Value) -> Outcome<Value> {
        self.meter.read(format.len())?;
        let mut output = String::new();
        let mut given = PercentValues { values, position: 0 };
        let mut rest = format;
        while let Some(position) = rest.find('%') {
            self.put_formatted(&mut output, &rest[..position])?;
            rest = &rest[position + 1..];
            let text = self.percent_field(&mut rest, &mut given)?;
            self.put_formatted(&mut output, &text)?;
        }
        self.put_formatted(&mut output, rest)?;
        if given.has_rest() {
            values.defined()?;
            return Err(Failure::of_type("not all arguments converted during string formatting"));
        }
        Ok(Value::text(output))
    }

    fn percent_field(&self, rest: &mut &str, given: &mut PercentValues<'_>) -> Outcome<String> {
        let mut named = None;
        if rest.starts_with('(') {
            let mut depth = 0_usize;
            let close = rest.char_indices().find(|(_, character)| {
                match character {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            let Some((close, _)) = close else { return Err(Failure::of_value("incomplete format key")) };
            let Value::Dict(dict) = given.values else { return Err(Failure::of_type("format requires a mapping")) };
            let key = &rest[1..close];
            let Some(value) = dict.get(key) else { return Err(Failure::other(format!("no key '{key}'"))) };
            named = Some(value.clone());
            *rest = &rest[close + 1..];
            given.position = given.position.max(1);
        }
        let mut layout = Layout::default();
        let (mut left, mut zero) = (false, false);
        while let Some(flag) = rest.chars().next().filter(|flag| "#0- +".contains(*flag)) {
            match flag {
                '#' => layout.alternate = true,
                '0' => zero = true,
                '-' => left = true,
                '+' => layout.sign = '+',
                _ if layout.sign != '+' => layout.sign = ' ',
                _ => {}
            }
            *rest = &rest[1..];
        }
        if let Some(width) = Self::percent_number(rest, given)? {
            left |= width < 0;
            layout.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        }
        if let Some(after) = rest.strip_prefix('.') {
            *rest = after;
            let precision = Self::percent_number(rest, given)?.unwrap_or(0);
            layout.precision = Some(usize::try_from(precision.max(0)).unwrap_or(usize::MAX));
        }
        *rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let Some(conversion) = rest.chars().next() else { return Err(Failure::of_value("incomplete format")) };
        *rest = &rest[conversion.len_utf8()..];
        self.meter.build(layout.width)?;
        if conversion == '%' {
            return Ok("%".to_owned());
        }
        let value = match named {
            Some(value) => value,
            None => given.next()?,
        };
        if left {
            layout.align = Some('<');
        }
        self.percent_value(conversion, layout, zero && !left, &value)
    }

    /// Digits, or `*` for the next value.
    fn percent_number(rest: &mut &str, given: &mut PercentValues<'_>) -> Outcome<Option<i128>> {
        if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            return match given.next()? {
                value @ (Value::Int(_) | Value::Bool(_)) => Ok(value.as_int()),
                _ => Err(Failure::of_type("* wants int")),
            };
        }
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(length);
        *rest = after;
        if digits.is_empty() {
            return Ok(None);
        }
        digits.parse::<i32>().map(|number| Some(i128::from(number))).map_err(|_| Failure::of_value("width too big"))
    }

    fn percent_value(&self, conversion: char, mut layout: Layout, zero: bool, value: &Value) -> Outcome<String> {
        let text = match conversion {
            's' => self.to_text(value)?.into_owned(),
            'r' => self.repr(value)?,
            'a' => self.ascii(value)?,
            'c' => match value {
                Value::Text(text) | Value::Markup(text) if text.chars().count() == 1 => text.to_string(),
                Value::Int(code) => {
                    let code = u32::try_from(*code).ok().and_then(char::from_u32);
                    code.map(String::from).ok_or_else(|| Failure::other("%c arg not in range"))?
                }
                _ => return Err(Failure::of_type("%c requires int or char")),
            },
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                value.defined()?;
                layout.kind = Some(conversion);
                if zero {
                    (layout.fill, layout.align) = ('0', Some('='));
                }
                let layout = layout.checked()?;
                return match (conversion, value) {
                    ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Float(number)) => {
                        let layout = if number.is_finite() { layout } else { Layout { fill: ' ', ..layout } };
                        Ok(layout.float(*number))
                    }
                    ('e' | 'E' | 'f' | 'F' | 'g' | 'G', value) => match value.as_int() {
                        Some(number) => Ok(layout.float(number as f64)),
                        None => Err(Failure::of_type("must be real number")),
                    },
                    ('d' | 'i' | 'u', Value::Float(number)) => Ok(layout.integer_with_digits(truncated(*number)?)),
                    (_, value) => match value.as_int() {
                        Some(number) => Ok(layout.integer_with_digits(number)),
                        None => Err(Failure::of_type(format!("%{conversion} format: a number is required"))),
                    },
                };
            }
            _ => return Err(Failure::of_value(format!("unsupported format character {conversion:?}"))),
        };
        let text = match layout.precision {
            Some(precision) if conversion != 'c' => super::access::characters(&text, 0, precision).to_owned(),
            _ => text,
        };
        Ok(layout.padded(&text, 0, '>'))
    }

    fn ascii(&self, value: &Value) -> Outcome<String> {
        let repr = self.repr(value)?;
        if repr.is_ascii() { Ok(repr) } else { Err(Failure::unsupported("the ASCII form of other characters")) }
    }

    /// `text.format(...)`.
    pub(super) fn brace_format(&self, text: &str, arguments: &CallArguments) -> Outcome<Value> {
        let mut numbering = Numbering::Unknown;
        self.braces(text, arguments, &mut numbering, MAX_FIELDS).map(Value::text)
    }

    fn braces(
        &self,
        text: &str,
        arguments: &CallArguments,
        numbering: &mut Numbering,
        depth: usize,
    ) -> Outcome<String> {
        if depth == 0 {
            return Err(Failure::of_value("max string recursion exceeded"));
        }
        self.meter.read(text.len())?;
        let mut output = String::new();
        let mut rest = text;
        while let Some(position) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(position);
            self.put_formatted(&mut output, before)?;
            let brace = &after[..1];
            rest = &after[1..];
            if let Some(escaped) = rest.strip_prefix(brace) {
                self.put_formatted(&mut output, brace)?;
                rest = escaped;
                continue;
            }
            if brace == "}" {
                return Err(Failure::of_value("single '}' in a format string"));
            }
            let mut open = 1_usize;
            let close = rest.char_indices().find(|(_, character)| {
                match character {
                    '{' => open += 1,
                    '}' => open -= 1,
                    _ => {}
                }
                open == 0
            });
            let Some((close, _)) = close else { return Err(Failure::of_value("expected '}' before end of string")) };
            let field = self.field(&rest[..close], arguments, numbering, depth)?;
            self.put_formatted(&mut output, &field)?;
            rest = &rest[close + 1..];
        }
        self.put_formatted(&mut output, rest)?;
        Ok(output)
    }

    fn field(
        &self,
        field: &str,
        arguments: &CallArguments,
        numbering: &mut Numbering,
        depth: usize,
    ) -> Outcome<String> {
        if field.contains('[') && field.contains(['!', ':']) && field.find('[') < field.find(['!', ':']) {
            // A subscript can contain the characters that end a name.
            if field.find(['!', ':']) < field.find(']') {
                return Err(Failure::unsupported("a subscript with '!' or ':' in a format string"));
            }
        }
        let name_length = field.find(['!', ':']).unwrap_or(field.len());
        let (name, mut rest) = field.split_at(name_length);
        let mut value = self.field_value(name, arguments, numbering)?;
        if let Some(after) = rest.strip_prefix('!') {
            let mut characters = after.chars();
            let conversion = characters.next();
            rest = characters.as_str();
            if !rest.is_empty() && !rest.starts_with(':') {
                return Err(Failure::of_value("expected ':' after conversion specifier"));
            }
            value = Value::text(match conversion {
                Some('s') => self.to_text(&value)?.into_owned(),
                Some('r') => self.repr(&value)?,
                Some('a') => self.ascii(&value)?,
                _ => return Err(Failure::of_value("unknown conversion specifier")),
            });
        }
        let specification = rest.strip_prefix(':').unwrap_or("");
        let specification = if specification.contains(['{', '}']) {
            self.braces(specification, arguments, numbering, depth - 1)?
        } else {
            specification.to_owned()
        };
        self.formatted(&value, &specification)
    }

    fn field_value(&self, name: &str, arguments: &CallArguments, numbering: &mut Numbering) -> Outcome<Value> {
        let first = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(first);
        let index = numbering.index(first)?;
        let mut value = match index {
            Some(index) => match arguments.positional.get(index) {
                Some(value) => value.clone(),
                None => return Err(Failure::other(format!("no argument {index} for a format string"))),
            },
            None => match arguments.keyword.iter().find(|(known, _)| **known == *first) {
                Some((_, value)) => value.clone(),
                None => return Err(Failure::other(format!("no argument '{first}' for a format string"))),
            },
        };
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = self.attribute(&value, &after[..end])?;
                rest = &after[end..];
                if end == 0 {
                    return Err(Failure::of_value("empty attribute in format string"));
                }
            } else {
                let inner = rest.strip_prefix('[').and_then(|after| after.split_once(']'));
                let Some((key, after)) = inner.filter(|(key, _)| !key.is_empty()) else {
                    return Err(Failure::of_value("malformed subscript in format string"));
                };
                let digits = key.bytes().all(|byte| byte.is_ascii_digit());
                let key = match key.parse() {
                    Ok(number) if digits => Value::Int(number),
                    _ => Value::text(key),
                };
                value = self.item(&value, &key)?;
                rest = after;
            }
        }
        Ok(value)
    }

    /// Python's `format(value, specification)`.
    fn formatted(&self, value: &Value, specification: &str) -> Outcome<String> {
        if specification.is_empty() {
            return Ok(self.to_text(value)?.into_owned());
        }
        let layout = parsed_layout(specification)?;
        self.meter.build(layout.width)?;
        match value {
            Value::Text(text) => {
                if !matches!(layout.kind, None | Some('s')) {
                    return Err(Failure::of_value("unknown format code for a string"));
                }
                if layout.align == Some('=') || layout.sign != '-' || layout.alternate || layout.grouping.is_some() {
                    return Err(Failure::of_value("a format code that strings do not have"));
                }
                let text = super::access::characters(text, 0, layout.precision.unwrap_or(usize::MAX));
                Ok(layout.padded(text, 0, '<'))
            }
            Value::Int(_) | Value::Bool(_) if matches!(layout.kind, None | Some('d' | 'b' | 'o' | 'x' | 'X' | 'n')) => {
                if layout.precision.is_some() {
                    return Err(Failure::of_value("precision not allowed in integer format specifier"));
                }
                if layout.grouping == Some(',') && matches!(layout.kind, Some('b' | 'o' | 'x' | 'X')) {
                    return Err(Failure::of_value("cannot specify ',' with this type"));
                }
                Ok(layout.integer(value.as_int().unwrap_or(0)))
            }
            Value::Int(_) | Value::Bool(_) | Value::Float(_)
                if matches!(layout.kind, None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%' | 'n')) =>
            {
                let number = match value {
                    Value::Float(number) => *number,
                    _ => value.as_int().unwrap_or(0) as f64,
                };
                Ok(layout.checked()?.float(number))
            }
            Value::Int(_) if layout.kind == Some('c') => Err(Failure::unsupported("the format code 'c'")),
            Value::Int(_) | Value::Bool(_) | Value::Float(_) => Err(Failure::of_value("unknown format code")),
            Value::Markup(_) => Err(Failure::unsupported("the format code of a safe string")),
            _ => {
                let message = format!("unsupported format string passed to {}", value.type_name());
                Err(Failure::of_type(message))
            }
        }
    }
}

/// The whole part of a float as an integer.
pub(super) fn truncated(number: f64) -> Outcome<i128> {
    if !number.is_finite() {
        // Python raises an OverflowError for infinities and a ValueError for NaN.
        return Err(if number.is_nan() {
            Failure::of_value("cannot convert float NaN to integer")
        } else {
            Failure::other("cannot convert float infinity to integer")
        });
    }
    if number.abs() >= 1.7e38 {
        return Err(Failure::unsupported("an integer of more than 127 bits"));
    }
    Ok(number.trunc() as i128)
}

/// How the fields of a format string are numbered.
enum Numbering {
    Unknown,
    Automatic(usize),
    Manual,
}

impl Numbering {
    /// The position that the first part of a field's name means; `None` for a name.
    fn index(&mut self, name: &str) -> Outcome<Option<usize>> {
        if name.is_empty() {
            let index = match self {
                Numbering::Unknown => 0,
                Numbering::Automatic(next) => *next,
                Numbering::Manual => return Err(Failure::of_value("cannot switch to automatic field numbering")),
            };
            *self = Numbering::Automatic(index + 1);
            return Ok(Some(index));
        }
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            if matches!(self, Numbering::Automatic(_)) {
                return Err(Failure::of_value("cannot switch to manual field numbering"));
            }
            *self = Numbering::Manual;
            return Ok(Some(name.parse().unwrap_or(usize::MAX)));
        }
        Ok(None)
    }
}

/// Parses `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
fn parsed_layout(specification: &str) -> Outcome<Layout> {
    let mut layout = Layout::default();
    let characters: Vec<char> = specification.chars().collect();
    let mut position = 0;
    let is_align = |character: Option<&char>| character.is_some_and(|character| "<>^=".contains(*character));
    if is_align(characters.get(1)) {
        (layout.fill, layout.align) = (characters[0], Some(characters[1]));
        position = 2;
    } else if is_align(characters.first()) {
        layout.align = Some(characters[0]);
        position = 1;
    }
    let mut take = |accepted: &str| {
        let found = characters.get(position).copied().filter(|character| accepted.contains(*character));
        position += usize::from(found.is_some());
        found
    };
    layout.sign = take("+- ").unwrap_or('-');
    layout.alternate = take("#").is_some();
    if take("0").is_some() && layout.align.is_none() {
        (layout.fill, layout.align) = ('0', Some('='));
    }
    let number = |take: &mut dyn FnMut(&str) -> Option<char>| {
        let mut digits = String::new();
        while let Some(digit) = take("0123456789") {
            digits.push(digit);
        }
        if digits.is_empty() {
            return Ok(None);
        }
        digits.parse::<i32>().map(|number| Some(number as usize)).map_err(|_| Failure::of_value("too many digits"))
    };
    layout.width = number(&mut take)?.unwrap_or(0);
    layout.grouping = take(",_");
    if take(".").is_some() {
        layout.precision = number(&mut take)?;
        if layout.precision.is_none() {
            return Err(Failure::of_value("format specifier missing precision"));
        }
    }
    layout.kind = take("bcdeEfFgGnosxX%");
    if position != characters.len() {
        return Err(Failure::of_value(format!("invalid format specifier {}", quoted(specification))));
    }
    Ok(layout)
}

/// The arguments of `text.format_map(mapping)` as keywords.
pub(super) fn mapping_arguments(value: &Value) -> Outcome<CallArguments> {
    let Value::Dict(dict) = value else { return Err(Failure::of_type("format_map() argument must be a mapping")) };
    let mut arguments = CallArguments::default();
    for (key, value) in &dict.entries {
        if let Value::Text(name) = &key.0 {
            arguments.keyword.push((Arc::clone(name), value.clone()));
        }
    }
    Ok(arguments)
}
