//! Finds where the text that a template writes for one message ends and that of the next message begins.
//!
//! The text between the contents of two messages is the end of one message and the header of the next. To separate
//! them, the dialogue is also rendered only up to the earlier message: the text after its content is its end.
//!
//! ```text
//! whole:   <s>[user]\nAAA[end]\n[bot]\nBBB[end]\n
//! up to A: <s>[user]\nAAA[end]\n
//!                       ^^^^^^ ends message A, so the header of message B is "[bot]\n"
//! ```
//!
//! Templates can refuse a part of a dialogue that they accept as a whole, for example one without a question. Then a
//! question is put before it. This module knows no model and no special token by name.

use std::cell::OnceCell;
use std::ops::Range;

use crate::data::{ChatMessage, Role};

use super::turns::Renderer;

/// Encloses the number of a message in its marker. Characters of a private use area of Unicode: no template writes
/// them, no case mapping changes them and no trimming removes them.
pub(super) const MARKERS: [char; 2] = ['\u{f8f0}', '\u{f8f1}'];

/// A text that no template and hardly any data writes.
pub(super) fn marker(message: usize) -> String {
    format!("{}{message}{}", MARKERS[0], MARKERS[1])
}

/// Encodes a text to pairs of token id and end byte.
pub(super) type TokenizeText<'a> = &'a dyn Fn(&str) -> Result<Vec<(u32, usize)>, String>;

/// Locates a text of a message (by its index) in the rendered text of some messages.
pub(super) type FindAnchor<'a> = &'a dyn Fn(&[ChatMessage], &str, usize) -> Option<Range<usize>>;

/// A rendered dialogue.
pub(super) struct Boundaries<'a> {
    renderer: Renderer<'a>,
    tokenize: TokenizeText<'a>,
    find_anchor: FindAnchor<'a>,
    messages: &'a [ChatMessage],
    text: &'a str,
    anchors: Vec<OnceCell<Option<Range<usize>>>>,
}

impl<'a> Boundaries<'a> {
    /// The boundaries of `text`, which was rendered from `messages`.
    pub(super) fn new(
        renderer: Renderer<'a>,
        tokenize: TokenizeText<'a>,
        find_anchor: FindAnchor<'a>,
        messages: &'a [ChatMessage],
        text: &'a str,
    ) -> Self {
        let anchors = vec![OnceCell::new(); messages.len()];
        Boundaries { renderer, tokenize, find_anchor, messages, text, anchors }
    }

    /// The bytes of the text that the template writes for `message`: header, content and end.
    pub(super) fn span(&self, message: usize) -> Result<Range<usize>, String> {
        let start = self.start(message)?;
        let end = self.end_of_first(message + 1)?;
        if start <= end { Ok(start..end) } else { Err(format!("it moves message {}", message + 1)) }
    }

    fn anchor(&self, message: usize) -> Option<Range<usize>> {
        self.anchors[message].get_or_init(|| (self.find_anchor)(self.messages, self.text, message)).clone()
    }

    /// The last message before `n_messages` with a text in the rendered dialogue.
    fn last_anchored(&self, n_messages: usize) -> Option<(usize, Range<usize>)> {
        (0..n_messages).rev().find_map(|message| Some((message, self.anchor(message)?)))
    }

    fn start(&self, message: usize) -> Result<usize, String> {
        if self.last_anchored(message).is_none() {
            return Ok(self.end_of_preamble(message));
        }
        self.end_of_first(message).or_else(|why| {
            let (header, anchor) = self.header_after_question(message).zip(self.anchor(message)).ok_or(why.clone())?;
            let before = &self.text[..anchor.start];
            if before.ends_with(&header) { Ok(before.len() - header.len()) } else { Err(why) }
        })
    }

    /// The byte at which the first `n_messages` messages end.
    fn end_of_first(&self, n_messages: usize) -> Result<usize, String> {
        if n_messages == self.messages.len() {
            return Ok(self.text.len());
        }
        let prefix = self.renderer.render(&self.messages[..n_messages]);
        if let Some(prefix) = prefix.as_ref().ok().filter(|prefix| self.text.starts_with(prefix.as_str())) {
            return Ok(self.after_whitespace(prefix.len(), n_messages));
        }
        let Some((last, anchor)) = self.last_anchored(n_messages) else {
            return Err(format!("it does not write message {n_messages}"));
        };
        let after = &self.text[anchor.end..self.next_anchor(n_messages, anchor.end)];
        let end = match prefix {
            Ok(prefix) => self.ending(&self.messages[..n_messages], &prefix, last)?,
            Err(refusal) => self.ending_after_question(n_messages, last).ok_or_else(|| refusal.to_string())?,
        };
        // A template that also closes the dialogue writes more than the end of the message. The common leading tokens
        // are the end of the message.
        let end = if after.starts_with(&end) { end.len() } else { self.common_tokens(&end, after)? };
        Ok(self.after_whitespace(anchor.end + end, n_messages))
    }

    /// Whitespace between messages belongs to the earlier one, like the line break of ChatML.
    fn after_whitespace(&self, end: usize, n_messages: usize) -> usize {
        if !self.text[end..].starts_with(char::is_whitespace) {
            return end;
        }
        let rest = &self.text[end..self.next_anchor(n_messages, end)];
        let next = rest.trim_start();
        if next.is_empty() { end } else { end + (rest.len() - next.len()) }
    }

    /// The begin of the first text of a message from `n_messages` on, or the end of the dialogue.
    fn next_anchor(&self, n_messages: usize, from: usize) -> usize {
        (n_messages..self.messages.len())
            .find_map(|message| self.anchor(message))
            .map_or(self.text.len(), |anchor| anchor.start.max(from))
    }

    /// The text after message `last`, if the dialogue `messages` with the text `text` ends with it.
    fn ending(&self, messages: &[ChatMessage], text: &str, last: usize) -> Result<String, String> {
        let anchor = (self.find_anchor)(messages, text, last);
        let end = anchor.map(|anchor| text[anchor.end..].to_owned()).filter(|end| !end.contains(MARKERS[0]));
        end.ok_or_else(|| format!("it moves message {} if another message follows", last + 1))
    }

    /// As [`ending`](Self::ending), for a part of the dialogue that the template refuses alone.
    fn ending_after_question(&self, n_messages: usize, last: usize) -> Option<String> {
        let n_instructions = self.n_instructions(n_messages);
        let (instructions, others) = self.messages[..n_messages].split_at(n_instructions);
        if last < n_instructions {
            return None;
        }
        let candidates = [(others, last + 1), (&self.messages[last..=last], n_instructions + 1)];
        candidates.into_iter().find_map(|(others, last)| {
            let asked = [instructions, &self.question(), others].concat();
            let text = self.renderer.render(&asked).ok()?;
            self.ending(&asked, &text, last).ok()
        })
    }

    /// The number of system messages at the begin of the first `n_messages` messages.
    fn n_instructions(&self, n_messages: usize) -> usize {
        self.messages[..n_messages].iter().take_while(|message| *message.role() == Role::System).count()
    }

    fn question(&self) -> [ChatMessage; 1] {
        [ChatMessage::new(Role::User, marker(self.messages.len()))]
    }

    /// The header that `message` has if it follows a question.
    fn header_after_question(&self, message: usize) -> Option<String> {
        let n_instructions = self.n_instructions(message);
        let (instructions, rest) = (&self.messages[..n_instructions], &self.messages[message..]);
        let asked = [instructions, &self.question(), rest].concat();
        let text = self.renderer.render(&asked).ok()?;
        let asked = Boundaries::new(self.renderer, self.tokenize, &find_marker_or(self.find_anchor), &asked, &text)
            .header_of(n_instructions + 1)?;
        Some(text[asked].to_owned())
    }

    /// The bytes from the end of the messages before `message` to its content.
    fn header_of(&self, message: usize) -> Option<Range<usize>> {
        let (start, anchor) = (self.end_of_first(message).ok()?, self.anchor(message)?);
        (start <= anchor.start).then_some(start..anchor.start)
    }

    /// The number of bytes of `text` in the leading tokens that both texts share.
    fn common_tokens(&self, other: &str, text: &str) -> Result<usize, String> {
        let (other, tokens) = ((self.tokenize)(other)?, (self.tokenize)(text)?);
        let common = other.iter().zip(&tokens).take_while(|(a, b)| a.0 == b.0);
        let end = common.last().map_or(0, |(_, (_, end))| *end);
        Ok(if text.is_char_boundary(end) { end } else { 0 })
    }

    /// The byte at which the header of `message` begins, if no text of another message is before it. The header can
    /// follow a beginning-of-text token or a default system message of the template.
    fn end_of_preamble(&self, message: usize) -> usize {
        let before = match self.anchor(message) {
            Some(anchor) => &self.text[..anchor.start],
            None => self.text,
        };
        match self.header_after_question(message) {
            Some(header) if before.ends_with(&header) => before.len() - header.len(),
            _ => self.renderer.template.bos().filter(|bos| before.starts_with(bos)).map_or(0, str::len),
        }
    }
}

/// Locates a message whose content is a marker by its marker, and any other with `find`.
fn find_marker_or<'a>(find: FindAnchor<'a>) -> impl Fn(&[ChatMessage], &str, usize) -> Option<Range<usize>> + 'a {
    move |messages, text, message| {
        let is_marker = messages[message].content().is_some_and(|content| content.starts_with(MARKERS[0]));
        let found = if is_marker { find_marker(messages, text, message) } else { None };
        found.or_else(|| find(messages, text, message))
    }
}

/// Locates a message whose content is a marker. The template must write it exactly once.
pub(super) fn find_marker(messages: &[ChatMessage], text: &str, message: usize) -> Option<Range<usize>> {
    let marker = messages[message].content()?;
    let mut found = text.match_indices(marker);
    match (found.next(), found.next()) {
        (Some((start, _)), None) => Some(start..start + marker.len()),
        _ => None,
    }
}
