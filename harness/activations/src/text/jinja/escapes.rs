//! The escapes of string literals.
//!
//! Jinja2 encodes a literal as ASCII with `backslashreplace` and decodes it with Python's codec `unicode-escape`. An
//! unknown escape stays as it is written, and a backslash before a character beyond ASCII protects the first character
//! of its replacement.

use std::fmt::Write as _;

use super::failure::{Failure, Outcome};

fn syntax(message: &str) -> Failure {
    Failure::other(format!("syntax error: {message}"))
}

/// The value of a literal, given the source between its quotes.
pub(super) fn decoded(source: &str) -> Outcome<String> {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(position) = rest.find('\\') {
        text.push_str(&rest[..position]);
        let mut characters = rest[position + 1..].chars();
        let Some(character) = characters.next() else {
            return Err(syntax("\\ at the end of a string"));
        };
        rest = characters.as_str();
        let digits = match character {
            '\n' => continue,
            '\\' | '\'' | '"' => {
                text.push(character);
                continue;
            }
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='7' => {
                let more = rest.chars().take(2).take_while(|digit| digit.is_digit(8)).count();
                let mut octal = character.to_string();
                octal.push_str(&rest[..more]);
                rest = &rest[more..];
                code_point(&octal, 8)?
            }
            'x' => hexadecimal(&mut rest, 2)?,
            'u' => hexadecimal(&mut rest, 4)?,
            'U' => hexadecimal(&mut rest, 8)?,
            'N' => {
                let name = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
                let Some((name, after)) = name.filter(|(name, _)| !name.is_empty()) else {
                    return Err(syntax("malformed \\N escape in a string"));
                };
                rest = after;
                named(name)?
            }
            _ if character.is_ascii() => {
                text.push('\\');
                character
            }
            // The replacement of the character begins with a backslash, which the written one escapes.
            _ => {
                let code = u32::from(character);
                let _ = match code {
                    0..=0xff => write!(text, "\\x{code:02x}"),
                    0x100..=0xffff => write!(text, "\\u{code:04x}"),
                    _ => write!(text, "\\U{code:08x}"),
                };
                continue;
            }
        };
        text.push(digits);
    }
    text.push_str(rest);
    Ok(text)
}

fn code_point(digits: &str, radix: u32) -> Outcome<char> {
    let code = u32::from_str_radix(digits, radix).map_err(|_| syntax("illegal Unicode character"))?;
    char::from_u32(code).ok_or_else(|| match code {
        0xd800..=0xdfff => Failure::unsupported(format!("the escape of a lone surrogate, U+{code:04X},")),
        _ => syntax("illegal Unicode character"),
    })
}

/// The character with the Unicode name or alias `name`, in letters of any case.
fn named(name: &str) -> Outcome<char> {
    let unknown = || syntax(&format!("unknown Unicode character name `{name}` in a string"));
    let character = unicode_names2::character(name).ok_or_else(unknown)?;
    let spelled = unicode_names2::name(character).map(|own| own.to_string()).unwrap_or_default();
    // The crate also takes a name with other separators between its words, which Python does not. Of an alias it does
    // not tell the right spelling.
    let letters = |name: &str| name.to_ascii_uppercase().replace([' ', '-', '_'], "");
    let is_alias = letters(&spelled) != letters(name) && name.split(' ').all(|word| !word.is_empty());
    if spelled == name.to_ascii_uppercase() || is_alias { Ok(character) } else { Err(unknown()) }
}

fn hexadecimal(rest: &mut &str, length: usize) -> Outcome<char> {
    let digits = rest.get(..length).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let Some(digits) = digits else { return Err(syntax("truncated escape in a string")) };
    *rest = &rest[length..];
    code_point(digits, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_python() {
        let cases = [
            (r"<\/s>", r"<\/s>"),
            (r"\a\b\f\v\0\101\x41", "\u{7}\u{8}\u{c}\u{b}\0AA"),
            (r"\u2028\U0001F600", "\u{2028}😀"),
            ("a\\\nb", "ab"),
            (r"\é", r"\xe9"),
            (r"\N{BULLET}\N{bell}\N{Line Feed}\N{NULL}\N{VS17}", "\u{2022}\u{1f514}\n\0\u{e0100}"),
            (r"\N{HANGUL SYLLABLE GA}\N{CJK UNIFIED IDEOGRAPH-4E00}\N{TIBETAN LETTER -A}", "\u{ac00}\u{4e00}\u{f60}"),
            (r"é\'", "é'"),
        ];
        for (source, expected) in cases {
            assert_eq!(decoded(source).as_deref(), Ok(expected), "{source}");
        }
        for source in [
            r"\x4",
            r"\u12",
            r"\U00110000",
            r"\N",
            r"\N{}",
            r"\N{BULLET",
            r"\N{ BULLET}",
            r"\N{LATIN_SMALL_LETTER_A}",
            r"\N{NOTHING}",
            r"\ud83d",
        ] {
            assert!(decoded(source).is_err(), "{source}");
        }
    }
}
