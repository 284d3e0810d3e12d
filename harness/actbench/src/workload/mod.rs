//! The two benchmarked tasks, end to end: data, features, probes, the metric.

pub mod check;
pub mod device;
pub mod extract;
pub mod features;
pub mod footprint;
pub mod identity;
mod layers;
mod load;
mod preflight;
pub mod prepare;
pub mod profile;
mod run;
pub mod score;
mod sizes;
mod warm_up;

pub use layers::{check_depth, deepest, layer_count, layers_of, with_layers, with_layers_of};
pub use load::load_model;
pub use preflight::{Preflight, preflight, preflight_with_data};
pub use prepare::request;
pub use run::run_case;
