//! Splits a template into tokens as Jinja2 does with `trim_blocks` and `lstrip_blocks`.

use std::sync::Arc;

use super::escapes;
use super::failure::{Failure, Outcome};
use super::unicode::is_space;

/// A token with its line.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) kind: TokenKind,
}

/// The kind of a token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    Data(Arc<str>),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(Arc<str>),
    Text(Arc<str>),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longer operators first.
const OPERATORS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",",
];

/// The kind of tag that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Block,
    Variable,
}

/// Normalizes line ends, and removes one at the end of the template.
fn normalized(source: &str) -> String {
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// Splits `source` into tokens; the last one is [`TokenKind::End`].
///
/// # Errors
/// The failure and its line.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, (Failure, usize)> {
    let source = normalized(source);
    let mut lexer =
        Lexer { source: &source, position: 0, line: 1, line_starting: true, brackets: Vec::new(), tokens: Vec::new() };
    match lexer.run() {
        Ok(()) => {
            lexer.push(TokenKind::End);
            Ok(lexer.tokens)
        }
        Err(failure) => Err((failure, lexer.line)),
    }
}

struct Lexer<'s> {
    source: &'s str,
    position: usize,
    line: usize,
    /// Whether the text before the position ends a line.
    line_starting: bool,
    brackets: Vec<u8>,
    tokens: Vec<Token>,
}

fn syntax(message: impl Into<String>) -> Failure {
    Failure::other(format!("syntax error: {}", message.into()))
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.position..]
    }

    fn push(&mut self, kind: TokenKind) {
        self.tokens.push(Token { line: self.line, kind });
    }

    /// Moves over `length` bytes and counts their lines.
    fn advance(&mut self, length: usize) {
        let passed = &self.source[self.position..self.position + length];
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
        if length > 0 {
            self.line_starting = passed.ends_with('\n');
        }
        self.position += length;
    }

    fn run(&mut self) -> Outcome<()> {
        while self.position < self.source.len() {
            let rest = self.rest();
            let Some(begin) = find_tag(rest) else {
                self.data(rest);
                self.advance(rest.len());
                break;
            };
            let after = &rest[begin + 2..];
            let sign = after.chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let opening = &rest[begin..begin + 2];
            self.data(self.before_tag(&rest[..begin], sign, opening != "{{"));
            let raw = (opening == "{%").then(|| raw_begin(after)).flatten();
            self.advance(begin + 2 + if raw.is_some() { 0 } else { sign.map_or(0, char::len_utf8) });
            match (opening, raw) {
                ("{%", Some(length)) => {
                    self.advance(length);
                    self.raw()?;
                }
                ("{%", None) => self.tag(Tag::Block)?,
                ("{{", _) => self.tag(Tag::Variable)?,
                _ => self.comment()?,
            }
        }
        Ok(())
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(TokenKind::Data(Arc::from(text)));
        }
    }

    /// The text before a tag without the whitespace that the tag removes.
    fn before_tag<'t>(&self, text: &'t str, sign: Option<char>, strips_line: bool) -> &'t str {
        match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if strips_line => {
                let line = text.rfind('\n').map_or(0, |position| position + 1);
                let blank = text[line..].chars().all(is_space);
                if blank && (line > 0 || self.line_starting) { &text[..line] } else { text }
            }
            _ => text,
        }
    }

    fn comment(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let Some(close) = rest.find("#}") else {
            // Jinja2 accepts a comment that begins at the end of the template.
            return if rest.is_empty() { Ok(()) } else { Err(syntax("missing end of comment tag")) };
        };
        let sign = rest[..close].chars().next_back().filter(|sign| matches!(sign, '-' | '+'));
        self.advance(close + 2);
        self.after_block(sign);
        Ok(())
    }

    /// Passes over the whitespace that the end of a block or comment removes.
    fn after_block(&mut self, sign: Option<char>) {
        let rest = self.rest();
        match sign {
            Some('-') => self.advance(rest.len() - rest.trim_start_matches(is_space).len()),
            None if rest.starts_with('\n') => self.advance(1),
            _ => {}
        }
    }

    fn raw(&mut self) -> Outcome<()> {
        let rest = self.rest();
        for (begin, _) in rest.match_indices("{%") {
            let after = &rest[begin + 2..];
            let sign = after.chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let inner = after[sign.map_or(0, char::len_utf8)..].trim_start_matches(is_space);
            let Some(closing) = inner.strip_prefix("endraw") else { continue };
            let closing = closing.trim_start_matches(is_space);
            let close_sign = closing.chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let Some(end) = closing[close_sign.map_or(0, char::len_utf8)..].strip_prefix("%}") else { continue };
            self.data(self.before_tag(&rest[..begin], sign, true));
            self.advance(rest.len() - end.len());
            self.after_block(close_sign);
            return Ok(());
        }
        if rest.is_empty() { Ok(()) } else { Err(syntax("missing end of raw directive")) }
    }

    /// Reads the tokens of a tag up to its end.
    fn tag(&mut self, tag: Tag) -> Outcome<()> {
        let (begin, end, close) = match tag {
            Tag::Block => (TokenKind::BlockBegin, TokenKind::BlockEnd, "%}"),
            Tag::Variable => (TokenKind::VariableBegin, TokenKind::VariableEnd, "}}"),
        };
        self.push(begin);
        loop {
            let rest = self.rest();
            if self.brackets.is_empty() {
                let sign = rest.chars().next().filter(|sign| *sign == '-' || (*sign == '+' && tag == Tag::Block));
                if rest[sign.map_or(0, char::len_utf8)..].starts_with(close) {
                    self.push(end);
                    self.advance(close.len() + sign.map_or(0, char::len_utf8));
                    if tag == Tag::Block || sign == Some('-') {
                        self.after_block(sign);
                    }
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else {
                return Err(syntax("unexpected end of the template"));
            };
            if is_space(first) {
                self.advance(rest.len() - rest.trim_start_matches(is_space).len());
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphanumeric() || first == '_' {
                self.name()?;
            } else if first == '"' || first == '\'' {
                self.text(first)?;
            } else {
                self.operator(first)?;
            }
        }
    }

    fn name(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if !rest[..length].is_ascii() {
            return Err(Failure::unsupported(format!(
                "the name {:?}, which has letters beyond ASCII,",
                &rest[..length]
            )));
        }
        self.push(TokenKind::Name(Arc::from(&rest[..length])));
        self.advance(length);
        Ok(())
    }

    fn text(&mut self, quote: char) -> Outcome<()> {
        let inner = &self.rest()[1..];
        let mut escaped = false;
        let close = inner.char_indices().find(|(_, character)| {
            let closes = *character == quote && !escaped;
            escaped = *character == '\\' && !escaped;
            closes
        });
        let Some((length, _)) = close else { return Err(syntax(format!("unexpected char {quote:?}"))) };
        let text = escapes::decoded(&inner[..length])?;
        self.push(TokenKind::Text(Arc::from(text)));
        self.advance(length + 2);
        Ok(())
    }

    fn operator(&mut self, first: char) -> Outcome<()> {
        let rest = self.rest();
        let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) else {
            return Err(syntax(format!("unexpected char {first:?}")));
        };
        match *operator {
            "{" => self.brackets.push(b'}'),
            "(" => self.brackets.push(b')'),
            "[" => self.brackets.push(b']'),
            "}" | ")" | "]" if self.brackets.pop() != Some(operator.as_bytes()[0]) => {
                return Err(syntax(format!("unexpected '{operator}'")));
            }
            _ => {}
        }
        self.push(TokenKind::Operator(operator));
        self.advance(operator.len());
        Ok(())
    }

    fn number(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let after_dot = self.source[..self.position].ends_with('.');
        if !after_dot && let Some(length) = float_length(rest) {
            let digits = rest[..length].replace('_', "");
            let number = digits.parse().map_err(|_| syntax(format!("invalid number {digits}")))?;
            self.push(TokenKind::Float(number));
            self.advance(length);
            return Ok(());
        }
        let (digits, radix, length) = integer(rest);
        let number = i128::from_str_radix(&digits, radix)
            .map_err(|_| Failure::unsupported("an integer of more than 127 bits"))?;
        self.push(TokenKind::Int(number));
        self.advance(length);
        Ok(())
    }
}

/// The position of the first tag.
fn find_tag(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(1)).find(|at| bytes[*at] == b'{' && matches!(bytes[at + 1], b'{' | b'%' | b'#'))
}

/// The length of the rest of `{% raw %}` after its first two characters.
fn raw_begin(after: &str) -> Option<usize> {
    let inner = after.strip_prefix(['-', '+']).unwrap_or(after).trim_start_matches(is_space);
    let closing = inner.strip_prefix("raw")?.trim_start_matches(is_space);
    let rest = match closing.strip_prefix("-%}") {
        Some(rest) => rest.trim_start_matches(is_space),
        None => closing.strip_prefix("%}")?,
    };
    Some(after.len() - rest.len())
}

/// The length of digits that single underscores may separate; a separator before the first digit needs `lead`.
fn digits_length(text: &str, lead: bool, is_digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut length = 0;
    loop {
        let skip = usize::from((lead || length > 0) && bytes.get(length) == Some(&b'_'));
        match bytes.get(length + skip) {
            Some(byte) if is_digit(*byte) => length += skip + 1,
            _ => return length,
        }
    }
}

fn decimal_length(text: &str) -> usize {
    digits_length(text, false, |byte| byte.is_ascii_digit())
}

/// The length of a number with a fraction or an exponent.
fn float_length(text: &str) -> Option<usize> {
    let whole = decimal_length(text);
    let fraction = text[whole..].strip_prefix('.').map_or(0, decimal_length);
    let mantissa = if fraction > 0 { whole + 1 + fraction } else { whole };
    let exponent = text[mantissa..].strip_prefix(['e', 'E']).and_then(|rest| {
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        let length = decimal_length(digits);
        (length > 0).then_some(1 + (rest.len() - digits.len()) + length)
    });
    match (fraction, exponent) {
        (_, Some(length)) => Some(mantissa + length),
        (0, None) => None,
        (_, None) => Some(mantissa),
    }
}

/// The digits of an integer, its base, and its length in the source.
fn integer(text: &str) -> (String, u32, usize) {
    let bytes = text.as_bytes();
    if bytes[0] == b'0' {
        let prefix = bytes.get(1).map_or(b' ', u8::to_ascii_lowercase);
        let radix = match prefix {
            b'b' => 2,
            b'o' => 8,
            b'x' => 16,
            _ => 0,
        };
        if radix > 0 {
            let length = digits_length(&text[2..], true, |byte| char::from(byte).is_digit(radix));
            if length > 0 {
                return (text[2..2 + length].replace('_', ""), radix, 2 + length);
            }
        }
        return ("0".to_owned(), 10, digits_length(text, false, |byte| byte == b'0'));
    }
    let length = decimal_length(text);
    (text[..length].replace('_', ""), 10, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_where_jinja2_ends_them() {
        let shown = |source: &str| -> Vec<TokenKind> {
            let all = tokens(source).unwrap();
            all[1..all.len() - 2].iter().map(|token| token.kind.clone()).collect()
        };
        assert_eq!(shown("{{ 1_000 0x_1F 0 }}"), [TokenKind::Int(1000), TokenKind::Int(31), TokenKind::Int(0)]);
        assert_eq!(shown("{{ 01 }}"), [TokenKind::Int(0), TokenKind::Int(1)]);
        assert_eq!(shown("{{ 1e5 1.5e-3 }}"), [TokenKind::Float(1e5), TokenKind::Float(1.5e-3)]);
        assert_eq!(shown("{{ x.0.1 }}").len(), 5);
    }

    #[test]
    fn lines_are_counted_through_trimmed_text() {
        let all = tokens("{# a\n b #}\r\n{% raw %}\n{{ }}{% endraw -%}\n\n{{ x }}").unwrap();
        assert_eq!(all[0].kind, TokenKind::Data(Arc::from("\n{{ }}")));
        assert_eq!(all.last().unwrap().line, 6);
    }
}
