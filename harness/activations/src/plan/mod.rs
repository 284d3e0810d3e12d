//! The lazy plan: activations are described first, computed on demand, and streamed.
//!
//! [`Acts`] (`lazy_plan`) is a source and a chain of [`Operation`]s, checked as it is built against a [`Signature`].
//! `logical` brings the chain to a normal form, `optimize` decides which operations the source does itself, `execute`
//! streams the rest, and `realize` materializes plans as tensors ([`ActTensor`]) or files ([`cache_file`]). The semantics
//! of an operation are defined once, as an eager method of [`ActTensor`]; every other path must give the same bytes.

pub mod axes;
pub mod batches;
pub mod cache_file;
pub mod cost;
mod execute;
mod explain;
pub mod fingerprint;
pub(crate) mod in_flight;
pub(crate) mod landed;
pub mod lazy_plan;
pub mod logical;
pub mod mask;
pub mod needed_tokens;
pub mod operation;
pub mod optimize;
pub mod pooling;
pub mod prefix;
pub mod progress;
pub mod realize;
pub mod rules;
pub mod signature;
pub mod sources;
mod streams;
pub mod tensor;

pub use crate::model::memory_model::LargestBatch;
pub use axes::{Axes, Axis};
pub use cost::{PlanCost, RuleCostRow, RuleCosts};
pub use fingerprint::PlanFingerprint;
pub use lazy_plan::Acts;
pub use mask::SequenceMask;
pub use operation::{BatchSelection, Operation, ResultDevice};
pub use progress::{ExtractionStats, Progress, ProgressSink};
pub use rules::{Rule, Rules};
pub use signature::Signature;
pub use tensor::{ActTensor, digest};
