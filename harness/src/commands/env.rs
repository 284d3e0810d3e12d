//! `actbench env`: what a result file would say of this machine and this build.

use clap::Args;

use crate::error::{Error, Result};
use crate::measure::environment::Environment;

/// Show what a result file would say of this machine and this build.
#[derive(Args, Clone, Debug)]
pub struct EnvArgs {}

/// Runs the command.
///
/// # Errors
/// Never on a system that can print.
pub fn env(_args: &EnvArgs) -> Result<()> {
    let text = serde_json::to_string_pretty(&Environment::read()).map_err(|error| Error::usage(error.to_string()))?;
    println!("{text}");
    Ok(())
}
