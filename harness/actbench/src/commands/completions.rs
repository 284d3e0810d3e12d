//! `actbench completions`: shell completions of commands and flags.

use clap::{Args, Command};
use clap_complete::Shell;

use super::stdout;
use crate::error::Result;

/// Print shell completions.
///
/// Redirect them to a file in the directory where the shell looks for completions.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  \
    actbench completions bash > ~/.local/share/bash-completion/completions/actbench\n  \
    actbench completions zsh > ~/.zfunc/_actbench\n  \
    actbench completions fish > ~/.config/fish/completions/actbench.fish")]
pub struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints the completions of `command`, the whole command line.
///
/// # Errors
/// None: a closed pipe is not an error.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "actbench", &mut text);
    stdout::text(String::from_utf8_lossy(&text));
    Ok(())
}
