//! Renders a dialogue with as few changes of its messages as the template needs.

use std::borrow::Cow;
use std::sync::Arc;

use crate::data::{ChatMessage, Role};

use super::layout::TemplateLayout;
use super::turns::{self, Renderer, TurnChanges};

/// The layout of a dialogue, or the reason why there is none.
pub(super) type Layout = Result<Arc<TemplateLayout>, String>;

/// A dialogue as the template renders it.
#[derive(Clone)]
pub(super) struct Rendered<'d> {
    pub(super) messages: Cow<'d, [ChatMessage]>,
    pub(super) text: String,
    pub(super) layout: Layout,
}

/// The rendered dialogue, and the messages with a text that the template leaves out.
type Attempt<'d> = Result<(Rendered<'d>, Vec<usize>), String>;

/// Renders `messages` as they are. If the template refuses them or leaves out a text, the first of these that it renders
/// completely: adjacent messages of one role joined; system messages folded into user messages; both.
///
/// # Errors
/// The template refuses the dialogue in every form, or leaves out a message other than a turn of user or assistant.
pub(super) fn arrange<'d>(
    renderer: Renderer<'_>,
    find_layout: &dyn Fn(&[ChatMessage]) -> Layout,
    messages: &'d [ChatMessage],
) -> Result<(Rendered<'d>, TurnChanges), String> {
    let attempt = |messages: Cow<'d, [ChatMessage]>| -> Attempt<'d> {
        let text = renderer.render(&messages).map_err(|error| error.to_string())?;
        let layout = find_layout(&messages);
        let omitted = layout.as_ref().map_or(Vec::new(), |layout| omitted(layout, &messages));
        Ok((Rendered { messages, text, layout }, omitted))
    };
    let plain = match attempt(Cow::Borrowed(messages)) {
        Ok((rendered, omitted)) if omitted.is_empty() => return Ok((rendered, TurnChanges::default())),
        plain => plain,
    };
    let joined = turns::joined(messages).map(|joined| (attempt(Cow::Owned(joined.clone())), joined));
    if let Some((Ok((rendered, omitted)), _)) = &joined
        && omitted.is_empty()
    {
        return Ok((rendered.clone(), JOINED));
    }
    if let Some(folded) = turns::fold_system(messages, &unusable_systems(messages, &plain))
        && let Ok((rendered, omitted)) = attempt(Cow::Owned(folded))
        && omitted.is_empty()
    {
        return Ok((rendered, folding(&plain)));
    }
    let (base, base_attempt) = match &joined {
        Some((attempt, joined)) => (joined.as_slice(), attempt),
        None => (messages, &plain),
    };
    if let Some(folded) = turns::fold_system(base, &unusable_systems(base, base_attempt))
        && let Ok((rendered, omitted)) = attempt(Cow::Owned(turns::joined(&folded).unwrap_or(folded)))
        && omitted.is_empty()
    {
        return Ok((rendered, folding(base_attempt).plus(JOINED)));
    }
    // No change helps. The first reason is about the user's own dialogue.
    let (rendered, omitted) = plain?;
    let is_turn = |message: &&usize| [Role::User, Role::Assistant].contains(messages[**message].role());
    match omitted.iter().find(|message| !is_turn(message)) {
        Some(message) if *messages[*message].role() == Role::System => {
            Err("the chat template omits the system message, \
                                                                            and no user message follows that could \
                                                                            include it"
                .to_owned())
        }
        Some(message) => Err(format!(
            "the chat template writes nothing for message {} of role `{}`; remove the message, or use a model whose \
             template has the role",
            message + 1,
            messages[*message].role(),
        )),
        None => Ok((rendered, TurnChanges::default())),
    }
}

const JOINED: TurnChanges = TurnChanges { joined: 1, refused_system: 0, omitted_system: 0 };

/// The change of a row whose system messages are folded because of `attempt`.
fn folding(attempt: &Attempt<'_>) -> TurnChanges {
    let refused = attempt.is_err();
    TurnChanges { joined: 0, refused_system: usize::from(refused), omitted_system: usize::from(!refused) }
}

/// The system messages that the template leaves out, or all if it refuses the dialogue.
fn unusable_systems(messages: &[ChatMessage], attempt: &Attempt<'_>) -> Vec<usize> {
    let mut systems = turns::systems(messages);
    if let Ok((_, omitted)) = attempt {
        systems.retain(|message| omitted.contains(message));
    }
    systems
}

/// The messages with a text that the template does not write and that a change of the dialogue could keep: those of
/// other roles than user and assistant, and those next to a message of their role.
fn omitted(layout: &TemplateLayout, messages: &[ChatMessage]) -> Vec<usize> {
    let is_omitted = |index: &usize| {
        let message = &messages[*index];
        let is_turn = [Role::User, Role::Assistant].contains(message.role());
        message.content().is_some_and(|content| !content.trim().is_empty())
            && !layout.writes(*index)
            && (!is_turn || turns::has_twin(messages, *index))
    };
    (0..messages.len()).filter(is_omitted).collect()
}
