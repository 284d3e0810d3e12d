//! The defaults of `RunConfig` as text, for flags whose values clap cannot print itself. Each text parses as its flag's value.

use std::fmt::Display;
use std::sync::LazyLock;

use crate::case::RunConfig;

/// Default of `--tasks`.
pub(super) static TASKS: LazyLock<String> = LazyLock::new(|| joined(&RunConfig::default().tasks));
/// Default of `--methods`.
pub(super) static METHODS: LazyLock<String> = LazyLock::new(|| joined(&RunConfig::default().methods));
/// Default of `--sweep-cs`; with decimals, as the values are not integers.
pub(super) static SWEEP_CS: LazyLock<String> = LazyLock::new(|| {
    let values = RunConfig::default().sweep_cs;
    joined(&values.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>())
});

fn joined<T: Display>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::run::RunArgs;

    #[derive(Parser)]
    struct RunCommand {
        #[command(flatten)]
        args: RunArgs,
    }

    #[test]
    fn flags_default_to_run_config() {
        let args = RunCommand::try_parse_from(["run"]).unwrap().args;
        assert_eq!(args.config(), RunConfig::default());
    }

    #[test]
    fn default_texts_are_command_line_values() {
        assert_eq!([TASKS.as_str(), METHODS.as_str()], ["train,sweep", "eager,lazy"]);
        assert_eq!(SWEEP_CS.as_str(), "0.1,1.0,10.0");
    }
}
