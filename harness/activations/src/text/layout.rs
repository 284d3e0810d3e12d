//! What a template writes around the messages of a dialogue, found by rendering marks in place of the contents.
//!
//! For a sequence of roles the template is rendered with a unique mark as the content of each message. Between the marks
//! is what the template adds: the end of one message and the header of the next. Where one ends and the other begins
//! is seen by rendering the dialogue only up to there: the text after its last mark is the end of that message.
//!
//! ```text
//! whole:   <s>[user]\nMARK0[end]\n[bot]\nMARK1[end]\n
//! up to 0: <s>[user]\nMARK0[end]\n
//!                          ^^^^^^ ends message 0, so the header of message 1 is "[bot]\n"
//! ```
//!
//! Nothing here knows a model or the name of a special token.

use crate::data::{Message, Role};

use super::template::ChatTemplate;
use super::turns;

/// Encloses the number of a message in its mark. From a private area of Unicode, so that no template writes it, no case
/// mapping changes it and no trimming removes it.
const MARK: [char; 2] = ['\u{f8f0}', '\u{f8f1}'];

/// A piece of rendered text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: PieceKind,
    /// Whether it belongs to an assistant message.
    pub(super) assistant: bool,
}

impl Piece {
    /// The text of a literal; nothing of a content.
    pub(super) fn literal(&self) -> &str {
        match &self.kind {
            PieceKind::Literal(text) => text,
            PieceKind::Content(_) => "",
        }
    }
}

/// What a piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Written by the template.
    Literal(String),
    /// The content of the message of that number, perhaps trimmed.
    Content(usize),
}

/// How a template renders dialogues with one sequence of roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// System messages that must be folded away first, as [`turns::fold_system`] does.
    pub(super) folded: Vec<usize>,
    /// Roles after folding.
    pub(super) roles: Vec<Role>,
    /// The rendered text in order; message numbers are those after folding.
    pub(super) pieces: Vec<Piece>,
}

/// Encodes a text: the id of each token and the byte at which it ends.
pub(super) type Tokenise<'a> = &'a dyn Fn(&str) -> Result<Vec<(u32, usize)>, String>;

impl Layout {
    /// The layout for dialogues with the roles `roles`, of which no two neighbours are the same.
    ///
    /// System messages that the template refuses, or of which it renders nothing, are folded.
    ///
    /// # Errors
    /// The template refuses the roles however they are arranged, or does not show where assistant messages are.
    pub(super) fn find(template: &ChatTemplate, tokenise: Tokenise<'_>, roles: &[Role]) -> Result<Self, String> {
        let is_system = |message: &usize| roles[*message] == Role::System;
        let all_systems: Vec<usize> = (0..roles.len()).filter(is_system).collect();
        match template.render(&marked(roles)) {
            Ok(text) => {
                let pieces = parse(&text);
                let lost: Vec<usize> = all_systems.into_iter().filter(|message| !shows(&pieces, *message)).collect();
                match lost.is_empty() {
                    true => Self::with_folded(template, tokenise, Vec::new(), roles.to_vec()),
                    false => Self::folding(template, tokenise, lost, roles)
                        .unwrap_or_else(|| Err("the chat template leaves the system message out, and no user message follows to put it into".to_owned())),
                }
            }
            Err(refusal) if all_systems.is_empty() => Err(refusal.to_string()),
            // The first refusal is about the dialogue as it is, so it is the one to show when folding does not help.
            Err(refusal) => match Self::folding(template, tokenise, all_systems, roles) {
                Some(Ok(layout)) => Ok(layout),
                _ => Err(refusal.to_string()),
            },
        }
    }

    /// What the template writes after the content of `message` when the dialogue ends with it.
    pub(super) fn end_alone(&self, template: &ChatTemplate, message: usize) -> Option<String> {
        let text = template.render(&marked(self.roles.get(..=message)?)).ok()?;
        match parse(&text).as_slice() {
            [.., Piece { kind: PieceKind::Content(last), .. }, end] if *last == message => {
                Some(end.literal().to_owned())
            }
            _ => None,
        }
    }

    fn folding(
        template: &ChatTemplate,
        tokenise: Tokenise<'_>,
        folded: Vec<usize>,
        roles: &[Role],
    ) -> Option<Result<Self, String>> {
        let left = turns::fold_system(&marked(roles), &folded)?;
        Some(Self::with_folded(template, tokenise, folded, left.iter().map(|message| message.role).collect()))
    }

    fn with_folded(
        template: &ChatTemplate,
        tokenise: Tokenise<'_>,
        folded: Vec<usize>,
        roles: Vec<Role>,
    ) -> Result<Self, String> {
        let finder = Finder { template, tokenise, messages: marked(&roles) };
        let mut pieces = parse(&finder.prefix(roles.len())?);
        for message in (0..roles.len()).filter(|message| roles[*message] == Role::Assistant) {
            finder
                .claim(&mut pieces, message)
                .map_err(|why| format!("the chat template does not show where assistant messages are: {why}"))?;
        }
        Ok(Layout { folded, roles, pieces })
    }
}

/// The ends of the pieces of one dialogue of marks.
struct Finder<'a> {
    template: &'a ChatTemplate,
    tokenise: Tokenise<'a>,
    messages: Vec<Message>,
}

impl Finder<'_> {
    fn prefix(&self, n_messages: usize) -> Result<String, String> {
        self.template.render(&self.messages[..n_messages]).map_err(|error| error.to_string())
    }

    /// Marks the pieces of an assistant message as such, splitting the literals around its content.
    fn claim(&self, pieces: &mut Vec<Piece>, message: usize) -> Result<(), String> {
        let mut places = (0..pieces.len()).filter(|place| pieces[*place].kind == PieceKind::Content(message));
        let (Some(place), None) = (places.next(), places.next()) else {
            return Err(format!("it does not write message {} exactly once", message + 1));
        };
        pieces[place].assistant = true;

        let is_last = place + 2 == pieces.len() && message + 1 == self.messages.len();
        let after = pieces[place + 1].literal();
        let end = if is_last { after.len() } else { self.end_of_prefix(after, message + 1, message)? };
        split(pieces, place + 1, end, Side::Before);

        let before = pieces[place - 1].literal();
        let start = match place.checked_sub(2).map(|left| &pieces[left].kind) {
            None => self.end_of_preamble(before),
            // Split already, by the assistant message on its left; this half is the header's.
            Some(PieceKind::Literal(_)) => 0,
            Some(PieceKind::Content(left)) => self.end_of_prefix(before, message, *left)?,
        };
        split(pieces, place - 1, start, Side::After);
        Ok(())
    }

    /// Where in `text`, which follows message `last`, the first `n_messages` messages end and the next begins.
    fn end_of_prefix(&self, text: &str, n_messages: usize, last: usize) -> Result<usize, String> {
        let alone = parse(&self.prefix(n_messages)?);
        let end = match alone.as_slice() {
            [.., Piece { kind: PieceKind::Content(message), .. }, end] if *message == last => end.literal(),
            _ => return Err(format!("it moves message {} when the dialogue goes on", last + 1)),
        };
        // A template that closes the whole dialogue as well has more there than the message's own end; the tokens that
        // both have in common are that end.
        let end = if text.starts_with(end) { end.len() } else { self.common_tokens(end, text)? };
        // Whitespace that only separates messages closes the earlier one, as the line break of ChatML does.
        let rest = &text[end..];
        let next = rest.trim_start();
        Ok(if next.is_empty() { end } else { end + (rest.len() - next.len()) })
    }

    /// Length in `text` of the tokens with which both texts begin.
    fn common_tokens(&self, other: &str, text: &str) -> Result<usize, String> {
        let (other, tokens) = ((self.tokenise)(other)?, (self.tokenise)(text)?);
        let common = other.iter().zip(&tokens).take_while(|(a, b)| a.0 == b.0);
        let end = common.last().map_or(0, |(_, (_, end))| *end);
        Ok(if text.is_char_boundary(end) { end } else { 0 })
    }

    /// Where in `text`, which comes before an assistant message at the beginning, the header of that message begins.
    /// Before it can be a beginning-of-text token or a system message of the template's own.
    fn end_of_preamble(&self, text: &str) -> usize {
        // What its header would be after a question.
        let mut messages = vec![Message::new(Role::User, mark(self.messages.len()))];
        messages.extend_from_slice(&self.messages);
        let asked = Finder { template: self.template, tokenise: self.tokenise, messages };
        let header = asked.prefix(asked.messages.len()).ok().and_then(|whole| match parse(&whole).as_slice() {
            [_, Piece { kind: PieceKind::Content(question), .. }, between, ..] => {
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

fn mark(message: usize) -> String {
    format!("{}{message}{}", MARK[0], MARK[1])
}

/// Messages of these roles with marks for contents.
fn marked(roles: &[Role]) -> Vec<Message> {
    roles.iter().enumerate().map(|(message, role)| Message::new(*role, mark(message))).collect()
}

/// Splits a rendered text at its marks. Literals may be empty; there is one before and one after each content.
fn parse(text: &str) -> Vec<Piece> {
    let literal = |text: &str| Piece { kind: PieceKind::Literal(text.to_owned()), assistant: false };
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut searched = 0;
    while let Some(start) = rest[searched..].find(MARK[0]).map(|start| start + searched) {
        let inner = &rest[start + MARK[0].len_utf8()..];
        let number = inner.split_once(MARK[1]).and_then(|(number, after)| Some((number.parse().ok()?, after)));
        let Some((message, after)) = number else {
            searched = start + MARK[0].len_utf8();
            continue;
        };
        pieces.push(literal(&rest[..start]));
        pieces.push(Piece { kind: PieceKind::Content(message), assistant: false });
        rest = after;
        searched = 0;
    }
    pieces.push(literal(rest));
    pieces
}

fn shows(pieces: &[Piece], message: usize) -> bool {
    pieces.iter().any(|piece| piece.kind == PieceKind::Content(message))
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Before,
    After,
}

/// Splits the literal at `place` at the byte `at` and gives one side to the assistant.
fn split(pieces: &mut Vec<Piece>, place: usize, at: usize, side: Side) {
    let (before, after) = pieces[place].literal().split_at(at);
    let halves = [(before, side == Side::Before), (after, side == Side::After)]
        .map(|(text, assistant)| Piece { kind: PieceKind::Literal(text.to_owned()), assistant });
    pieces.splice(place..=place, halves);
}
