//! The warning about halved batches.

/// Warns on standard error if batches were halved; `origin` names the task or the command.
pub fn warn(origin: &str, halvings: u64) {
    if halvings > 0 {
        eprintln!(
            "warning: {origin}: the device ran out of memory, and batches were halved {halvings} times; the features are the same. \
             A lower --batch-size avoids the failed attempts"
        );
    }
}
