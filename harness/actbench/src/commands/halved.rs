//! What is said where batches had to be halved.

/// Says on standard error that batches of `what` were halved, if they were.
pub fn tell(what: &str, halvings: u64) {
    if halvings > 0 {
        eprintln!(
            "warning: {what}: batches were halved {halvings} times as the device had no memory for them; the features are the \
             same, and a lower --batch-size saves the attempts"
        );
    }
}
