//! The text that a template writes around the messages of a dialogue, found by rendering markers in place of contents.
//!
//! For a sequence of roles the template is rendered with a unique marker as the content of each message. The text
//! between two markers is the end of one message and the header of the next. To separate them, the dialogue is also
//! rendered only up to the earlier message: the text after its last marker is the end of that message.
//!
//! ```text
//! all:     <s>[user]\nMARK0[end]\n[bot]\nMARK1[end]\n
//! up to 0: <s>[user]\nMARK0[end]\n
//!                          ^^^^^^ ends message 0, so the header of message 1 is "[bot]\n"
//! ```
//!
//! This module knows no model and no special token by name.

use crate::data::{ChatMessage, Role};

use super::template::ChatTemplate;
use super::turns;

/// Encloses the number of a message in its marker. Characters of a private use area of Unicode: no template writes
/// them, no case mapping changes them and no trimming removes them.
const MARKERS: [char; 2] = ['\u{f8f0}', '\u{f8f1}'];

/// A part of a rendered text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenderedPiece {
    pub(super) kind: PieceKind,
    /// Whether the piece belongs to an assistant message.
    pub(super) assistant: bool,
}

impl RenderedPiece {
    /// The text of a literal; empty for a content.
    pub(super) fn literal(&self) -> &str {
        match &self.kind {
            PieceKind::Literal(text) => text,
            PieceKind::Content(_) => "",
        }
    }
}

/// The kind of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Written by the template.
    Literal(String),
    /// The content of the message with this number, possibly trimmed.
    Content(usize),
}

/// The structure of a rendered dialogue, for one sequence of roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TemplateLayout {
    /// System messages that [`turns::fold_system`] must fold into user messages first.
    pub(super) folded: Vec<usize>,
    /// Roles after folding.
    pub(super) roles: Vec<Role>,
    /// The rendered text in order, with message numbers after folding.
    pub(super) pieces: Vec<RenderedPiece>,
}

/// Encodes a text to pairs of token id and end byte.
pub(super) type TokenizeText<'a> = &'a dyn Fn(&str) -> Result<Vec<(u32, usize)>, String>;

impl TemplateLayout {
    /// The layout of dialogues with the roles `roles`; adjacent roles differ.
    ///
    /// System messages that the template rejects or omits are folded into user messages.
    ///
    /// # Errors
    /// The template rejects the roles with and without folding, or does not show where assistant messages are.
    pub(super) fn find(template: &ChatTemplate, tokenize: TokenizeText<'_>, roles: &[Role]) -> Result<Self, String> {
        let is_system = |message: &usize| roles[*message] == Role::System;
        let all_systems: Vec<usize> = (0..roles.len()).filter(is_system).collect();
        match template.render(&with_markers(roles)) {
            Ok(text) => {
                let pieces = parse(&text);
                let omitted: Vec<usize> =
                    all_systems.into_iter().filter(|message| !contains_message(&pieces, *message)).collect();
                if omitted.is_empty() {
                    return Self::with_folded(template, tokenize, Vec::new(), roles.to_vec());
                }
                Self::folding(template, tokenize, omitted, roles).unwrap_or_else(|| {
                    Err("the chat template omits the system message, and no user message follows that could include it"
                        .to_owned())
                })
            }
            Err(refusal) if all_systems.is_empty() => Err(refusal.to_string()),
            // If folding does not help, report the first error: it is about the user's own dialogue.
            Err(refusal) => match Self::folding(template, tokenize, all_systems, roles) {
                Some(Ok(layout)) => Ok(layout),
                _ => Err(refusal.to_string()),
            },
        }
    }

    /// The text that the template writes after the content of `message` if the dialogue ends there.
    pub(super) fn end_alone(&self, template: &ChatTemplate, message: usize) -> Option<String> {
        let text = template.render(&with_markers(self.roles.get(..=message)?)).ok()?;
        match parse(&text).as_slice() {
            [.., RenderedPiece { kind: PieceKind::Content(last), .. }, end] if *last == message => {
                Some(end.literal().to_owned())
            }
            _ => None,
        }
    }

    fn folding(
        template: &ChatTemplate,
        tokenize: TokenizeText<'_>,
        folded: Vec<usize>,
        roles: &[Role],
    ) -> Option<Result<Self, String>> {
        let left = turns::fold_system(&with_markers(roles), &folded)?;
        Some(Self::with_folded(template, tokenize, folded, left.iter().map(|message| message.role().clone()).collect()))
    }

    fn with_folded(
        template: &ChatTemplate,
        tokenize: TokenizeText<'_>,
        folded: Vec<usize>,
        roles: Vec<Role>,
    ) -> Result<Self, String> {
        let finder = LayoutFinder { template, tokenize, messages: with_markers(&roles) };
        let mut pieces = parse(&finder.prefix(roles.len())?);
        for message in (0..roles.len()).filter(|message| roles[*message] == Role::Assistant) {
            finder
                .assign_to_assistant(&mut pieces, message)
                .map_err(|why| format!("the chat template does not show where assistant messages are: {why}"))?;
        }
        Ok(TemplateLayout { folded, roles, pieces })
    }
}

/// Finds the ends of messages in one dialogue of markers.
struct LayoutFinder<'a> {
    template: &'a ChatTemplate,
    tokenize: TokenizeText<'a>,
    messages: Vec<ChatMessage>,
}

impl LayoutFinder<'_> {
    fn prefix(&self, n_messages: usize) -> Result<String, String> {
        self.template.render(&self.messages[..n_messages]).map_err(|error| error.to_string())
    }

    /// Marks the pieces of an assistant message and splits the literals around its content.
    fn assign_to_assistant(&self, pieces: &mut Vec<RenderedPiece>, message: usize) -> Result<(), String> {
        let mut indices = (0..pieces.len()).filter(|index| pieces[*index].kind == PieceKind::Content(message));
        let (Some(index), None) = (indices.next(), indices.next()) else {
            return Err(format!("it does not write message {} exactly once", message + 1));
        };
        pieces[index].assistant = true;

        let is_last = index + 2 == pieces.len() && message + 1 == self.messages.len();
        let after = pieces[index + 1].literal();
        let end = if is_last { after.len() } else { self.end_of_prefix(after, message + 1, message)? };
        split(pieces, index + 1, end, SplitSide::Before);

        let before = pieces[index - 1].literal();
        let start = match index.checked_sub(2).map(|left| &pieces[left].kind) {
            None => self.end_of_preamble(before),
            // The assistant message on the left has split this literal; the second half is the header.
            Some(PieceKind::Literal(_)) => 0,
            Some(PieceKind::Content(left)) => self.end_of_prefix(before, message, *left)?,
        };
        split(pieces, index - 1, start, SplitSide::After);
        Ok(())
    }

    /// The byte of `text`, the literal after message `last`, at which the first `n_messages` messages end.
    fn end_of_prefix(&self, text: &str, n_messages: usize, last: usize) -> Result<usize, String> {
        let alone = parse(&self.prefix(n_messages)?);
        let end = match alone.as_slice() {
            [.., RenderedPiece { kind: PieceKind::Content(message), .. }, end] if *message == last => end.literal(),
            _ => return Err(format!("it moves message {} if another message follows", last + 1)),
        };
        // A template that also closes the dialogue writes more than the end of the message. The common leading tokens
        // are the end of the message.
        let end = if text.starts_with(end) { end.len() } else { self.common_tokens(end, text)? };
        // Whitespace between messages belongs to the earlier one, like the line break of ChatML.
        let rest = &text[end..];
        let next = rest.trim_start();
        Ok(if next.is_empty() { end } else { end + (rest.len() - next.len()) })
    }

    /// The number of bytes of `text` in the leading tokens that both texts share.
    fn common_tokens(&self, other: &str, text: &str) -> Result<usize, String> {
        let (other, tokens) = ((self.tokenize)(other)?, (self.tokenize)(text)?);
        let common = other.iter().zip(&tokens).take_while(|(a, b)| a.0 == b.0);
        let end = common.last().map_or(0, |(_, (_, end))| *end);
        Ok(if text.is_char_boundary(end) { end } else { 0 })
    }

    /// The byte of `text`, the literal before a leading assistant message, at which the header of that message
    /// begins. The header can follow a beginning-of-text token or a default system message of the template.
    fn end_of_preamble(&self, text: &str) -> usize {
        // The header that the message would have after a question.
        let mut messages = vec![ChatMessage::new(Role::User, marker(self.messages.len()))];
        messages.extend_from_slice(&self.messages);
        let asked = LayoutFinder { template: self.template, tokenize: self.tokenize, messages };
        let header = asked.prefix(asked.messages.len()).ok().and_then(|whole| match parse(&whole).as_slice() {
            [_, RenderedPiece { kind: PieceKind::Content(question), .. }, between, ..] => {
                let between = between.literal();
                let end = asked.end_of_prefix(between, 1, *question).ok()?;
                Some(between[end..].to_owned())
            }
            _ => None,
        });
        match header {
            Some(header) if text.ends_with(&header) => text.len() - header.len(),
            _ => self.template.bos().filter(|bos| text.starts_with(bos)).map_or(0, str::len),
        }
    }
}

fn marker(message: usize) -> String {
    format!("{}{message}{}", MARKERS[0], MARKERS[1])
}

/// Messages of `roles` with markers as contents.
fn with_markers(roles: &[Role]) -> Vec<ChatMessage> {
    roles.iter().enumerate().map(|(message, role)| ChatMessage::new(role.clone(), marker(message))).collect()
}

/// Splits a rendered text at its markers. There is one literal, possibly empty, before and after each content.
fn parse(text: &str) -> Vec<RenderedPiece> {
    let literal = |text: &str| RenderedPiece { kind: PieceKind::Literal(text.to_owned()), assistant: false };
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut searched = 0;
    while let Some(start) = rest[searched..].find(MARKERS[0]).map(|start| start + searched) {
        let inner = &rest[start + MARKERS[0].len_utf8()..];
        let number = inner.split_once(MARKERS[1]).and_then(|(number, after)| Some((number.parse().ok()?, after)));
        let Some((message, after)) = number else {
            searched = start + MARKERS[0].len_utf8();
            continue;
        };
        pieces.push(literal(&rest[..start]));
        pieces.push(RenderedPiece { kind: PieceKind::Content(message), assistant: false });
        rest = after;
        searched = 0;
    }
    pieces.push(literal(rest));
    pieces
}

fn contains_message(pieces: &[RenderedPiece], message: usize) -> bool {
    pieces.iter().any(|piece| piece.kind == PieceKind::Content(message))
}

#[derive(Clone, Copy, PartialEq)]
enum SplitSide {
    Before,
    After,
}

/// Splits the literal `pieces[index]` at byte `offset` and assigns one side to the assistant.
fn split(pieces: &mut Vec<RenderedPiece>, index: usize, offset: usize, side: SplitSide) {
    let (before, after) = pieces[index].literal().split_at(offset);
    let halves = [(before, side == SplitSide::Before), (after, side == SplitSide::After)]
        .map(|(text, assistant)| RenderedPiece { kind: PieceKind::Literal(text.to_owned()), assistant });
    pieces.splice(index..=index, halves);
}
