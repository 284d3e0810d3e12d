//! The methods of Python's `str`.

use std::sync::Arc;

use super::access::{characters, limited};
use super::arguments::{CallArguments, integer, length, optional_integer, text};
use super::failure::{Failure, Outcome};
use super::formats::mapping_arguments;
use super::interpreter::Interpreter;
use super::unicode::{
    case_fold, has_final_form, is_alpha, is_cased, is_decimal, is_digit, is_line_end, is_numeric, is_printable,
    is_space, is_titlecase, title_case,
};
use super::value::Value;

/// The value of an argument that must be given.
fn given(value: Option<Value>) -> Value {
    value.unwrap_or(Value::None)
}

impl Interpreter<'_> {
    /// Calls a method of a string that needs no escapes. Most methods escape their arguments then.
    pub(super) fn markup_method(&self, owner: &Arc<str>, name: &str, arguments: CallArguments) -> Outcome<Value> {
        let is_bare = arguments.positional.is_empty() && arguments.keyword.is_empty();
        let is_question = name.starts_with("is") || matches!(name, "startswith" | "endswith" | "count" | "find");
        if !is_bare && !is_question || matches!(name, "format" | "format_map" | "join") {
            return Err(Failure::unsupported(format!("the method '{name}' of a safe string")));
        }
        let value = self.text_method(owner, name, arguments)?;
        Ok(match value {
            Value::Text(text) => Value::Markup(text),
            Value::List(items) => Value::list(items.values.iter().map(as_markup).collect())?,
            value => value,
        })
    }

    /// Calls a method of a string.
    pub(super) fn text_method(&self, owner: &Arc<str>, name: &str, arguments: CallArguments) -> Outcome<Value> {
        self.meter.build(owner.len())?;
        let owned =
            |text: &str| if text.len() == owner.len() { Value::Text(Arc::clone(owner)) } else { Value::text(text) };
        Ok(match name {
            "strip" | "lstrip" | "rstrip" => {
                let [set] = arguments.bind(name, 0, [""])?;
                owned(self.stripped(owner, set.as_ref(), name != "rstrip", name != "lstrip")?)
            }
            "split" | "rsplit" => return self.split(owner, name == "rsplit", arguments),
            "splitlines" => {
                let [keeps] = arguments.bind(name, 0, ["keepends"])?;
                let keeps = match keeps {
                    Some(value) => integer(&value, "keepends")? != 0,
                    None => false,
                };
                return self.texts(lines(owner, keeps));
            }
            "replace" => {
                let [old, new, count] = arguments.bind(name, 2, ["", "", ""])?;
                let (old, new) =
                    (text(&given(old), "replace() argument 1")?, text(&given(new), "replace() argument 2")?);
                let count = count.map_or(Ok(-1), |count| integer(&count, "replace() argument 3"))?;
                Value::text(self.replaced(owner, &old, &new, count)?)
            }
            "startswith" | "endswith" => return self.has_affix(owner, name == "endswith", name, arguments),
            "find" | "rfind" | "index" | "rindex" | "count" => return self.search(owner, name, arguments),
            "format" => return self.brace_format(owner, &arguments),
            "format_map" => {
                let [mapping] = arguments.bind(name, 1, [""])?;
                return self.brace_format(owner, &mapping_arguments(&given(mapping))?);
            }
            "join" => {
                let [items] = arguments.bind(name, 1, [""])?;
                let items = self.iterate(&given(items))?;
                let parts = items.values.iter().map(|item| text(item, "an element of join()"));
                Value::text(self.join_texts(owner, &parts.collect::<Outcome<Vec<_>>>()?)?)
            }
            "removeprefix" | "removesuffix" => {
                let [affix] = arguments.bind(name, 1, [""])?;
                let affix = text(&given(affix), "the argument of the method")?;
                let rest =
                    if name == "removeprefix" { owner.strip_prefix(&*affix) } else { owner.strip_suffix(&*affix) };
                owned(rest.unwrap_or(owner))
            }
            "partition" | "rpartition" => {
                let [separator] = arguments.bind(name, 1, [""])?;
                let separator = text(&given(separator), "the separator")?;
                if separator.is_empty() {
                    return Err(Failure::of_value("empty separator"));
                }
                let found =
                    if name == "partition" { owner.split_once(&*separator) } else { owner.rsplit_once(&*separator) };
                let parts = match found {
                    Some((before, after)) => [before, &*separator, after],
                    None if name == "partition" => [&**owner, "", ""],
                    None => ["", "", &**owner],
                };
                Value::tuple(parts.into_iter().map(Value::text).collect())?
            }
            "center" | "ljust" | "rjust" => {
                let [width, fill] = arguments.bind(name, 1, ["", ""])?;
                let width = length(&given(width), "the width")?;
                let fill = match fill {
                    Some(value) => text(&value, "the fill character")?,
                    None => Arc::from(" "),
                };
                let mut fills = fill.chars();
                let (Some(fill), None) = (fills.next(), fills.next()) else {
                    return Err(Failure::of_type("the fill character must be exactly one character long"));
                };
                Value::text(self.justified(owner, width, fill, name)?)
            }
            "zfill" => {
                let [width] = arguments.bind(name, 1, [""])?;
                let width = length(&given(width), "the width")?;
                let missing = width.saturating_sub(owner.chars().count());
                self.meter.build(owner.len().saturating_add(missing))?;
                let sign = owner.len() - owner.strip_prefix(['+', '-']).unwrap_or(owner).len();
                let (sign, digits) = owner.split_at(sign);
                Value::text(format!("{sign}{}{digits}", "0".repeat(missing)))
            }
            "expandtabs" => {
                let [size] = arguments.bind(name, 0, ["tabsize"])?;
                let size = size.map_or(Ok(8), |size| length(&size, "the tab size"))?;
                Value::text(self.tabs_expanded(owner, size)?)
            }
            "encode" | "translate" | "maketrans" => {
                return Err(Failure::unsupported(format!("the method '{name}' of a string")));
            }
            _ => {
                let [] = arguments.bind(name, 0, [])?;
                return self.bare_text_method(owner, name);
            }
        })
    }

    /// The methods without arguments.
    fn bare_text_method(&self, owner: &str, name: &str) -> Outcome<Value> {
        // A mapping can make three characters of one.
        self.meter.build(owner.len().saturating_mul(3))?;
        if matches!(name, "capitalize" | "title" | "swapcase") && has_final_form(owner) {
            return Err(Failure::unsupported(format!("the method '{name}' of a text with the letter Σ")));
        }
        let all = |class: fn(char) -> bool| !owner.is_empty() && owner.chars().all(class);
        let all_known = |class: fn(char) -> Outcome<bool>| {
            for character in owner.chars() {
                if !class(character)? {
                    return Ok(false);
                }
            }
            Ok::<bool, Failure>(!owner.is_empty())
        };
        Ok(match name {
            "lower" => Value::text(owner.to_lowercase()),
            "upper" => Value::text(owner.to_uppercase()),
            "casefold" => Value::text(owner.chars().map(case_fold).collect::<String>()),
            "capitalize" => Value::text(capitalized(owner)),
            "title" => Value::text(titled(owner)),
            "swapcase" => {
                let swapped = owner.chars().map(|character| -> String {
                    if character.is_uppercase() {
                        character.to_lowercase().collect()
                    } else if character.is_lowercase() {
                        character.to_uppercase().collect()
                    } else {
                        character.to_string()
                    }
                });
                Value::text(swapped.collect::<String>())
            }
            "isalpha" => Value::Bool(all(is_alpha)),
            "isascii" => Value::Bool(owner.is_ascii()),
            "isdecimal" => Value::Bool(all(is_decimal)),
            "isdigit" => Value::Bool(all_known(is_digit)?),
            "isnumeric" => Value::Bool(all_known(is_numeric)?),
            "isalnum" => Value::Bool(all(|character| is_alpha(character) || character.is_numeric())),
            "isspace" => Value::Bool(all(is_space)),
            "isprintable" => Value::Bool(owner.chars().all(is_printable)),
            "isidentifier" if owner.is_ascii() => {
                let starts = owner.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
                Value::Bool(starts && owner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
            }
            "isidentifier" => return Err(Failure::unsupported("'isidentifier' beyond ASCII")),
            "islower" => Value::Bool(
                owner.chars().any(char::is_lowercase)
                    && !owner.chars().any(|character| character.is_uppercase() || is_titlecase(character)),
            ),
            "isupper" => Value::Bool(
                owner.chars().any(char::is_uppercase)
                    && !owner.chars().any(|character| character.is_lowercase() || is_titlecase(character)),
            ),
            "istitle" => Value::Bool(is_title(owner)),
            _ => return Err(Failure::other(format!("no method '{name}'"))),
        })
    }

    /// A list of texts.
    pub(super) fn texts<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> Outcome<Value> {
        let mut values = Vec::new();
        for text in texts {
            self.meter.read(text.len())?;
            values.push(Value::text(text));
        }
        Value::list(values)
    }

    /// The text without characters of a set, or whitespace, at its ends.
    pub(super) fn stripped<'t>(&self, owner: &'t str, set: Option<&Value>, start: bool, end: bool) -> Outcome<&'t str> {
        let set = match set {
            None | Some(Value::None) => None,
            Some(value) => Some(text(value, "the argument of strip()")?),
        };
        if let Some(set) = &set {
            // Each character can be compared with each of the set.
            self.meter.read(owner.len().saturating_mul(set.len().min(256)) / 16)?;
        }
        let members: std::collections::HashSet<char> = set.iter().flat_map(|set| set.chars()).collect();
        let drops = |character: char| {
            if set.is_some() { members.contains(&character) } else { is_space(character) }
        };
        let rest = if start { owner.trim_start_matches(drops) } else { owner };
        Ok(if end { rest.trim_end_matches(drops) } else { rest })
    }

    fn split(&self, owner: &str, from_end: bool, arguments: CallArguments) -> Outcome<Value> {
        let [separator, limit] = arguments.bind("split()", 0, ["sep", "maxsplit"])?;
        let limit = limit.map_or(Ok(-1), |limit| integer(&limit, "maxsplit"))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut parts: Vec<&str> = Vec::new();
        match separator {
            None | Some(Value::None) if from_end => {
                let mut rest = owner.trim_end_matches(is_space);
                while !rest.is_empty() && parts.len() < limit {
                    let begin = rest.char_indices().rev().find(|(_, character)| is_space(*character));
                    let begin = begin.map_or(0, |(position, character)| position + character.len_utf8());
                    parts.push(&rest[begin..]);
                    rest = rest[..begin].trim_end_matches(is_space);
                }
                if !rest.is_empty() {
                    parts.push(rest);
                }
                parts.reverse();
            }
            None | Some(Value::None) => {
                let mut rest = owner.trim_start_matches(is_space);
                while !rest.is_empty() && parts.len() < limit {
                    let end = rest.find(is_space).unwrap_or(rest.len());
                    parts.push(&rest[..end]);
                    rest = rest[end..].trim_start_matches(is_space);
                }
                if !rest.is_empty() {
                    parts.push(rest);
                }
            }
            Some(separator) => {
                let separator = text(&separator, "the separator")?;
                if separator.is_empty() {
                    return Err(Failure::of_value("empty separator"));
                }
                self.meter.spend(owner.matches(&*separator).count())?;
                let pieces = limit.saturating_add(1);
                if from_end {
                    parts.extend(owner.rsplitn(pieces, &*separator));
                    parts.reverse();
                } else {
                    parts.extend(owner.splitn(pieces, &*separator));
                }
            }
        }
        self.texts(parts)
    }

    /// `text.replace(old, new, count)`; a negative count has no limit.
    pub(super) fn replaced(&self, owner: &str, old: &str, new: &str, count: i128) -> Outcome<String> {
        let limit = usize::try_from(count).unwrap_or(usize::MAX);
        self.meter.read(owner.len())?;
        let n_found = if old.is_empty() { owner.chars().count() + 1 } else { owner.matches(old).count() }.min(limit);
        let kept = owner.len() - n_found.saturating_mul(old.len()).min(owner.len());
        self.meter.build(kept.saturating_add(n_found.saturating_mul(new.len())))?;
        Ok(if count < 0 { owner.replace(old, new) } else { owner.replacen(old, new, limit) })
    }

    fn has_affix(&self, owner: &str, at_end: bool, name: &str, arguments: CallArguments) -> Outcome<Value> {
        let [affix, start, stop] = arguments.bind(name, 1, ["", "", ""])?;
        let start = optional_integer(start.as_ref(), "the start")?;
        let stop = optional_integer(stop.as_ref(), "the end")?;
        let affix = given(affix);
        affix.defined()?;
        let affixes = match &affix {
            Value::Tuple(items) => {
                items.values.iter().map(|item| text(item, "an affix")).collect::<Outcome<Vec<_>>>()?
            }
            value => vec![text(value, "the affix")?],
        };
        let Some(part) = Self::window(owner, start, stop) else { return Ok(Value::Bool(false)) };
        let matches = |affix: &Arc<str>| if at_end { part.0.ends_with(&**affix) } else { part.0.starts_with(&**affix) };
        self.meter.spend(affixes.len())?;
        Ok(Value::Bool(affixes.iter().any(matches)))
    }

    /// The part of a text between two positions, and the number of characters before it; `None` if the start lies
    /// behind the text or the end.
    fn window(owner: &str, start: Option<i128>, stop: Option<i128>) -> Option<(&str, usize)> {
        let length = owner.chars().count();
        if start.is_some_and(|start| start > length as i128) {
            return None;
        }
        let (start, stop) = limited(start, stop, length);
        (start <= stop).then(|| (characters(owner, start, stop - start), start))
    }

    fn search(&self, owner: &str, name: &str, arguments: CallArguments) -> Outcome<Value> {
        let [part, start, stop] = arguments.bind(name, 1, ["", "", ""])?;
        let part = text(&given(part), "the text to find")?;
        let start = optional_integer(start.as_ref(), "the start")?;
        let stop = optional_integer(stop.as_ref(), "the end")?;
        let window = Self::window(owner, start, stop);
        if name == "count" {
            let count = window.map_or(0, |(window, _)| match part.is_empty() {
                true => window.chars().count() + 1,
                false => window.matches(&*part).count(),
            });
            return Ok(Value::Int(count as i128));
        }
        let found = window.and_then(|(window, before)| {
            let byte = if name.starts_with('r') { window.rfind(&*part) } else { window.find(&*part) }?;
            Some(before + window[..byte].chars().count())
        });
        match found {
            Some(position) => Ok(Value::Int(position as i128)),
            None if name.ends_with("index") => Err(Failure::of_value("substring not found")),
            None => Ok(Value::Int(-1)),
        }
    }

    /// Texts with a separator between them.
    pub(super) fn join_texts(&self, separator: &str, parts: &[Arc<str>]) -> Outcome<String> {
        let length = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        self.meter.build(length.saturating_add(separator.len().saturating_mul(parts.len())))?;
        Ok(parts.join(separator))
    }

    /// The text padded by `center`, `ljust` or `rjust`.
    pub(super) fn justified(&self, owner: &str, width: usize, fill: char, method: &str) -> Outcome<String> {
        let missing = width.saturating_sub(owner.chars().count());
        self.meter.build(owner.len().saturating_add(missing.saturating_mul(fill.len_utf8())))?;
        let before = match method {
            "ljust" => 0,
            "rjust" => missing,
            // CPython puts the odd space to the left if the width is odd.
            _ => missing / 2 + (missing & width & 1),
        };
        let pad = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
        Ok(pad(before) + owner + &pad(missing - before))
    }

    fn tabs_expanded(&self, owner: &str, size: usize) -> Outcome<String> {
        let mut output = String::new();
        let mut column = 0;
        for character in owner.chars() {
            match character {
                '\t' => {
                    let spaces = if size == 0 { 0 } else { size - column % size };
                    self.meter.extend(output.len(), spaces)?;
                    output.extend(std::iter::repeat_n(' ', spaces));
                    column += spaces;
                }
                _ => {
                    output.push(character);
                    column = if matches!(character, '\n' | '\r') { 0 } else { column + 1 };
                }
            }
        }
        Ok(output)
    }
}

fn as_markup(value: &Value) -> Value {
    match value {
        Value::Text(text) => Value::Markup(Arc::clone(text)),
        value => value.clone(),
    }
}

/// The lines of a text by Python's `splitlines`.
pub(super) fn lines(text: &str, keeps_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((position, end)) = rest.char_indices().find(|(_, character)| is_line_end(*character)) {
        let after = position + end.len_utf8();
        let after = if end == '\r' && rest[after..].starts_with('\n') { after + 1 } else { after };
        lines.push(&rest[..if keeps_ends { after } else { position }]);
        rest = &rest[after..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(title_case).unwrap_or_default();
    first + &characters.as_str().to_lowercase()
}

fn titled(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            output.extend(character.to_lowercase());
        } else {
            output.push_str(&title_case(character));
        }
        inside = is_cased(character);
    }
    output
}

fn is_title(text: &str) -> bool {
    let (mut inside, mut found) = (false, false);
    for character in text.chars() {
        let capital = character.is_uppercase() || is_titlecase(character);
        if capital == inside && (capital || character.is_lowercase()) {
            return false;
        }
        inside = capital || character.is_lowercase();
        found |= inside;
    }
    found
}
