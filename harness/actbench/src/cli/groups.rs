//! The list of subcommands in `actbench --help`, by group: clap has headings for flags only.

use std::fmt::Write as _;

use clap::Command;
use clap::builder::Styles;

/// Headings, each with its subcommands in the order in which they are listed.
const GROUPS: [(&str, &[&str]); 3] = [
    ("Measure", &["run", "plan", "explain", "profile", "recommend", "report"]),
    ("Compare", &["gate", "selftest", "compare", "history"]),
    (
        "Tools",
        &[
            "check",
            "env",
            "cache",
            "features",
            "import",
            "models",
            "datasets",
            "completions",
            "matrix",
            "merge",
            "help",
        ],
    ),
];

/// The description of clap's own subcommand, which it adds only when it parses.
const HELP: (&str, &str) = ("help", "Print this help, or that of a command");

/// The column at which descriptions start, and the width at which they wrap, which is clap's.
const DESCRIPTION_COLUMN: usize = 15;
const WIDTH: usize = 100;

/// The template of the help of `command`: clap's own, with the groups in the place of its list of subcommands.
pub fn help_template(command: &Command) -> String {
    let styles = command.get_styles();
    let options = heading("Options", styles);
    format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{options}\n{{options}}{{after-help}}",
        grouped(command, styles)
    )
}

/// Every group with its heading and an empty line behind it.
fn grouped(command: &Command, styles: &Styles) -> String {
    let mut text = String::new();
    let literal = styles.get_literal();
    for (name, members) in GROUPS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", heading(name, styles));
        for member in members {
            let padding = " ".repeat(DESCRIPTION_COLUMN - 2 - member.len());
            let description = wrapped(&description(command, member));
            let _ = writeln!(text, "  {literal}{member}{literal:#}{padding}{description}");
        }
        text.push('\n');
    }
    text
}

fn heading(name: &str, styles: &Styles) -> String {
    let header = styles.get_header();
    format!("{header}{name}:{header:#}")
}

/// The one-line description of a subcommand.
fn description(command: &Command, name: &str) -> String {
    let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
    let text = about.unwrap_or_else(|| if name == HELP.0 { HELP.1.to_owned() } else { String::new() });
    // A brace would be a tag of the template.
    text.replace(['{', '}'], "")
}

/// `text` broken between words, further lines indented to its column.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let is_full = lines.last().is_some_and(|line| DESCRIPTION_COLUMN + line.len() + 1 + word.len() > WIDTH);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{}", " ".repeat(DESCRIPTION_COLUMN)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn every_visible_subcommand_is_in_one_group() {
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for member in GROUPS.iter().flat_map(|(_, members)| *members).filter(|member| **member != HELP.0) {
            *groups.entry(member).or_default() += 1;
        }
        let command = Cli::command();
        let visible: BTreeMap<&str, usize> =
            command.get_subcommands().filter(|it| !it.is_hide_set()).map(|it| (it.get_name(), 1)).collect();
        assert_eq!(groups, visible);
        assert!(visible.keys().all(|name| !description(&command, name).is_empty()));
    }

    #[test]
    fn long_description_wraps_into_its_column() {
        let text = wrapped(&"word ".repeat(30));
        assert!(text.lines().count() == 2 && text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.contains(&format!("word\n{}word", " ".repeat(DESCRIPTION_COLUMN))), "{text}");
    }
}
