//! Bad usage in one line: what the parser found wrong, without the usage text and the pointer to it.

use std::process::ExitCode;

use clap::error::ErrorKind;

/// Prints what the parser has to say, which is help as well as errors, and gives the exit status.
pub fn tell(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A closed pipe, as of `| head`, is no failure.
            let _ = error.print();
        }
        _ => eprintln!("{}", one_line(&error.render().to_string())),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The lines of `text` up to the usage, joined.
pub fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let told = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let mut joined = String::new();
    for line in told.filter(|line| !line.is_empty()) {
        if !joined.is_empty() {
            let continues = joined.ends_with(':') || line.starts_with('[');
            joined.push_str(if continues { " " } else { "; " });
        }
        joined.push_str(line);
    }
    PLAIN_WORDS.iter().fold(joined, |text, (technical, plain)| text.replace(technical, plain))
}

/// What the standard library says of numbers, and the same for people who do not program in Rust.
const PLAIN_WORDS: [(&str, &str); 4] = [
    ("invalid digit found in string", "give a whole number from 0 on"),
    ("invalid float literal", "give a number"),
    ("number too large to fit in target type", "give a smaller number"),
    ("cannot parse integer from empty string", "give a whole number from 0 on"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_become_one_and_the_usage_goes() {
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
