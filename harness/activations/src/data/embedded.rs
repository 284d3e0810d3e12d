//! The embedded data set: the generator of `actbench-fixtures` under its command-line names.

use actbench_fixtures::dialogues::{DialogueProfile, LabeledDialogue, MAX_ROWS, Speaker, dialogue};
use rayon::prelude::*;

use crate::error::{Error, Result};

use super::dialogue::{ChatMessage, Dialogue, Role};
use super::registered::EMBEDDED;

/// Constant, because `--seed` controls only which rows are drawn and how they are split. The data set is the same in
/// every run.
const GENERATOR_SEED: u64 = 0;

/// The rows that the generator has.
pub(super) const ROWS: usize = MAX_ROWS;

/// Both classes need one row each.
const MIN_ROWS: usize = 2;

/// `rows` dialogues of the profile in `name`, and a description of their origin.
///
/// # Errors
/// An unknown profile.
pub(super) fn load(name: &str, rows: usize) -> Result<(Vec<Dialogue>, String)> {
    let profile = match name.split_once(':') {
        None => DialogueProfile::Short,
        Some((_, profile)) => DialogueProfile::from_name(profile).ok_or_else(|| {
            let known: Vec<_> =
                DialogueProfile::ALL.iter().map(|profile| format!("{EMBEDDED}:{}", profile.name())).collect();
            Error::usage(format!("unknown data set `{name}`; the embedded ones are {}", known.join(", ")))
        })?,
    };
    let rows = rows.clamp(MIN_ROWS, ROWS);
    let dialogues = (0..rows).into_par_iter().map(|index| convert(dialogue(GENERATOR_SEED, profile, index))).collect();
    Ok((dialogues, format!("{EMBEDDED}:{} (generator seed {GENERATOR_SEED}, {rows} rows)", profile.name())))
}

fn convert(row: LabeledDialogue) -> Dialogue {
    let messages = row.turns.into_iter().map(|turn| {
        let role = match turn.speaker {
            Speaker::System => Role::System,
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
        };
        ChatMessage::new(role, turn.text)
    });
    Dialogue::new(messages.collect(), row.hedged)
}
