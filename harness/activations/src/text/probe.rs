//! Locates texts of messages in a rendered dialogue whatever the template does to them: each probe replaces one character
//! of a text, renders the dialogue again, and compares both renderings.
//!
//! A search for the text itself would find other places: an answer `d` is a part of `<|im_end|>`. A replaced character
//! that changes more than its own place, such as one of a tag that the template cuts at, shows nothing.

use std::ops::Range;

use serde_json::Value;

use crate::data::ChatMessage;

use super::python;
use super::turns::Renderer;

/// How many whitespace characters at either end of a content are probed one by one.
const EDGE: usize = 64;
/// How many characters of a partly written content are probed before the bisection.
const SAMPLES: usize = 24;
/// How many texts of a message without content are probed.
const LEAVES: usize = 24;

/// The effect of a replaced character on the rendered text.
enum Trace {
    /// The character is written here.
    Kept(Range<usize>),
    /// The character is not written.
    Left,
    /// The template decides by the character.
    Unclear,
}

impl Trace {
    fn kept(self) -> Option<Range<usize>> {
        match self {
            Trace::Kept(range) => Some(range),
            Trace::Left | Trace::Unclear => None,
        }
    }
}

/// A rendered dialogue whose messages are replaced one at a time.
pub(super) struct Probe<'a> {
    renderer: Renderer<'a>,
    messages: &'a [ChatMessage],
    text: &'a str,
    mark: char,
}

impl<'a> Probe<'a> {
    /// A probe of `text`, which was rendered from `messages`.
    pub(super) fn new(renderer: Renderer<'a>, messages: &'a [ChatMessage], text: &'a str) -> Self {
        let is_unused = |mark: &char| !text.contains(*mark) && !messages.iter().any(|message| is_in(message, *mark));
        // Like the markers of contents, but not equal to them. Data without a free one of them does not occur.
        let mark = ('\u{f0000}'..='\u{f00ff}').find(is_unused).unwrap_or('\u{f0000}');
        Probe { renderer, messages, text, mark }
    }

    /// Where the content of `message` is written: from its first to its last written character, or `None` if the
    /// template writes nothing of it.
    ///
    /// # Errors
    /// The template changes the content so that its place cannot be determined.
    pub(super) fn content(&self, message: usize) -> Result<Option<Range<usize>>, String> {
        let Some(content) = self.messages[message].content() else {
            return Ok(None);
        };
        let replace = |text: String| self.messages[message].with_content(text);
        self.extent(message, content, &replace)
            .ok_or_else(|| format!("it changes the content of message {} depending on its characters", message + 1))
    }

    /// Any text of `message` that is written: the content, or else the hull of its other texts.
    pub(super) fn anchor(&self, message: usize) -> Option<Range<usize>> {
        if let Ok(Some(content)) = self.content(message) {
            return Some(content);
        }
        // The template can write nothing of this content, and still write the message.
        if self.messages[message].content().is_some() {
            let marked = self.messages[message].with_content(self.mark);
            if let Some(place) = self.place(message, marked) {
                return Some(place);
            }
        }
        let keys = Value::Object(self.messages[message].keys().clone());
        let mut paths = Vec::new();
        leaves(&keys, String::new(), &mut paths);
        let texts = paths.iter().filter(|path| !["/role", "/content"].contains(&path.as_str())).take(LEAVES);
        let found = texts.filter_map(|path| {
            let replace = |text: String| {
                let mut keys = keys.clone();
                if let Some(leaf) = keys.pointer_mut(path) {
                    *leaf = Value::from(text);
                }
                let keys = keys.as_object().cloned().unwrap_or_default();
                ChatMessage::from_keys(keys).unwrap_or_else(|_| self.messages[message].clone())
            };
            self.extent(message, keys.pointer(path)?.as_str()?, &replace)?
        });
        found.reduce(|all, range| all.start.min(range.start)..all.end.max(range.end))
    }

    /// The written part of `text`; `Some(None)` if nothing of it is written, `None` if that is unclear. `replace`
    /// returns the message with another text.
    fn extent(
        &self,
        message: usize,
        text: &str,
        replace: &dyn Fn(String) -> ChatMessage,
    ) -> Option<Option<Range<usize>>> {
        let ends: Vec<(usize, usize)> =
            text.char_indices().map(|(start, character)| (start, start + character.len_utf8())).collect();
        let trace = |character: usize| {
            let (start, end) = ends[character];
            let changed = [&text[..start], self.mark.encode_utf8(&mut [0; 4]), &text[end..]].concat();
            self.trace(message, replace(changed))
        };
        let is_space = |character: &usize| text[ends[*character].0..].starts_with(python::is_space);
        let solid: Vec<usize> = (0..ends.len()).filter(|character| !is_space(character)).collect();
        let (Some(first), Some(last)) = (solid.first().copied(), solid.last().copied()) else {
            let kept =
                |characters: &mut dyn Iterator<Item = usize>| characters.take(EDGE).find_map(|it| trace(it).kept());
            let (start, end) = (kept(&mut (0..ends.len())), kept(&mut (0..ends.len()).rev()));
            return Some(start.zip(end).map(|(start, end)| start.start..end.end));
        };
        let (mut start, mut end) = (trace(first).kept(), trace(last).kept());
        let (mut start_at, mut end_at) = (first, last);
        if start.is_none() || end.is_none() {
            let inner = &solid[1..solid.len().max(2) - 1];
            let step = inner.len().div_ceil(SAMPLES).max(1);
            let mut samples: Vec<usize> = inner.iter().copied().step_by(step).collect();
            samples.insert(0, first);
            samples.push(last);
            samples.dedup();
            let traces: Vec<(usize, Option<Range<usize>>)> =
                samples.into_iter().map(|character| (character, trace(character).kept())).collect();
            let is_kept = |trace: &(usize, Option<Range<usize>>)| trace.1.is_some();
            let (Some(left), Some(right)) = (traces.iter().position(is_kept), traces.iter().rposition(is_kept)) else {
                // Of a text that ends with a cut part, only the whitespace behind it can be left.
                let spaces = (0..first).take(EDGE).chain((last + 1..ends.len()).rev().take(EDGE));
                let spaces = spaces.filter_map(|character| trace(character).kept());
                if let Some(hull) = spaces.reduce(|all, range| all.start.min(range.start)..all.end.max(range.end)) {
                    return Some(Some(hull));
                }
                // Nothing of the text is written if an empty one gives the same.
                let is_left = self.render_with(message, replace(String::new())).as_deref() == Some(self.text);
                return is_left.then_some(None);
            };
            let before = left.checked_sub(1).map(|left| traces[left].0);
            let after = traces.get(right + 1).map(|right| right.0);
            (start_at, start) = bisect(traces[left].clone(), before, &trace);
            (end_at, end) = bisect(traces[right].clone(), after, &trace);
            // A template that takes a text apart and writes it as it was: the parts between are the text's own.
            let (lead, tail) = (&text[ends[first].0..ends[start_at].0], &text[ends[end_at].1..ends[last].1]);
            if let Some(range) = start.as_mut().filter(|range| self.text[..range.start].ends_with(lead)) {
                range.start -= lead.len();
                start_at = first;
            }
            if let Some(range) = end.as_mut().filter(|range| self.text[range.end..].starts_with(tail)) {
                range.end += tail.len();
                end_at = last;
            }
        }
        let (mut start, mut end) = (start?.start, end?.end);
        if start_at == first {
            let before = (0..first).take(EDGE).find_map(|it| trace(it).kept());
            start = before.map_or(start, |range| range.start.min(start));
        }
        if end_at == last {
            let after = (last + 1..ends.len()).rev().take(EDGE).find_map(|it| trace(it).kept());
            end = after.map_or(end, |range| range.end.max(end));
        }
        Some((start <= end).then_some(start..end))
    }

    fn render_with(&self, message: usize, changed: ChatMessage) -> Option<String> {
        let mut messages = self.messages.to_vec();
        messages[message] = changed;
        self.renderer.render(&messages).ok()
    }

    fn trace(&self, message: usize, changed: ChatMessage) -> Trace {
        match self.render_with(message, changed) {
            None => Trace::Unclear,
            Some(text) if text == self.text => Trace::Left,
            Some(text) => match self.compare(&text) {
                Some(place) if !place.is_empty() => Trace::Kept(place),
                Some(_) => Trace::Left,
                None => Trace::Unclear,
            },
        }
    }

    /// The place of an inserted mark.
    fn place(&self, message: usize, changed: ChatMessage) -> Option<Range<usize>> {
        self.compare(&self.render_with(message, changed)?)
    }

    /// The bytes of the text that the mark in `changed` replaces, if nothing else differs.
    fn compare(&self, changed: &str) -> Option<Range<usize>> {
        let (before, after) = changed.split_once(self.mark)?;
        let is_same = !after.contains(self.mark)
            && before.len() + after.len() <= self.text.len()
            && self.text.starts_with(before)
            && self.text.ends_with(after);
        is_same.then(|| before.len()..self.text.len() - after.len())
    }
}

/// Moves from the written character `kept` towards `left`, which is not written, to the last written one.
fn bisect(
    (mut kept, mut range): (usize, Option<Range<usize>>),
    left: Option<usize>,
    trace: &dyn Fn(usize) -> Trace,
) -> (usize, Option<Range<usize>>) {
    let Some(mut left) = left else {
        return (kept, range);
    };
    while kept.abs_diff(left) > 1 {
        let middle = usize::midpoint(kept, left);
        match trace(middle).kept() {
            Some(found) => (kept, range) = (middle, Some(found)),
            None => left = middle,
        }
    }
    (kept, range)
}

/// The JSON pointers of all texts in `value`.
fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(path),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, format!("{path}/{index}"), found);
            }
        }
        Value::Object(keys) => {
            for (key, item) in keys {
                leaves(item, format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        _ => {}
    }
}

fn is_in(message: &ChatMessage, mark: char) -> bool {
    fn contains(value: &Value, mark: char) -> bool {
        match value {
            Value::String(text) => text.contains(mark),
            Value::Array(items) => items.iter().any(|item| contains(item, mark)),
            Value::Object(keys) => keys.values().any(|item| contains(item, mark)),
            _ => false,
        }
    }
    message.keys().values().any(|value| contains(value, mark))
}
