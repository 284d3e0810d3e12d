//! The embedded data set: the generator of `actbench-fixtures` under its command-line names.

use actbench_fixtures::dialogues::{LabelledDialogue, MAX_ROWS, Profile, Speaker, dialogue};
use rayon::prelude::*;

use crate::error::{Error, Result};

use super::dialogue::{Dialogue, Message, Role};

/// The name of the embedded data set, the default of `--dataset`; `embedded:PROFILE` chooses the length of its rows.
pub const EMBEDDED: &str = "embedded";

/// `--seed` is for drawing and splitting rows. The data set itself is one and the same in every run.
const GENERATOR_SEED: u64 = 0;

/// Fewer rows than this cannot hold both classes.
const FEWEST_ROWS: usize = 2;

/// `rows` dialogues of the profile that `name` asks for, and where they are from.
///
/// # Errors
/// A profile that does not exist.
pub(super) fn load(name: &str, rows: usize) -> Result<(Vec<Dialogue>, String)> {
    let profile = match name.split_once(':') {
        None => Profile::Short,
        Some((_, profile)) => Profile::from_name(profile).ok_or_else(|| {
            let known: Vec<_> = Profile::ALL.iter().map(|profile| format!("{EMBEDDED}:{}", profile.name())).collect();
            Error::usage(format!("no data set is called `{name}`; the embedded ones are {}", known.join(", ")))
        })?,
    };
    let rows = rows.clamp(FEWEST_ROWS, MAX_ROWS);
    let dialogues = (0..rows).into_par_iter().map(|index| convert(dialogue(GENERATOR_SEED, profile, index))).collect();
    Ok((dialogues, format!("{EMBEDDED}:{} (generator seed {GENERATOR_SEED}, {rows} rows)", profile.name())))
}

fn convert(row: LabelledDialogue) -> Dialogue {
    let messages = row.turns.into_iter().map(|turn| {
        let role = match turn.speaker {
            Speaker::System => Role::System,
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
        };
        Message::new(role, turn.text)
    });
    Dialogue { messages: messages.collect(), label: row.hedged }
}
