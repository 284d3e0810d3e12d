//! The sources of plans: a tensor, a model, or a cache file. All answer the same request.

mod assemble;
mod cached;
mod model;
mod plan_source;
mod request;
mod tensor;

pub use model::ModelSource;
pub(crate) use model::check_tokens;
pub use plan_source::PlanSource;
pub(crate) use request::SourceRequest;
pub use tensor::TensorSource;
