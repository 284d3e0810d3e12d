//! The flag `--shard` of commands that do a part of a job.

use crate::error::Result;
use crate::shard::{Shard, ShardFlag, process_variable};
use pairgate::stderr_line;

/// The shard of `flag`. Unless `quiet`, a line on standard error says which launcher's variables it comes from, if it does.
///
/// # Errors
/// As of [`ShardFlag::resolve`].
pub fn resolved(flag: ShardFlag, quiet: bool) -> Result<Shard> {
    let (shard, source) = flag.resolve(&process_variable)?;
    if let Some(source) = source.filter(|_| !quiet) {
        stderr_line!("note: {source}");
    }
    Ok(shard)
}
