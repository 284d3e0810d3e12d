//! `actbench completions`: what a shell needs to complete commands and flags.

use clap::Args;
use clap_complete::Shell;

use super::stdout;
use crate::error::Result;

/// Print completions for a shell, to be put where the shell looks for them.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  \
    actbench completions bash > ~/.local/share/bash-completion/completions/actbench\n  \
    actbench completions zsh > ~/.zfunc/_actbench\n  \
    actbench completions fish > ~/.config/fish/completions/actbench.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// Never on a system that can print.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::command(), "actbench", &mut text);
    stdout::text(String::from_utf8_lossy(&text));
    Ok(())
}
