//! The shards of a long job: which part of the work one process does, and how the parts become one file again.
//!
//! A shard is named by a flag or taken from the environment of a launcher ([`launcher`]). The cells of a matrix and the samples
//! of a cache file are divided by it; [`files`] names the cache files of shards and says what each of them records, and
//! [`join`] joins them.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::{Error, Result};

pub mod files;
pub mod join;
pub mod launcher;

/// One of several parts of a job, for several machines or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Number of the shard, from 1 on.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
}

impl Shard {
    /// The only shard of an undivided job.
    pub const WHOLE: Shard = Shard { index: 1, count: 1 };

    /// The items of `0..n` that belong to the shard: consecutive ones. The sizes of two shards differ by at most one.
    pub fn items(self, n: usize) -> Range<usize> {
        // In 128 bits, so that no product overflows.
        let cut = |index: usize| (index as u128 * n as u128 / self.count as u128) as usize;
        cut(self.index - 1)..cut(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if index >= 1 && index <= count => Ok(Shard { index, count }),
            _ => Err(Error::usage(format!(
                "invalid shard '{text}': use I/N with I from 1 to N, such as 2/4, or auto or auto/N for that of a launcher"
            ))),
        }
    }
}

/// The value of `--shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardFlag {
    /// `I/N`.
    Given(Shard),
    /// `auto` or `auto/N`: the task that a launcher gave this process, of as many as it started or of `count`.
    Launcher {
        /// Number of shards.
        count: Option<usize>,
    },
}

impl ShardFlag {
    /// The shard, and the sentence for the log that says where it comes from unless the flag names it. `variable` reads an
    /// environment variable.
    ///
    /// # Errors
    /// No launcher, or one whose variables do not give a shard.
    pub fn resolve(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<(Shard, Option<String>)> {
        match self {
            ShardFlag::Given(shard) => Ok((shard, None)),
            ShardFlag::Launcher { count } => {
                let (shard, source) = launcher::shard(count, variable)?;
                Ok((shard, Some(format!("shard {shard}, from {source}"))))
            }
        }
    }
}

impl FromStr for ShardFlag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("auto/").and_then(|count| count.parse().ok())) {
            ("auto", _) => Ok(ShardFlag::Launcher { count: None }),
            (_, Some(count)) if count > 0 => Ok(ShardFlag::Launcher { count: Some(count) }),
            _ => text.parse().map(ShardFlag::Given),
        }
    }
}

/// Reads a variable of this process's environment; one that is not text counts as absent.
pub fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shards_cover_every_item_once(n in 0_usize..1000, count in 1_usize..40) {
            let mut next = 0;
            for index in 1..=count {
                let items = Shard { index, count }.items(n);
                prop_assert_eq!(items.start, next);
                prop_assert!(items.len() == n / count || items.len() == n.div_ceil(count));
                next = items.end;
            }
            prop_assert_eq!(next, n);
        }
    }

    #[test]
    fn largest_numbers_do_not_overflow() {
        let shard = Shard { index: usize::MAX, count: usize::MAX };
        assert_eq!(shard.items(usize::MAX), usize::MAX - 1..usize::MAX);
    }

    #[test]
    fn flag_names_a_shard_or_the_launcher() {
        let flag = |text: &str| text.parse::<ShardFlag>().map_err(|error| error.to_string());
        assert_eq!(flag("2/4"), Ok(ShardFlag::Given(Shard { index: 2, count: 4 })));
        assert_eq!(flag("auto"), Ok(ShardFlag::Launcher { count: None }));
        assert_eq!(flag("auto/8"), Ok(ShardFlag::Launcher { count: Some(8) }));
        for wrong in ["0/4", "5/4", "a/4", "auto/0", "auto/", "auto/x", "1", "", "-1/2"] {
            assert!(flag(wrong).unwrap_err().contains(&format!("'{wrong}'")), "{wrong}");
        }
    }
}
