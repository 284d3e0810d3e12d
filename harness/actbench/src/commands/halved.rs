//! The warning about halved batches.

use pairgate::stderr_line;

/// Warns on standard error if batches were halved; `origin` names the task or the command.
pub fn warn(origin: &str, halvings: u64) {
    if halvings > 0 {
        stderr_line!(
            "warning: {origin}: the device ran out of memory, and batches were halved {halvings} times; the features are the same. \
             A lower --batch-size avoids the failed attempts"
        );
    }
}
