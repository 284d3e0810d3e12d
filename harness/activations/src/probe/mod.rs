//! Probes: standardized features, a logistic regression, and its AUROC on the test split.
//!
//! [`SplitFeatures`] has the standardized features of one layer and is scored at one `C` or at several. Lazy and eager
//! features take the same path, so equal feature bits give equal probes. [`Solver`] is the interface of algorithms that
//! minimize the objective of [`problem`]: [`NewtonSolver`] is the default, [`LinfaSolver`] an independent one to verify
//! it.

pub mod auroc;
mod dense;
mod fit;
mod gemv;
pub mod linfa_solver;
mod losses;
pub mod newton;
pub mod problem;
mod simd;
mod solver;
mod split_features;
pub mod standardize;

#[cfg(test)]
mod tests;

pub use auroc::auroc;
pub use fit::{Probe, fit, fit_path, fit_with};
pub use linfa_solver::LinfaSolver;
pub use newton::NewtonSolver;
pub use problem::{Parameters, Problem};
pub use solver::{Solution, Solver};
pub use split_features::{ProbeOutcome, SplitFeatures};
pub use standardize::{FeatureElement, Standardizer};
