//! The lazy plan: activations described first, computed when asked for, and streamed.
//!
//! [`Acts`] (`lazy_plan`) is a source and a chain of [`Operation`]s, checked as it is built against a [`Signature`].
//! `logical` brings the chain to a normal form, `optimise` decides how much of it the source does itself, `execute`
//! streams the rest, and `realise` is where plans become tensors ([`ActTensor`]) or files ([`cache_file`]). What an
//! operation *means* is written down once, eagerly and plainly, as the methods of [`ActTensor`]; everything else must
//! give the same bytes.

pub mod axes;
pub mod batches;
pub mod cache_file;
pub mod cost;
mod execute;
mod explain;
pub mod fingerprint;
pub(crate) mod flight;
pub mod lazy_plan;
pub mod logical;
pub mod mask;
pub mod operation;
pub mod optimise;
pub mod pooling;
pub mod prefix;
pub mod progress;
pub mod realise;
pub mod rules;
pub mod signature;
pub mod sources;
pub mod tensor;

pub use axes::{Axes, Axis};
pub use cost::{LargestBatch, PlanCost, RuleCosts};
pub use fingerprint::Fingerprint;
pub use lazy_plan::Acts;
pub use mask::SequenceMask;
pub use operation::{BatchSelection, Device, Operation};
pub use progress::{ExtractionStats, Progress, ProgressSink};
pub use rules::{Rule, Rules};
pub use signature::Signature;
pub use tensor::{ActTensor, digest};
