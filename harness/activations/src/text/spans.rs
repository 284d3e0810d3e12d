//! Where in a rendered dialogue the assistant messages are.
//!
//! The [`Layout`] of the dialogue's roles says which literals and contents the text is made of, and the contents are
//! known, so the text is matched against it exactly: nothing is searched for, and contents that look like the
//! template's own marks cannot mislead. Templates that write something else for certain contents (a thinking section
//! that is dropped, an empty message that is left out) do not match; for them the boundaries are those of the dialogue
//! rendered only up to each message.

use std::collections::HashSet;
use std::ops::Range;

use crate::data::{Message, Role};

use super::MaskKind;
use super::layout::{Layout, Piece, PieceKind};
use super::python;
use super::template::ChatTemplate;

/// Byte ranges of `text` that belong to assistant messages, in order and not empty: all of them, or their contents, as
/// `mask` says. `messages` are those that `text` was rendered from, with the roles of `layout`.
///
/// # Errors
/// The text does not show where the messages are.
pub(super) fn assistant_spans(
    template: &ChatTemplate,
    layout: &Layout,
    messages: &[Message],
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

/// Narrows the span of each assistant message to its content, the last thing of that wording in it.
fn contents_in(spans: Vec<Range<usize>>, messages: &[Message], text: &str) -> Result<Vec<Range<usize>>, String> {
    let contents = messages.iter().filter(|message| message.role == Role::Assistant);
    let narrowed = spans.into_iter().zip(contents).map(|(span, message)| {
        let content = python::trim(&message.content);
        let place = text[span.clone()].rfind(content).ok_or(
            "the chat template changes the content of an assistant message, so it cannot be told from the rest; \
             use --mask assistant",
        )?;
        Ok(span.start + place..span.start + place + content.len())
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

/// What templates make of a content: themselves, or trimmed in one of the ways in use.
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

/// The ranges of the assistant's pieces, if `text` is made of these pieces.
fn by_layout(pieces: &[Piece], messages: &[Message], text: &str, mask: MaskKind) -> Option<Vec<Range<usize>>> {
    let variants: Vec<Vec<&str>> = messages.iter().map(|message| variants(&message.content)).collect();
    let mut failed = HashSet::new();
    let mut ends = Vec::with_capacity(pieces.len());
    // Depth first with the untried variants of each content on a stack of its own: the depth is the number of pieces,
    // which is the data's to choose, so recursion is out of the question.
    let mut tried = vec![0];
    while let Some(choice) = tried.last_mut() {
        let place = ends.len();
        let start = ends.last().copied().unwrap_or(0);
        if place == pieces.len() {
            if start == text.len() {
                let wanted = |piece: &Piece| match (&piece.kind, mask) {
                    (PieceKind::Literal(_), MaskKind::Content) => false,
                    _ => piece.assistant,
                };
                let spans = pieces.iter().enumerate().filter(|(_, piece)| wanted(piece));
                return Some(
                    spans.map(|(place, _)| if place == 0 { 0 } else { ends[place - 1] }..ends[place]).collect(),
                );
            }
        } else if !failed.contains(&(place, start)) {
            let candidate = match &pieces[place].kind {
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
            failed.insert((place, start));
        }
        tried.pop();
        ends.pop();
    }
    None
}

/// The ranges found by rendering the dialogue up to each assistant message and through it.
fn by_prefixes(
    template: &ChatTemplate,
    layout: &Layout,
    messages: &[Message],
    text: &str,
) -> Result<Vec<Range<usize>>, String> {
    let end_of = |n_messages: usize| -> Option<usize> {
        if n_messages == messages.len() {
            return Some(text.len());
        }
        let prefix = template.render(&messages[..n_messages]).ok()?;
        text.starts_with(&prefix).then_some(prefix.len())
    };
    let assistants = (0..messages.len()).filter(|message| messages[*message].role == Role::Assistant);
    let spans = assistants.map(|message| {
        let unclear = || {
            format!("the chat template does not show where message {} is, because it changes the content", message + 1)
        };
        let start = if message == 0 { Some(0) } else { end_of(message) };
        // The last message is often rendered differently; then the message after it shows where it ends.
        let end = end_of(message + 1).or_else(|| {
            let end_of_next = end_of(message + 2)?;
            let next = around(template, layout, message + 1)?;
            let suffixes =
                variants(&messages.get(message + 1)?.content).into_iter().map(|content| next.replace(content));
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

/// What a template writes before and after the content of a message that ends a dialogue.
struct Around {
    header: String,
    end: String,
}

impl Around {
    fn replace(&self, content: &str) -> String {
        [self.header.as_str(), content, self.end.as_str()].concat()
    }
}

fn around(template: &ChatTemplate, layout: &Layout, message: usize) -> Option<Around> {
    let place = layout.pieces.iter().position(|piece| piece.kind == PieceKind::Content(message))?;
    let header = layout.pieces[place.checked_sub(1)?].literal().to_owned();
    let end = layout.end_alone(template, message)?;
    Some(Around { header, end })
}

#[cfg(test)]
// Lists of one span are what is meant here.
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    fn literal(text: &str, assistant: bool) -> Piece {
        Piece { kind: PieceKind::Literal(text.to_owned()), assistant }
    }

    fn content(message: usize, assistant: bool) -> Piece {
        Piece { kind: PieceKind::Content(message), assistant }
    }

    fn pieces() -> Vec<Piece> {
        vec![
            literal("<", false),
            content(0, false),
            literal(">", false),
            literal("[", true),
            content(1, true),
            literal("]", true),
        ]
    }

    fn assistant_by_layout(pieces: &[Piece], messages: &[Message], text: &str) -> Option<Vec<Range<usize>>> {
        by_layout(pieces, messages, text, MaskKind::Assistant)
    }

    fn messages(user: &str, assistant: &str) -> Vec<Message> {
        vec![Message::new(Role::User, user), Message::new(Role::Assistant, assistant)]
    }

    #[test]
    fn contents_that_look_like_the_template_do_not_mislead() {
        let spans = assistant_by_layout(&pieces(), &messages(">[x]", "]><[a]"), "<>[x]>[]><[a]]");
        assert_eq!(merged(spans.unwrap()).first(), Some(&(6..14)));
    }

    #[test]
    fn the_content_is_told_from_header_and_closing() {
        let spans = by_layout(&pieces(), &messages("u", " a b "), "<u>[a b]", MaskKind::Content);
        assert_eq!(merged(spans.unwrap()), [4..7]);
        let messages = messages("[a]", "a");
        assert_eq!(contents_in(vec![5..12], &messages, "<[a]>{a {a}}").unwrap(), [9..10]);
        assert!(contents_in(vec![5..8], &messages, "<[a]>{b}").unwrap_err().contains("--mask assistant"));
    }

    #[test]
    fn each_content_may_be_trimmed_or_not() {
        for (text, span) in [("<u >[ a\n]", 4..9), ("< u >[a]", 5..8), ("<u>[a\n]", 3..7), ("<>[a]", 2..5)] {
            let user = if text == "<>[a]" { " " } else { " u " };
            let spans = assistant_by_layout(&pieces(), &messages(user, " a\n"), text);
            assert_eq!(merged(spans.unwrap()), [span], "{text}");
        }
        assert_eq!(assistant_by_layout(&pieces(), &messages("u", "a"), "<u>[b]"), None);
        assert_eq!(assistant_by_layout(&pieces(), &messages("u", "a"), "<u>[a]]"), None);
    }

    #[test]
    fn a_long_dialogue_of_ambiguous_contents_is_matched_without_blowing_up() {
        // Every content is whitespace that may be kept or dropped, and the last literal never matches.
        let mut pieces: Vec<Piece> = (0..300).map(|message| content(message, true)).collect();
        pieces.push(literal("x", false));
        let messages: Vec<Message> = (0..300).map(|_| Message::new(Role::Assistant, " ")).collect();
        assert_eq!(assistant_by_layout(&pieces, &messages, &" ".repeat(150)), None);
    }
}
