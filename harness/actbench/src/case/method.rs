//! The compared extraction methods.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A method of extracting activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Full tensors in host memory.
    Eager,
    /// An optimized, streamed plan.
    Lazy,
    /// The same plan through a cache file.
    LazyDisk,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::Eager => "eager",
            Method::Lazy => "lazy",
            Method::LazyDisk => "lazy-disk",
        })
    }
}
