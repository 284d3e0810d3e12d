//! A suggestion for a mistyped subcommand. clap suggests by a similarity that is low for short words: none for `rnu`.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::visible_command;

/// The tip for an error about an unknown subcommand to which clap added none.
pub fn tip(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand || error.get(ContextKind::SuggestedSubcommand).is_some() {
        return None;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let known = visible_command();
    let nearest = nearest(typed, known.get_subcommands().map(clap::Command::get_name))?;
    Some(format!("a similar subcommand exists: '{nearest}'"))
}

/// The name that differs from `typed` in the fewest edits, if these are at most a third of its letters.
fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let with_distance = names.map(|name| (distance(typed, name), name));
    let (distance, name) = with_distance.min_by_key(|(distance, _)| *distance)?;
    (distance <= name.len().div_ceil(3)).then_some(name)
}

/// Insertions, deletions, changes and swaps of neighbors that turn one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let change = usize::from(from[i - 1] != to[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_and_swaps_are_counted() {
        for (from, to, expected) in
            [("run", "run", 0), ("rnu", "run", 1), ("", "run", 3), ("paln", "plan", 1), ("rnu", "gate", 4)]
        {
            assert_eq!(distance(from, to), expected, "{from} {to}");
            assert_eq!(distance(to, from), expected, "{to} {from}");
        }
    }

    #[test]
    fn nearest_name_is_suggested_and_a_distant_one_is_not() {
        let names = ["run", "plan", "explain", "features"];
        for (typed, expected) in
            [("rnu", Some("run")), ("paln", Some("plan")), ("fetures", Some("features")), ("xyz", None), ("", None)]
        {
            assert_eq!(nearest(typed, names.into_iter()), expected, "{typed}");
        }
    }
}
