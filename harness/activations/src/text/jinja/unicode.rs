//! Classes and case mappings of characters as Python's `str` has them.

use std::sync::LazyLock;

use regex::Regex;

use super::failure::{Failure, Outcome};

pub(super) use crate::text::python::is_space;

/// Whether Python's `str.splitlines` ends a line at the character.
pub(super) fn is_line_end(character: char) -> bool {
    matches!(character, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// A class of characters, as a regular expression for one of them.
#[allow(clippy::expect_used)] // The patterns are constants.
fn class(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}

fn has(class: &Regex, character: char) -> bool {
    class.is_match(character.encode_utf8(&mut [0; 4]))
}

/// Whether Python's `str.isalpha` holds: the general category is a letter.
pub(super) fn is_alpha(character: char) -> bool {
    static LETTER: LazyLock<Regex> = LazyLock::new(|| class(r"^\p{L}$"));
    if character.is_ascii() { character.is_ascii_alphabetic() } else { has(&LETTER, character) }
}

/// Whether Python's `str.isdecimal` holds.
pub(super) fn is_decimal(character: char) -> bool {
    static DIGIT: LazyLock<Regex> = LazyLock::new(|| class(r"^\p{Nd}$"));
    if character.is_ascii() { character.is_ascii_digit() } else { has(&DIGIT, character) }
}

/// Whether Python's `str.isprintable` holds, by which `repr` decides on escapes.
pub(super) fn is_printable(character: char) -> bool {
    static HIDDEN: LazyLock<Regex> = LazyLock::new(|| class(r"^[\p{C}\p{Z}]$"));
    if character.is_ascii() { (' '..='~').contains(&character) } else { !has(&HIDDEN, character) }
}

/// Whether Python's `str.isdigit` holds.
///
/// # Errors
/// The property is not known for the character: a number other than a decimal digit, such as a superscript.
pub(super) fn is_digit(character: char) -> Outcome<bool> {
    match is_decimal(character) {
        false if character.is_numeric() => Err(unknown_class(character)),
        decimal => Ok(decimal),
    }
}

/// Whether Python's `str.isnumeric` holds.
///
/// # Errors
/// The property is not known for the character: an ideograph can be a number.
pub(super) fn is_numeric(character: char) -> Outcome<bool> {
    let ideograph = matches!(u32::from(character), 0x3400..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff);
    if ideograph { Err(unknown_class(character)) } else { Ok(character.is_numeric()) }
}

fn unknown_class(character: char) -> Failure {
    Failure::unsupported(format!("the numeric class of {character:?}"))
}

/// Whether Python counts the character as cased in `istitle`, `isupper` and `title`.
pub(super) fn is_cased(character: char) -> bool {
    character.is_lowercase() || character.is_uppercase() || is_titlecase(character)
}

/// Whether the general category is a titlecase letter.
pub(super) fn is_titlecase(character: char) -> bool {
    matches!(u32::from(character), 0x1c5 | 0x1c8 | 0x1cb | 0x1f2 | 0x1f88..=0x1f8f | 0x1f98..=0x1f9f | 0x1fa8..=0x1faf
        | 0x1fbc | 0x1fcc | 0x1ffc)
}

/// The titlecase mapping, by `SpecialCasing.txt` and `UnicodeData.txt` of Unicode.
pub(super) fn title_case(character: char) -> String {
    let shifted = |code: u32| char::from_u32(code).map(String::from).unwrap_or_default();
    match u32::from(character) {
        // Georgian letters have capitals for whole words alone.
        0x10d0..=0x10fa | 0x10fd..=0x10ff => character.to_string(),
        0x1c4..=0x1c6 => shifted(0x1c5),
        0x1c7..=0x1c9 => shifted(0x1c8),
        0x1ca..=0x1cc => shifted(0x1cb),
        0x1f1..=0x1f3 => shifted(0x1f2),
        // Greek with iota subscript: the capitals follow the small letters in blocks of eight.
        code @ 0x1f80..=0x1faf => shifted(code | 8),
        0x1fb3 | 0x1fbc => shifted(0x1fbc),
        0x1fc3 | 0x1fcc => shifted(0x1fcc),
        0x1ff3 | 0x1ffc => shifted(0x1ffc),
        0x1fb2 | 0x1fb4 | 0x1fb7 | 0x1fc2 | 0x1fc4 | 0x1fc7 | 0x1ff2 | 0x1ff4 | 0x1ff7 => {
            character.to_uppercase().map(|part| if part == '\u{399}' { '\u{345}' } else { part }).collect()
        }
        // Ligatures: the first letter alone is a capital.
        0xdf | 0x587 | 0xfb00..=0xfb06 | 0xfb13..=0xfb17 => {
            let mut parts = character.to_uppercase();
            parts.next().into_iter().chain(parts.flat_map(char::to_lowercase)).collect()
        }
        _ => character.to_uppercase().collect(),
    }
}

/// The case folding of a character, by `CaseFolding.txt` of Unicode.
pub(super) fn case_fold(character: char) -> String {
    match u32::from(character) {
        // Cherokee folds to capitals.
        0x13a0..=0x13f5 => character.to_string(),
        0x13f8..=0x13fd | 0xab70..=0xabbf => character.to_uppercase().collect(),
        0x1e9e => "ss".to_owned(),
        0xb5
        | 0xdf
        | 0x149
        | 0x17f
        | 0x1f0
        | 0x345
        | 0x390
        | 0x3b0
        | 0x3c2
        | 0x3d0
        | 0x3d1
        | 0x3d5
        | 0x3d6
        | 0x3f0
        | 0x3f1
        | 0x3f5
        | 0x587
        | 0x1c80..=0x1c88
        | 0x1e96..=0x1e9b
        | 0x1f50
        | 0x1f52
        | 0x1f54
        | 0x1f56
        | 0x1f80..=0x1faf
        | 0x1fb2..=0x1fb4
        | 0x1fb6
        | 0x1fb7
        | 0x1fbc
        | 0x1fbe
        | 0x1fc2..=0x1fc4
        | 0x1fc6
        | 0x1fc7
        | 0x1fcc
        | 0x1fd2
        | 0x1fd3
        | 0x1fd6
        | 0x1fd7
        | 0x1fe2..=0x1fe4
        | 0x1fe6
        | 0x1fe7
        | 0x1ff2..=0x1ff4
        | 0x1ff6
        | 0x1ff7
        | 0x1ffc
        | 0xfb00..=0xfb06
        | 0xfb13..=0xfb17 => character.to_uppercase().flat_map(char::to_lowercase).collect(),
        _ => character.to_lowercase().collect(),
    }
}

/// The letter whose small form depends on its place in a word, which [`title_case`] of a word does not know.
pub(super) fn has_final_form(text: &str) -> bool {
    text.contains('Σ')
}
