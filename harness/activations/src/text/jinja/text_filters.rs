//! Jinja2's filters of texts.

use std::sync::Arc;

use super::access::{characters, like};
use super::arguments::{CallArguments, integer, length, optional_integer, text};
use super::failure::{Failure, Outcome};
use super::interpreter::Interpreter;
use super::text_methods::{capitalized, lines};
use super::unicode::{has_final_form, is_alpha, is_space};
use super::value::{Key, Value, ViewKind};

/// The characters by which `truncate` lets a text exceed its length.
const LEEWAY: i128 = 5;

/// A filtered value, or the arguments of a filter that is not one of texts.
pub(super) type Filtered = Result<Value, CallArguments>;

impl Interpreter<'_> {
    /// Applies a filter of texts.
    pub(super) fn text_filter(&self, name: &str, value: &Value, arguments: CallArguments) -> Outcome<Filtered> {
        // Jinja2's `soft_str`: a text as it is, anything else as it prints.
        let soft = || {
            Ok::<_, Failure>(match value.as_text() {
                Some(text) => Arc::clone(text),
                None => Arc::from(&*self.to_text(value)?),
            })
        };
        Ok(Ok(match name {
            "upper" | "lower" => {
                let [] = arguments.bind(name, 0, [])?;
                let text = soft()?;
                self.meter.build(text.len().saturating_mul(3))?;
                like(value, &if name == "upper" { text.to_uppercase() } else { text.to_lowercase() })
            }
            "capitalize" | "title" => {
                let [] = arguments.bind(name, 0, [])?;
                let text = soft()?;
                self.meter.build(text.len().saturating_mul(3))?;
                if has_final_form(&text) {
                    return Err(Failure::unsupported(format!("the filter '{name}' of a text with the letter Σ")));
                }
                if name == "capitalize" { like(value, &capitalized(&text)) } else { Value::text(titled(&text)) }
            }
            "trim" => {
                let [set] = arguments.bind(name, 0, ["chars"])?;
                let text = soft()?;
                self.meter.build(text.len())?;
                like(value, self.stripped(&text, set.as_ref(), true, true)?)
            }
            "replace" => {
                let [old, new, count] = arguments.bind(name, 2, ["old", "new", "count"])?;
                let count = optional_integer(count.as_ref(), "count")?.unwrap_or(-1);
                let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
                let text = self.replaced(&self.to_text(value)?, &self.to_text(&old)?, &self.to_text(&new)?, count)?;
                Value::text(text)
            }
            "center" => {
                let [width] = arguments.bind(name, 0, ["width"])?;
                let width = width.map_or(Ok(80), |width| length(&width, "width"))?;
                like(value, &self.justified(&soft()?, width, ' ', "center")?)
            }
            "indent" => self.indented(value, arguments)?,
            "truncate" => self.truncate(value, arguments)?,
            "wordcount" => {
                let [] = arguments.bind(name, 0, [])?;
                let text = soft()?;
                self.meter.read(text.len())?;
                let is_word = |character: char| character == '_' || is_alpha(character) || character.is_numeric();
                Value::Int(text.split(|character| !is_word(character)).filter(|word| !word.is_empty()).count() as i128)
            }
            "striptags" => {
                let [] = arguments.bind(name, 0, [])?;
                let text = soft()?;
                self.meter.build(text.len())?;
                Value::text(without_tags(&text)?)
            }
            "escape" | "e" => {
                let [] = arguments.bind(name, 0, [])?;
                match value {
                    Value::Markup(_) => value.clone(),
                    value => Value::Markup(self.escaped(&self.to_text(value)?)?),
                }
            }
            "forceescape" => {
                let [] = arguments.bind(name, 0, [])?;
                Value::Markup(self.escaped(&self.to_text(value)?)?)
            }
            "safe" => {
                let [] = arguments.bind(name, 0, [])?;
                Value::Markup(soft()?)
            }
            "format" => {
                if !arguments.positional.is_empty() && !arguments.keyword.is_empty() {
                    return Err(Failure::other("can't handle positional and keyword arguments at the same time"));
                }
                if matches!(value, Value::Markup(_)) {
                    return Err(Failure::unsupported("'format' of a safe string"));
                }
                let entries = arguments.keyword.into_iter().map(|(name, value)| (Key(Value::Text(name)), value));
                let named = Value::dict(entries.collect())?;
                let values = if named.is_true() { named } else { Value::tuple(arguments.positional)? };
                self.percent_format(&soft()?, &values)?
            }
            "urlencode" => {
                let [] = arguments.bind(name, 0, [])?;
                self.url_encoded(value)?
            }
            "xmlattr" => {
                let [spaced] = arguments.bind(name, 0, ["autospace"])?;
                self.attributes(value, spaced.is_none_or(|spaced| spaced.is_true()))?
            }
            _ => return Ok(Err(arguments)),
        }))
    }

    fn indented(&self, value: &Value, arguments: CallArguments) -> Outcome<Value> {
        let [width, first, blank] = arguments.bind("indent", 0, ["width", "first", "blank"])?;
        let indent: Arc<str> = match width {
            Some(Value::Text(text)) => text,
            width => {
                let width = width.map_or(Ok(4), |width| length(&width, "width"))?;
                self.meter.build(width)?;
                Arc::from(" ".repeat(width))
            }
        };
        if matches!(value, Value::Markup(_)) {
            return Err(Failure::unsupported("'indent' of a safe string"));
        }
        let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
        let (first, blank) = (is_true(first), is_true(blank));
        let text = text(value, "the value of indent")?.to_string() + "\n";
        let lines = lines(&text, false);
        self.meter.build(text.len().saturating_add(indent.len().saturating_mul(lines.len())))?;
        let mut output = String::new();
        for (position, line) in lines.into_iter().enumerate() {
            if position > 0 {
                output.push('\n');
            }
            if if position == 0 { first } else { blank || !line.is_empty() } {
                output.push_str(&indent);
            }
            output.push_str(line);
        }
        Ok(Value::text(output))
    }

    fn truncate(&self, value: &Value, arguments: CallArguments) -> Outcome<Value> {
        let [limit, kill, end, leeway] = arguments.bind("truncate", 0, ["length", "killwords", "end", "leeway"])?;
        let limit = limit.map_or(Ok(255), |limit| integer(&limit, "length"))?;
        let end = end.map_or(Ok(Arc::from("...")), |end| text(&end, "end"))?;
        let leeway = optional_integer(leeway.as_ref(), "leeway")?.unwrap_or(LEEWAY);
        let n_end = end.chars().count() as i128;
        if limit < n_end || leeway < 0 {
            return Err(Failure::other("truncate: the length or the leeway is too small"));
        }
        if let Some(text) = value.as_text() {
            self.meter.read(text.len())?;
        }
        match value.length() {
            Some(count) if count as i128 <= limit.saturating_add(leeway) => return Ok(value.clone()),
            Some(_) => {}
            None => return Err(Failure::of_type(format!("object of type '{}' has no len()", value.type_name()))),
        }
        let Value::Text(owner) = value else {
            return Err(match value {
                Value::Markup(_) => Failure::unsupported("'truncate' of a safe string"),
                _ => Failure::of_type(format!("'{}' object cannot be truncated", value.type_name())),
            });
        };
        self.meter.build(owner.len().saturating_add(end.len()))?;
        let kept = characters(owner, 0, usize::try_from(limit - n_end).unwrap_or(usize::MAX));
        let kept = if kill.is_some_and(|kill| kill.is_true()) {
            kept
        } else {
            kept.rsplit_once(' ').map_or(kept, |(before, _)| before)
        };
        Ok(Value::text(kept.to_owned() + &end))
    }

    fn url_encoded(&self, value: &Value) -> Outcome<Value> {
        let pairs = match value {
            Value::Dict(dict) => self.iterate(&Value::View(ViewKind::Items, std::rc::Rc::clone(dict)))?,
            value if value.as_text().is_some() || !Self::is_iterable(value) => {
                return self.percent_encoded(&self.to_text(value)?, false).map(Value::text);
            }
            value => self.iterate(value)?,
        };
        let mut parts = Vec::new();
        for pair in &pairs.values {
            let pair = self.iterate(pair)?;
            let [key, value] = pair.values.as_slice() else {
                return Err(Failure::of_value("urlencode needs pairs of a key and a value"));
            };
            let key = self.percent_encoded(&self.to_text(key)?, true)?;
            let value = self.percent_encoded(&self.to_text(value)?, true)?;
            parts.push(Arc::from(format!("{key}={value}")));
        }
        self.join_texts("&", &parts).map(Value::text)
    }

    fn percent_encoded(&self, text: &str, in_query: bool) -> Outcome<String> {
        self.meter.build(text.len().saturating_mul(3))?;
        let mut output = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => output.push(char::from(byte)),
                b'/' if !in_query => output.push('/'),
                b' ' if in_query => output.push('+'),
                _ => output.push_str(&format!("%{byte:02X}")),
            }
        }
        Ok(output)
    }

    fn attributes(&self, value: &Value, spaced: bool) -> Outcome<Value> {
        value.defined()?;
        let Value::Dict(dict) = value else {
            return Err(Failure::of_type(format!("'{}' object has no attribute 'items'", value.type_name())));
        };
        let mut parts = Vec::new();
        for (key, value) in &dict.entries {
            if matches!(value, Value::None | Value::Undefined(_)) {
                continue;
            }
            let Value::Text(name) = &key.0 else { return Err(Failure::of_type("expected string as attribute name")) };
            let ends = |c: char| matches!(c, ' ' | '\t'..='\r' | '/' | '>' | '=');
            if name.contains(ends) {
                return Err(Failure::of_value("invalid character in attribute name"));
            }
            let value = match value {
                Value::Markup(text) => Arc::clone(text),
                value => self.escaped(&self.to_text(value)?)?,
            };
            parts.push(Arc::from(format!("{}=\"{value}\"", self.escaped(name)?)));
        }
        let text = self.join_texts(" ", &parts)?;
        Ok(Value::text(if spaced && !text.is_empty() { format!(" {text}") } else { text }))
    }
}

/// Jinja2's `title`: words begin after blanks, hyphens and opening brackets alone.
fn titled(text: &str) -> String {
    let begins = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let same = begins(first);
        let end = rest.find(|c| begins(c) != same).unwrap_or(rest.len());
        let after = first.len_utf8();
        output.extend(first.to_uppercase());
        output.push_str(&rest[after..end].to_lowercase());
        rest = &rest[end..];
    }
    output
}

/// MarkupSafe's `striptags`: without comments and tags, and with single spaces.
fn without_tags(text: &str) -> Outcome<String> {
    let removed = |text: &str, open: &str, close: &str| {
        let mut output = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(begin) = rest.find(open)
            && let Some(end) = rest[begin..].find(close)
        {
            output.push_str(&rest[..begin]);
            rest = &rest[begin + end + close.len()..];
        }
        output + rest
    };
    // A removal can join the parts of a new tag.
    let repeated = |mut text: String, open: &str, close: &str| {
        loop {
            let next = removed(&text, open, close);
            if next.len() == text.len() {
                return next;
            }
            text = next;
        }
    };
    let text = repeated(text.to_owned(), "<!--", "-->");
    let text = removed(&text, "<", ">");
    if text.contains('&') {
        return Err(Failure::unsupported("'striptags' of a text with '&'"));
    }
    Ok(text.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}
