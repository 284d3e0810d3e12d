//! Numbers as text with a width, a precision and a type, as `%` and `str.format` write them.

use super::failure::{Failure, Outcome};
use super::show;

/// The largest precision; Python has none, and larger ones only occur in hostile templates.
const MAX_PRECISION: usize = 1000;

/// The layout of a formatted value.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) fill: char,
    /// One of `<>^=`, or none for the default of the type.
    pub(super) align: Option<char>,
    /// The sign of numbers that are not negative: `+`, a space, or `-` for none.
    pub(super) sign: char,
    pub(super) alternate: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            width: 0,
            grouping: None,
            precision: None,
            kind: None,
        }
    }
}

impl Layout {
    /// Pads a text to the width. Its first `sign` bytes stay in front of `=` padding.
    pub(super) fn padded(&self, text: &str, sign: usize, default: char) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        let fill = |count: usize| std::iter::repeat_n(self.fill, count).collect::<String>();
        match self.align.unwrap_or(default) {
            '<' => text.to_owned() + &fill(missing),
            '^' => fill(missing / 2) + text + &fill(missing - missing / 2),
            '=' => text[..sign].to_owned() + &fill(missing) + &text[sign..],
            _ => fill(missing) + text,
        }
    }

    fn sign_of(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (false, '+') => "+",
            (false, ' ') => " ",
            _ => "",
        }
    }

    /// Checks the precision, which every digit of the text costs.
    pub(super) fn checked(self) -> Outcome<Layout> {
        match self.precision {
            Some(precision) if precision > MAX_PRECISION => {
                Err(Failure::unsupported(format!("a precision of more than {MAX_PRECISION} digits")))
            }
            _ => Ok(self),
        }
    }

    /// A number of the given sign, prefix and digits, padded to the width.
    fn number(&self, negative: bool, prefix: &str, digits: &str) -> String {
        let sign = self.sign_of(negative).to_owned() + prefix;
        let digits = match self.grouping {
            Some(separator) => {
                let group = if matches!(self.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
                let zeros =
                    (self.fill == '0' && self.align == Some('=')).then_some(self.width.saturating_sub(sign.len()));
                grouped(digits, separator, group, zeros.unwrap_or(0))
            }
            None => digits.to_owned(),
        };
        self.padded(&(sign.clone() + &digits), sign.len(), '>')
    }

    /// An integer in the base of the type.
    pub(super) fn integer(&self, number: i128) -> String {
        let size = number.unsigned_abs();
        let (digits, prefix) = match self.kind {
            Some('b') => (format!("{size:b}"), "0b"),
            Some('o') => (format!("{size:o}"), "0o"),
            Some('x') => (format!("{size:x}"), "0x"),
            Some('X') => (format!("{size:X}"), "0X"),
            _ => (size.to_string(), ""),
        };
        self.number(number < 0, if self.alternate { prefix } else { "" }, &digits)
    }

    /// An integer with a minimum number of digits, as `%` writes it.
    pub(super) fn integer_with_digits(&self, number: i128) -> String {
        let plain = Layout { precision: None, width: 0, grouping: None, ..self.clone() };
        let text = plain.integer(number);
        let digits = text.trim_start_matches(['-', '+', ' ']);
        let sign = &text[..text.len() - digits.len()];
        let (prefix, digits) = match self.kind {
            Some('o' | 'x' | 'X') if self.alternate => digits.split_at(2),
            _ => ("", digits),
        };
        let zeros = self.precision.unwrap_or(0).saturating_sub(digits.len());
        let lead = format!("{sign}{prefix}");
        self.padded(&format!("{lead}{}{digits}", "0".repeat(zeros)), lead.len(), '>')
    }

    /// A float in the form of the type; without a type as `repr` writes it, or in as few digits as the precision says.
    pub(super) fn float(&self, number: f64) -> String {
        let negative = number.is_sign_negative() && !number.is_nan();
        let size = number.abs();
        let upper = matches!(self.kind, Some('E' | 'F' | 'G'));
        let (size, percent) = if self.kind == Some('%') { (size * 100.0, "%") } else { (size, "") };
        let digits = if !size.is_finite() {
            show::float(size)
        } else {
            match (self.kind, self.precision) {
                (Some('f' | 'F' | '%'), precision) => fixed(size, precision.unwrap_or(6), self.alternate),
                (Some('e' | 'E'), precision) => scientific(size, precision.unwrap_or(6), self.alternate),
                (Some('g' | 'G' | 'n'), precision) => general(size, precision.unwrap_or(6), self.alternate, false),
                (_, None) => show::float(size),
                (_, Some(precision)) => general(size, precision, self.alternate, true),
            }
        };
        let digits = if upper { digits.to_uppercase() } else { digits };
        self.number(negative, "", &(digits + percent))
    }
}

/// Digits with separators between groups of the whole part, and with zeros in front up to `width` characters.
fn grouped(digits: &str, separator: char, group: usize, width: usize) -> String {
    let whole = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(whole);
    let mut whole = whole.to_owned();
    loop {
        let mut text = String::new();
        for (position, digit) in whole.chars().enumerate() {
            if position > 0 && (whole.len() - position).is_multiple_of(group) {
                text.push(separator);
            }
            text.push(digit);
        }
        if text.len() + rest.len() >= width {
            return text + rest;
        }
        whole.insert(0, '0');
    }
}

fn fixed(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.precision$}");
    if alternate && precision == 0 { text + "." } else { text }
}

fn scientific(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{digits}{point}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `precision` significant digits. With `keeps_point` at least one digit stays behind the point, as in `repr`.
fn general(number: f64, precision: usize, alternate: bool, keeps_point: bool) -> String {
    let precision = precision.max(1);
    let shown = scientific(number, precision - 1, alternate);
    let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let strip = |text: &str| match text.contains('.') && !alternate {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let limit = precision as i32 - i32::from(keeps_point);
    if exponent >= -4 && exponent < limit {
        let text = strip(&fixed(number, (precision as i32 - 1 - exponent).max(0) as usize, alternate));
        return if keeps_point && !text.contains('.') { text + ".0" } else { text };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", strip(digits), exponent.abs())
}
