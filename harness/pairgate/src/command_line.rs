//! The command line of `pairgate` and of its callers: durations with a unit, and errors of clap on one line, without the usage
//! text that it adds.

use std::time::Duration;

use clap::error::ErrorKind;

use crate::{console, stderr_line};

/// Parses a duration: seconds, or with a unit as in `90s`, `10m` and `2h`.
///
/// # Errors
/// It is not a number, has another unit, is not positive, or is too long.
pub fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit '{unit}': use s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be greater than 0 and less than 1.8e19 seconds".to_owned())
}

/// Prints an error of the parser with `tip`, or the help that clap reports as an error, and returns the exit status.
pub fn print_error(error: &clap::Error, tip: Option<&str>) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            console::keep_result(error.print(), error.use_stderr());
        }
        _ => {
            let tip = tip.map(|tip| format!("; tip: {tip}")).unwrap_or_default();
            stderr_line!("{}{tip}", one_line(&error.render().to_string()));
        }
    }
    u8::try_from(error.exit_code()).unwrap_or(2)
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
    fn duration_units_are_parsed() {
        assert_eq!(parse_duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("2h").unwrap(), Duration::from_secs(7200));
        for bad in ["", "0", "-1", "3 days", "1e400", "nan"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

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
