//! The inputs of a run, identified by content: two files of one name can have other rows, and two models of one path other weights.

use serde::{Deserialize, Serialize};

/// Digests of the inputs of a run, in hexadecimal. Files that were written before digests were recorded have none, and their
/// inputs are identified by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Digest of the data set: of all its rows, in their order. For a generated one, of its first rows, which do not depend on
    /// the number of samples.
    #[serde(default)]
    pub data: Option<String>,
    /// Digest of the model: configuration, tokenizer, and sizes, headers and sampled contents of the weights, and the adapter.
    #[serde(default)]
    pub weights: Option<String>,
}
