//! Locates the assistant messages in a rendered dialogue.
//!
//! The [`TemplateLayout`] lists the literals and contents of the text, and the contents are known, so the text is
//! matched exactly. There is no search, so contents that look like the template's own markup cannot mislead. Templates
//! that change certain contents (drop a thinking section, omit an empty message) do not match. Then the dialogue itself
//! is probed: for the places of its contents, and for the ends of its messages.

use std::collections::HashSet;
use std::ops::Range;

use crate::data::{ChatMessage, Role};

use super::boundaries::{Boundaries, TokenizeText};
use super::layout::{PieceKind, RenderedPiece, TemplateLayout};
use super::mask::MaskKind;
use super::probe::Probe;
use super::python;
use super::turns::{self, Renderer};

/// The byte ranges of `text` that belong to assistant messages, in order and not empty. `mask` selects whole messages
/// or contents. `text` was rendered from `messages`, and `layout` is theirs.
///
/// # Errors
/// The text does not show where the messages are.
pub(super) fn assistant_spans(
    renderer: Renderer<'_>,
    tokenize: TokenizeText<'_>,
    layout: Result<&TemplateLayout, &str>,
    messages: &[ChatMessage],
    text: &str,
    mask: MaskKind,
) -> Result<Vec<Range<usize>>, String> {
    let is_assistant = |message: &usize| *messages[*message].role() == Role::Assistant;
    let unclear = layout.map_or_else(Some, |layout| layout.unclear.as_deref());
    // A template that does not write the content of a message without other keys exactly once has no describable mask.
    // Next to tool calls, a template can leave it out.
    let is_plain = messages.iter().all(turns::is_plain);
    let is_whole = |layout: &TemplateLayout| (0..messages.len()).filter(is_assistant).all(|it| layout.writes_once(it));
    if let Ok(layout) = layout {
        if is_plain && !is_whole(layout) {
            return Err(unplaced(unclear.unwrap_or_default()));
        }
        if is_whole(layout)
            && (unclear.is_none() || mask == MaskKind::Content)
            && let Some(spans) = by_layout(&layout.pieces, messages, text, mask)
        {
            return Ok(merged(spans));
        }
    }
    let assistants = (0..messages.len()).filter(is_assistant);
    let spans: Result<Vec<Range<usize>>, String> = match mask {
        MaskKind::Assistant => {
            let anchor = |messages: &[ChatMessage], text: &str, message: usize| {
                Probe::new(renderer, messages, text).anchor(message)
            };
            let boundaries = Boundaries::new(renderer, tokenize, &anchor, messages, text);
            assistants.map(|message| boundaries.span(message)).collect()
        }
        MaskKind::Content => {
            let probe = Probe::new(renderer, messages, text);
            assistants.filter_map(|message| probe.content(message).transpose()).collect()
        }
    };
    spans.map(merged).map_err(|why| unplaced(&why))
}

fn unplaced(why: &str) -> String {
    format!("the chat template does not show where assistant messages are: {why}")
}

fn merged(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_by_key(|span| span.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for span in spans.into_iter().filter(|span| !span.is_empty()) {
        match merged.last_mut() {
            Some(last) if last.end >= span.start => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// The forms in which templates write a content: unchanged, or trimmed in one of the common ways.
fn variants(content: &str) -> Vec<&str> {
    let mut variants = Vec::new();
    for variant in [
        content,
        python::trim(content),
        content.trim_start_matches(python::is_space),
        content.trim_end_matches(python::is_space),
        content.trim_start_matches('\n'),
        content.trim_end_matches('\n'),
        content.trim_matches('\n'),
    ] {
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    variants
}

/// The ranges of the assistant's pieces, if `text` is a concatenation of the pieces.
fn by_layout(
    pieces: &[RenderedPiece],
    messages: &[ChatMessage],
    text: &str,
    mask: MaskKind,
) -> Option<Vec<Range<usize>>> {
    let variants: Vec<Vec<&str>> =
        messages.iter().map(|message| variants(message.content().unwrap_or_default())).collect();
    let mut failed = HashSet::new();
    let mut ends = Vec::with_capacity(pieces.len());
    // Depth-first search with an explicit stack: its depth is the number of pieces, which the data controls, so
    // recursion could overflow the call stack.
    let mut tried = vec![0];
    while let Some(choice) = tried.last_mut() {
        let index = ends.len();
        let start = ends.last().copied().unwrap_or(0);
        if index == pieces.len() {
            if start == text.len() {
                let is_selected = |piece: &RenderedPiece| match (&piece.kind, mask) {
                    (PieceKind::Literal(_), MaskKind::Content) => false,
                    _ => piece.assistant,
                };
                let spans = pieces.iter().enumerate().filter(|(_, piece)| is_selected(piece));
                return Some(
                    spans.map(|(index, _)| if index == 0 { 0 } else { ends[index - 1] }..ends[index]).collect(),
                );
            }
        } else if !failed.contains(&(index, start)) {
            let candidate = match &pieces[index].kind {
                PieceKind::Literal(literal) => (*choice == 0).then_some(literal.as_str()),
                PieceKind::Content(message) => variants.get(*message)?.get(*choice).copied(),
            };
            if let Some(candidate) = candidate {
                *choice += 1;
                if text[start..].starts_with(candidate) {
                    ends.push(start + candidate.len());
                    tried.push(0);
                }
                continue;
            }
            failed.insert((index, start));
        }
        tried.pop();
        ends.pop();
    }
    None
}

#[cfg(test)]
// The tests do mean lists of one range.
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    fn literal(text: &str, assistant: bool) -> RenderedPiece {
        RenderedPiece { kind: PieceKind::Literal(text.to_owned()), assistant }
    }

    fn content(message: usize, assistant: bool) -> RenderedPiece {
        RenderedPiece { kind: PieceKind::Content(message), assistant }
    }

    fn pieces() -> Vec<RenderedPiece> {
        vec![
            literal("<", false),
            content(0, false),
            literal(">", false),
            literal("[", true),
            content(1, true),
            literal("]", true),
        ]
    }

    fn assistant_by_layout(
        pieces: &[RenderedPiece],
        messages: &[ChatMessage],
        text: &str,
    ) -> Option<Vec<Range<usize>>> {
        by_layout(pieces, messages, text, MaskKind::Assistant)
    }

    fn messages(user: &str, assistant: &str) -> Vec<ChatMessage> {
        vec![ChatMessage::new(Role::User, user), ChatMessage::new(Role::Assistant, assistant)]
    }

    #[test]
    fn contents_like_template_markup_do_not_mislead() {
        let spans = assistant_by_layout(&pieces(), &messages(">[x]", "]><[a]"), "<>[x]>[]><[a]]");
        assert_eq!(merged(spans.unwrap()).first(), Some(&(6..14)));
    }

    #[test]
    fn content_mask_excludes_header_and_closing() {
        let spans = by_layout(&pieces(), &messages("u", " a b "), "<u>[a b]", MaskKind::Content);
        assert_eq!(merged(spans.unwrap()), [4..7]);
    }

    #[test]
    fn trimmed_and_untrimmed_contents_match() {
        for (text, span) in [("<u >[ a\n]", 4..9), ("< u >[a]", 5..8), ("<u>[a\n]", 3..7), ("<>[a]", 2..5)] {
            let user = if text == "<>[a]" { " " } else { " u " };
            let spans = assistant_by_layout(&pieces(), &messages(user, " a\n"), text);
            assert_eq!(merged(spans.unwrap()), [span], "{text}");
        }
        assert_eq!(assistant_by_layout(&pieces(), &messages("u", "a"), "<u>[b]"), None);
        assert_eq!(assistant_by_layout(&pieces(), &messages("u", "a"), "<u>[a]]"), None);
    }

    #[test]
    fn long_ambiguous_dialogue_is_rejected_quickly() {
        // Every content is whitespace that can be kept or dropped, and the last literal never matches.
        let mut pieces: Vec<RenderedPiece> = (0..300).map(|message| content(message, true)).collect();
        pieces.push(literal("x", false));
        let messages: Vec<ChatMessage> = (0..300).map(|_| ChatMessage::new(Role::Assistant, " ")).collect();
        assert_eq!(assistant_by_layout(&pieces, &messages, &" ".repeat(150)), None);
    }
}
