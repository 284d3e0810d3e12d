//! Locates the assistant messages in a rendered dialogue.
//!
//! The [`TemplateLayout`] of the roles lists the literals and contents of the text, and the contents are known, so
//! the text is matched exactly. There is no search, so contents that look like the template's own markup cannot
//! mislead. Templates that change certain contents (drop a thinking section, omit an empty message) do not match.
//! Their boundaries come from rendering the dialogue up to each message.

use std::collections::HashSet;
use std::ops::Range;

use crate::data::{ChatMessage, Role};

use super::layout::{PieceKind, RenderedPiece, TemplateLayout};
use super::mask::MaskKind;
use super::python;
use super::template::ChatTemplate;

/// The byte ranges of `text` that belong to assistant messages, in order and not empty. `mask` selects whole messages
/// or contents. `text` was rendered from `messages`, which have the roles of `layout`.
///
/// # Errors
/// The text does not show where the messages are.
pub(super) fn assistant_spans(
    template: &ChatTemplate,
    layout: &TemplateLayout,
    messages: &[ChatMessage],
    text: &str,
    mask: MaskKind,
) -> Result<Vec<Range<usize>>, String> {
    let spans = match (by_layout(&layout.pieces, messages, text, mask), mask) {
        (Some(spans), _) => spans,
        (None, MaskKind::Assistant) => by_prefixes(template, layout, messages, text)?,
        (None, MaskKind::Content) => contents_in(by_prefixes(template, layout, messages, text)?, messages, text)?,
    };
    Ok(merged(spans))
}

/// Narrows the span of each assistant message to the last occurrence of its content.
fn contents_in(spans: Vec<Range<usize>>, messages: &[ChatMessage], text: &str) -> Result<Vec<Range<usize>>, String> {
    let contents = messages.iter().filter(|message| *message.role() == Role::Assistant);
    let narrowed = spans.into_iter().zip(contents).map(|(span, message)| {
        let content = python::trim(message.content().unwrap_or_default());
        let offset = text[span.clone()].rfind(content).ok_or(
            "the chat template changes the content of an assistant message, so the content cannot be located; \
             use --mask assistant",
        )?;
        Ok(span.start + offset..span.start + offset + content.len())
    });
    narrowed.collect()
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

/// The ranges found by rendering the dialogue up to the begin and to the end of each assistant message.
fn by_prefixes(
    template: &ChatTemplate,
    layout: &TemplateLayout,
    messages: &[ChatMessage],
    text: &str,
) -> Result<Vec<Range<usize>>, String> {
    let end_of = |n_messages: usize| -> Option<usize> {
        if n_messages == messages.len() {
            return Some(text.len());
        }
        let prefix = template.render(&messages[..n_messages]).ok()?;
        text.starts_with(&prefix).then_some(prefix.len())
    };
    let assistants = (0..messages.len()).filter(|message| *messages[*message].role() == Role::Assistant);
    let spans = assistants.map(|message| {
        let unclear = || {
            format!("the chat template does not show where message {} is, because it changes the content", message + 1)
        };
        let start = if message == 0 { Some(0) } else { end_of(message) };
        // Templates often render the last message differently. Then the message after it determines the end.
        let end = end_of(message + 1).or_else(|| {
            let end_of_next = end_of(message + 2)?;
            let next = message_frame(template, layout, message + 1)?;
            let suffixes = variants(messages.get(message + 1)?.content().unwrap_or_default())
                .into_iter()
                .map(|content| next.with_content(content));
            let length = suffixes.into_iter().find(|next| text[..end_of_next].ends_with(next.as_str()))?.len();
            Some(end_of_next - length)
        });
        match (start, end) {
            (Some(start), Some(end)) if start <= end => Ok(start..end),
            _ => Err(unclear()),
        }
    });
    spans.collect()
}

/// The text that a template writes before and after the content of the last message.
struct MessageFrame {
    header: String,
    end: String,
}

impl MessageFrame {
    fn with_content(&self, content: &str) -> String {
        [self.header.as_str(), content, self.end.as_str()].concat()
    }
}

fn message_frame(template: &ChatTemplate, layout: &TemplateLayout, message: usize) -> Option<MessageFrame> {
    let index = layout.pieces.iter().position(|piece| piece.kind == PieceKind::Content(message))?;
    let header = layout.pieces[index.checked_sub(1)?].literal().to_owned();
    let end = layout.end_alone(template, message)?;
    Some(MessageFrame { header, end })
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
        let messages = messages("[a]", "a");
        assert_eq!(contents_in(vec![5..12], &messages, "<[a]>{a {a}}").unwrap(), [9..10]);
        assert!(contents_in(vec![5..8], &messages, "<[a]>{b}").unwrap_err().contains("--mask assistant"));
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
