//! Errors of the command line parser on one line, without the usage text that clap adds.

use std::process::ExitCode;

use clap::error::ErrorKind;
use pairgate::{console, stderr_line};

/// Prints an error of the parser with `tip`, or the help that clap reports as an error, and returns the exit status.
pub fn print(error: &clap::Error, tip: Option<&str>) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            console::keep_result(error.print(), error.use_stderr());
        }
        _ => {
            let tip = tip.map(|tip| format!("; tip: {tip}")).unwrap_or_default();
            stderr_line!("{}{tip}", one_line(&error.render().to_string()));
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The lines of `text` up to the usage, joined.
pub fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let message = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let mut joined = String::new();
    for line in message.filter(|line| !line.is_empty()) {
        if !joined.is_empty() {
            let continues = joined.ends_with(':') || line.starts_with('[');
            joined.push_str(if continues { " " } else { "; " });
        }
        joined.push_str(line);
    }
    PLAIN_MESSAGES.iter().fold(joined, |text, (technical, plain)| text.replace(technical, plain))
}

/// Messages of the standard library about numbers, and their replacements for users who do not program in Rust.
const PLAIN_MESSAGES: [(&str, &str); 4] = [
    ("invalid digit found in string", "give a whole number from 0 on"),
    ("invalid float literal", "give a number"),
    ("number too large to fit in target type", "give a smaller number"),
    ("cannot parse integer from empty string", "give a whole number from 0 on"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multi_line_error_becomes_one_line_without_usage() {
        let text = "error: invalid value 'x' for '--task <TASK>'\n  [possible values: train, sweep]\n\n\
                    For more information, try '--help'.\n";
        assert_eq!(one_line(text), "error: invalid value 'x' for '--task <TASK>' [possible values: train, sweep]");
        let text = "error: the following required arguments were not provided:\n  --out <DIR>\n\nUsage: actbench\n";
        assert_eq!(one_line(text), "error: the following required arguments were not provided: --out <DIR>");
        let text = "error: unexpected argument '--sampels' found\n\n  tip: a similar argument exists: '--samples'\n";
        assert_eq!(
            one_line(text),
            "error: unexpected argument '--sampels' found; tip: a similar argument exists: '--samples'"
        );
    }
}
