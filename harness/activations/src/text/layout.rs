//! The text that a template writes around the messages of a dialogue, found by rendering markers in place of contents.
//!
//! The template is rendered with a unique marker as the content of each message. The literals between the markers are
//! the same for all dialogues that differ only in the texts of their contents.

use std::collections::HashMap;
use std::ops::Range;

use crate::data::{ChatMessage, Role};

use super::boundaries::{Boundaries, MARKERS, TokenizeText, find_marker, marker};
use super::turns::Renderer;

/// A part of a rendered text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenderedPiece {
    pub(super) kind: PieceKind,
    /// Whether the piece belongs to an assistant message.
    pub(super) assistant: bool,
}

/// The kind of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Written by the template.
    Literal(String),
    /// The content of the message with this number, possibly trimmed.
    Content(usize),
}

/// The structure of a rendered dialogue, for all dialogues that differ only in their contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TemplateLayout {
    /// The rendered text in order.
    pub(super) pieces: Vec<RenderedPiece>,
    /// The reason why literals are not assigned to the assistant messages.
    pub(super) unclear: Option<String>,
    /// How often the template writes the content of each message.
    written: HashMap<usize, usize>,
}

impl TemplateLayout {
    /// The layout of dialogues like `messages`.
    ///
    /// # Errors
    /// The template refuses the dialogue of markers.
    pub(super) fn find(
        renderer: Renderer<'_>,
        tokenize: TokenizeText<'_>,
        messages: &[ChatMessage],
    ) -> Result<Self, String> {
        let marked = with_markers(messages);
        let text = renderer.render(&marked).map_err(|error| error.to_string())?;
        let contents = contents(&text);
        let mut written = HashMap::new();
        for (message, _) in &contents {
            *written.entry(*message).or_default() += 1;
        }
        let boundaries = Boundaries::new(renderer, tokenize, &find_marker, &marked, &text);
        let mut spans = Vec::new();
        let mut unclear = None;
        for message in (0..messages.len()).filter(|message| *messages[*message].role() == Role::Assistant) {
            if written.get(&message) != Some(&1) {
                unclear.get_or_insert(format!("it does not write message {} exactly once", message + 1));
                continue;
            }
            match boundaries.span(message) {
                Ok(span) => spans.push(span),
                Err(why) => unclear = unclear.or(Some(why)),
            }
        }
        let is_assistant =
            |message: usize| messages.get(message).is_some_and(|message| *message.role() == Role::Assistant);
        let pieces = pieces(&text, &contents, &spans, is_assistant);
        Ok(TemplateLayout { pieces, unclear, written })
    }

    /// Whether the template writes the content of `message`.
    pub(super) fn writes(&self, message: usize) -> bool {
        self.written.contains_key(&message)
    }

    /// Whether the template writes the content of `message` exactly once.
    pub(super) fn writes_once(&self, message: usize) -> bool {
        self.written.get(&message) == Some(&1)
    }
}

/// The messages with markers as contents. A message without a content keeps none.
fn with_markers(messages: &[ChatMessage]) -> Vec<ChatMessage> {
    let marked = messages.iter().enumerate().map(|(number, message)| match message.content() {
        Some(_) => message.with_content(marker(number)),
        None => message.clone(),
    });
    marked.collect()
}

/// The numbers and the byte ranges of the markers in a rendered text.
fn contents(text: &str) -> Vec<(usize, Range<usize>)> {
    let mut found = Vec::new();
    let mut searched = 0;
    while let Some(start) = text[searched..].find(MARKERS[0]).map(|start| start + searched) {
        let inner = start + MARKERS[0].len_utf8();
        searched = inner;
        let number =
            text[inner..].split_once(MARKERS[1]).and_then(|(number, _)| Some((number.parse().ok()?, number.len())));
        if let Some((message, length)) = number {
            searched = inner + length + MARKERS[1].len_utf8();
            found.push((message, start..searched));
        }
    }
    found
}

/// Splits a rendered text at its contents and at the begins and ends of the assistant's spans.
fn pieces(
    text: &str,
    contents: &[(usize, Range<usize>)],
    spans: &[Range<usize>],
    is_assistant: impl Fn(usize) -> bool,
) -> Vec<RenderedPiece> {
    let mut pieces = Vec::new();
    let literal = |pieces: &mut Vec<RenderedPiece>, range: Range<usize>| {
        let cuts =
            spans.iter().flat_map(|span| [span.start, span.end]).filter(|cut| range.start < *cut && *cut < range.end);
        let mut cuts: Vec<usize> = cuts.chain([range.start, range.end]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        for cut in cuts.windows(2) {
            let assistant = spans.iter().any(|span| span.start <= cut[0] && cut[1] <= span.end);
            pieces.push(RenderedPiece { kind: PieceKind::Literal(text[cut[0]..cut[1]].to_owned()), assistant });
        }
    };
    let mut end = 0;
    for (message, range) in contents {
        literal(&mut pieces, end..range.start);
        pieces.push(RenderedPiece { kind: PieceKind::Content(*message), assistant: is_assistant(*message) });
        end = range.end;
    }
    literal(&mut pieces, end..text.len());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_split_at_contents_and_spans() {
        let text = format!("<{}>[{}]\u{f8f0}x", marker(0), marker(1));
        let contents = contents(&text);
        assert_eq!(contents.iter().map(|(message, _)| *message).collect::<Vec<_>>(), [0, 1]);
        let span = contents[1].1.start - 1..contents[1].1.end + 1;
        let found = pieces(&text, &contents, &[span], |message| message == 1);
        let shown: Vec<(String, bool)> = found
            .into_iter()
            .map(|piece| match piece.kind {
                PieceKind::Literal(text) => (text, piece.assistant),
                PieceKind::Content(message) => (message.to_string(), piece.assistant),
            })
            .collect();
        let expected =
            [("<", false), ("0", false), (">", false), ("[", true), ("1", true), ("]", true), ("\u{f8f0}x", false)];
        assert_eq!(shown, expected.map(|(text, assistant)| (text.to_owned(), assistant)));
    }
}
