//! The names of the registered data sets.

/// The embedded data set, the default of `--dataset`. `embedded:PROFILE` selects the length of its dialogues.
pub const EMBEDDED: &str = "embedded";

/// True and false facts under honest and deceptive instructions.
pub(super) const REPE: &str = "repe";

/// All data set names except paths, for help texts and error messages.
pub const REGISTERED: [&str; 6] =
    [EMBEDDED, "embedded:short", "embedded:medium", "embedded:long", "embedded:mixed", REPE];
