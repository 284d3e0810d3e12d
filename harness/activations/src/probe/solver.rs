//! The interface of solvers that minimize a [`Problem`].

use super::problem::{Parameters, Problem};
use crate::error::Result;

/// The result of a [`Solver`].
#[derive(Clone, Debug)]
pub struct Solution {
    /// The best point found; finite.
    pub parameters: Parameters,
    /// The number of iterations, if the solver reports it.
    pub iterations: Option<usize>,
}

/// Minimizes a [`Problem`].
///
/// Solvers are `Sync` and have no state, so that layers can be fitted in parallel.
pub trait Solver: Sync {
    /// A short name for reports.
    fn name(&self) -> &'static str;

    /// Minimizes `problem` in at most `max_iterations` (one or more) iterations from `start`, or from
    /// [`Problem::featureless`]. The solution of a neighboring `C` is a good `start`.
    ///
    /// Reaching the iteration limit is not an error: the result is the best point so far.
    ///
    /// # Errors
    ///
    /// [`Error::Numeric`](crate::Error::Numeric) if no usable point was found.
    fn solve(&self, problem: &Problem<'_>, start: Option<&Parameters>, max_iterations: usize) -> Result<Solution>;

    /// Minimizes the samples of `problem` at each of `cs`, in order, each in at most `max_iterations`; the `C` of
    /// `problem` is ignored. Each fit starts at [`Problem::featureless`] unless the solver uses the solutions of
    /// other `C`.
    ///
    /// # Errors
    ///
    /// As [`Solver::solve`], and a `C` out of range.
    fn solve_path(&self, problem: &Problem<'_>, cs: &[f64], max_iterations: usize) -> Result<Vec<Solution>> {
        cs.iter().map(|&c| self.solve(&problem.with_c(c)?, None, max_iterations)).collect()
    }
}
