//! The cache file: activations on disk, written batch by batch and read through a mapping.
//!
//! It is a safetensors file, so that Python's `safetensors` opens it. With axis `l` there is one tensor a layer,
//! `layer.<number>` of shape `[b, h]` or `[b, s, h]`, so that one layer is contiguous; without it there is one
//! tensor `activations`. A file with a table of samples (see [`SampleTable`]) has `rows`, `labels` and `is_train`,
//! `[b]`. With axis `s` there is `mask`, `[b, s]`, and finally `checksums`, `[chunks, 32]`: the BLAKE3 digest of each
//! chunk of at most `chunk_bytes` (but at least one sample) of each tensor before it. The header's `__metadata__` has
//! axes, shape, dtype, layer numbers and what they count, the fingerprint of the plan with its parts, the format's
//! version and `checksum`, the digest of the header (with zeros for this entry) and of `checksums`. The entry `mask` is whether
//! the file has the tensor `mask`, and `settings` the text of a table's settings, if it has any.
//!
//! The table is not a part of the fingerprint, which decides the values of the activations. Files of format version 1 have
//! neither a table nor the sentence about layer numbers, and are still read.
//!
//! Everything but `checksum` is known before the first batch, so the header is written first and completed last.
//! A file gets its name only when it is complete; see [`writer`].

mod journal;
mod layout;
mod partial;
pub mod reader;
mod samples;
pub mod writer;

pub use layout::{FORMAT, FORMAT_VERSION};
pub use reader::CacheFile;
pub use samples::SampleTable;
pub use writer::CacheWriter;
