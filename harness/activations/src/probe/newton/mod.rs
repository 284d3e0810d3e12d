//! The [`Solver`] of this program: Newton's method with a line search, along a path of `C`.
//!
//! For logistic regression Newton's method is iteratively reweighted least squares (Green, "Iteratively reweighted least
//! squares for maximum likelihood estimation", 1984). The objective is smooth and strictly convex, so with a line search
//! by Armijo's rule it converges from anywhere; data that can be told apart perfectly are no exception, as the penalty
//! bounds the weights and both classes the bias.
//!
//! The step is found in the form that fits the shape, `n` samples of `h` features:
//!
//! - `n < h`: [`dual`], a factorisation of `[n, n]`; the inner products of the samples are computed once for all `C`;
//! - `n >= h`: [`primal`], a factorisation of `[h, h]`;
//! - where the smaller of the two is above [`LARGEST_FACTORISED`]: [`conjugate`], without any matrix.
//!
//! **Few factorisations.** One costs as much as six steps or more, so it is kept, for the next `C` too, as long as the
//! gradient goes on shrinking; between two of them the steps taken correct it ([`secants`]): L-BFGS with an old
//! Hessian's inverse in the place of a multiple of the identity.
//!
//! **Two precisions.** Where the penalty bounds the condition of the matrices ([`Precision::of`]), these are of single
//! precision, which halves the work. They decide how fast the iteration gets to the minimum and not where that is: it
//! ends by a gradient of double precision.
//!
//! Several `C` are fitted from the smallest on, each from the solution before it, which is near. All sums have one fixed
//! order on one thread, so the same problem has the same bits however many are solved side by side.
//!
//! **An iteration** is one step: one gradient, a factorisation if one is due (or a search by conjugate gradients), and
//! the line search. Ten or so are usual.

mod conjugate;
mod dual;
mod primal;
mod secants;
mod system;
#[cfg(test)]
mod tests;

use ndarray::Array1;

use self::conjugate::ConjugateSystem;
use self::dual::DualSystem;
use self::primal::PrimalSystem;
use self::secants::Secants;
use self::system::{Gradient, Iterate, Step, System, Trial};
use super::logistic::{Parameters, Problem, Solution, Solver};
use super::losses::Losses;
use super::products::sum_of_squares;
use crate::error::Result;

/// The largest matrix that is factorised: at this size two of them are 64 MiB, and a factorisation takes about as long
/// as a hundred passes over as many samples.
pub const LARGEST_FACTORISED: usize = 2048;

/// The iteration ends where the gradient is this small beside that of the featureless probe. The objective's error goes with
/// its square. At 1e-6 objectives of small problems at C 100 were further than 1e-9 from the minimum; at 1e-8 it takes more
/// steps for the same areas.
const RELATIVE_GRADIENT: f64 = 1e-7;

/// A step that left more than this share of the gradient is followed by a new factorisation. Measured on features of a
/// language model, 480 samples of 16 layers at three `C`: 0.55 to 0.72 take the same time within 5 %, 0.35 and 0.8 half
/// as much again.
const POOR_REDUCTION: f64 = 0.65;

/// Armijo's constant: the share of the decrease promised by the slope that a step must bring.
const SUFFICIENT_DECREASE: f64 = 1e-4;

/// Halvings of a step before the line search gives up; the last is far below rounding.
const MOST_HALVINGS: usize = 60;

/// Second derivatives of the losses below this are raised to it, so that no sample drops out of the step altogether.
const SMALLEST_CURVATURE: f64 = f64::EPSILON;

/// Newton's method; see the head of this file.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewtonSolver;

impl Solver for NewtonSolver {
    fn name(&self) -> &'static str {
        "newton"
    }

    fn solve(&self, problem: &Problem<'_>, start: Option<&Parameters>, max_iterations: usize) -> Result<Solution> {
        let mut solutions = solutions(problem, start, &[problem.c()], max_iterations);
        Ok(solutions.swap_remove(0))
    }

    fn solve_path(&self, problem: &Problem<'_>, cs: &[f64], max_iterations: usize) -> Result<Vec<Solution>> {
        cs.iter().try_for_each(|&c| problem.with_c(c).map(drop))?;
        Ok(solutions(problem, None, cs, max_iterations))
    }
}

/// The solutions at `cs`, in their order, in the form for the shape of the features.
fn solutions(problem: &Problem<'_>, start: Option<&Parameters>, cs: &[f64], max_iterations: usize) -> Vec<Solution> {
    let features = problem.features();
    let (samples, columns) = features.dim();
    let largest_c = cs.iter().copied().fold(0.0, f64::max);
    let squares = sum_of_squares(features);
    let path = PathOfCs { problem, squares, start, cs, max_iterations };
    match (samples.min(columns) > LARGEST_FACTORISED, samples < columns, Precision::of(squares, largest_c)) {
        (true, _, _) => path.solutions(&ConjugateSystem::new(features)),
        (_, true, Precision::Single) => path.solutions(&DualSystem::<f32>::new(features)),
        (_, true, Precision::Double) => path.solutions(&DualSystem::<f64>::new(features)),
        (_, false, Precision::Single) => path.solutions(&PrimalSystem::<f32>::new(features)),
        (_, false, Precision::Double) => path.solutions(&PrimalSystem::<f64>::new(features)),
    }
}

/// What the matrices of a path are stored and factorised in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precision {
    Single,
    Double,
}

/// The largest condition, times the rounding of single precision, of a matrix that is factorised in it. The bound of the
/// condition is by the trace and by the curvature of a sample that the probe knows nothing of; that of features of
/// language models is a tenth of it or less, and a factor some per cent off still serves.
const SINGLE_CONDITION: f64 = 4.0;

/// Squared lengths of samples whose products single precision can hold, with room for their sums.
const SINGLE_RANGE: std::ops::Range<f64> = 1e-20..1e20;

impl Precision {
    /// Single where the eigenvalues of the Hessian lie near enough together at `c` and those below, for features whose
    /// squares come to `squares` in all.
    ///
    /// The smallest is `1 / c` or more, the largest at most the trace of `X^T D X` besides, where no `d` is above 1/4.
    fn of(squares: f64, c: f64) -> Self {
        let condition = c * squares / 4.0;
        match condition * f64::from(f32::EPSILON) <= SINGLE_CONDITION && SINGLE_RANGE.contains(&squares) {
            true => Self::Single,
            false => Self::Double,
        }
    }
}

/// What is to be solved: one problem at several `C`.
struct PathOfCs<'a, 'f> {
    problem: &'a Problem<'f>,
    /// The sum of the squares of all features.
    squares: f64,
    start: Option<&'a Parameters>,
    cs: &'a [f64],
    max_iterations: usize,
}

impl PathOfCs<'_, '_> {
    /// The solutions in the order of the `C`, found from the smallest on.
    fn solutions<S: System>(&self, system: &S) -> Vec<Solution> {
        let path = Path::new(self.problem, self.squares, system);
        let mut order: Vec<usize> = (0..self.cs.len()).collect();
        order.sort_by(|&a, &b| self.cs[a].total_cmp(&self.cs[b]));
        let mut current = match self.start {
            None => path.featureless.clone(),
            Some(start) => Iterate::at(system, system.point_of(&start.weights), start.bias).0,
        };
        let mut model = None;
        let mut solutions = Vec::with_capacity(self.cs.len());
        for &place in &order {
            let end = path.minimise(current, &mut model, self.cs[place], self.max_iterations);
            let weights = end.weights.unwrap_or_else(|| system.weights(&end.iterate.point));
            let parameters = Parameters { weights, bias: end.iterate.bias };
            solutions.push((place, Solution { parameters, iterations: Some(end.iterations) }));
            current = end.iterate;
        }
        solutions.sort_by_key(|(place, _)| *place);
        solutions.into_iter().map(|(_, solution)| solution).collect()
    }
}

/// One layer's problem in its form, for any `C`.
struct Path<'a, S: System> {
    system: &'a S,
    labels: &'a [u8],
    featureless: Iterate,
    /// Norm of the gradient at which an iteration ends.
    tolerance: f64,
    /// Norm of the gradient of the featureless probe, which is the same for every `C`; above zero.
    scale: f64,
}

/// Where an iteration ended.
struct End {
    iterate: Iterate,
    /// Its weights, where they are known already.
    weights: Option<Array1<f64>>,
    iterations: usize,
}

impl<'a, S: System> Path<'a, S> {
    fn new(problem: &'a Problem<'_>, squares: f64, system: &'a S) -> Self {
        let labels = problem.labels();
        let point = Array1::zeros(system.dimension());
        let bias = problem.featureless().bias;
        let decisions = Array1::from_elem(labels.len(), bias);
        let featureless = Iterate { point, bias, decisions, squared_norm: 0.0 };
        let norm = system.norm(&system.gradient(&featureless, &featureless.losses(labels).residuals, 1.0));
        // The residuals are at most 1 and known to rounding, and so the gradient is known to this.
        let noise = f64::EPSILON * (squares + labels.len() as f64).sqrt();
        Self { labels, featureless, tolerance: (RELATIVE_GRADIENT * norm).max(noise), scale: norm.max(noise), system }
    }

    /// The minimum at `c`, or where `max_iterations` from `current` lead, and how many were made. `model` is the last
    /// one made, for this `c` or another.
    fn minimise(&self, mut current: Iterate, model: &mut Option<S::Model>, c: f64, max_iterations: usize) -> End {
        let mut secants = Secants::new();
        let mut slope = self.slope(&current, current.losses(self.labels), c);
        let mut last_norm = f64::INFINITY;
        let (mut stalled, mut stalled_before) = (false, false);
        let mut weights = None;
        let mut iterations = 0;
        loop {
            if slope.norm <= self.tolerance || stalled {
                // The decisions are sums of steps; at the end they must be what the weights make them.
                let (exact, its_weights) = Iterate::at(self.system, current.point, current.bias);
                slope = self.slope(&exact, exact.losses(self.labels), c);
                (current, weights) = (exact, Some(its_weights));
                if slope.norm <= self.tolerance || stalled_before {
                    break;
                }
                stalled_before = stalled;
            }
            if slope.norm.is_nan() || iterations == max_iterations {
                break;
            }
            let is_poor = !S::KEEPS_MODELS || slope.norm > POOR_REDUCTION * last_norm;
            let had_model = model.is_some() && !is_poor;
            let mut found = self.search(&current, &slope, (model, is_poor), &mut secants, c);
            if found.is_none() && had_model {
                found = self.search(&current, &slope, (model, true), &mut secants, c);
            }
            let Some(Found { step: Step { direction: mut taken, .. }, trial, descent }) = found else { break };
            iterations += 1;
            weights = None;
            taken.scale(trial.length);
            let losses = current.advance(&taken, trial);
            let next = self.slope(&current, losses, c);
            let mut change = next.gradient.clone();
            change.scaled_add(-1.0, &slope.gradient);
            secants.learn(self.system, taken, change);
            // A step this small changes the objective by less than its rounding.
            stalled = descent <= f64::EPSILON * slope.objective;
            last_norm = slope.norm;
            slope = next;
        }
        End { iterate: current, weights, iterations }
    }

    /// What the objective is like at `current`, where the samples come to `losses`.
    fn slope(&self, current: &Iterate, losses: Losses, c: f64) -> Slope {
        let gradient = self.system.gradient(current, &losses.residuals, c);
        let objective = current.objective(&losses, c);
        Slope { norm: self.system.norm(&gradient), gradient, objective, residual: Array1::from_vec(losses.residuals) }
    }

    /// A step with the model there is, or with a new one where there is none or it `is_poor`, corrected by `secants`;
    /// nothing where it leads up.
    fn search(
        &self,
        current: &Iterate,
        slope: &Slope,
        (model, is_poor): (&mut Option<S::Model>, bool),
        secants: &mut Secants,
        c: f64,
    ) -> Option<Found> {
        let kept = model.take();
        let model = model.insert(match kept {
            Some(kept) if !is_poor => kept,
            spent => {
                secants.clear();
                let curvature = slope.residual.mapv(|r| (r.abs() * (1.0 - r.abs())).max(SMALLEST_CURVATURE));
                self.system.model(curvature, c, spent)
            }
        });
        let mut direction = secants.solve(self.system, model, &slope.gradient, slope.norm / self.scale);
        direction.scale(-1.0);
        let step = self.system.step(current, direction);
        let descent = -(slope.residual.dot(&step.decisions) + step.weights_by_change / c);
        let trial = self.trial_of(current, &step, slope.objective, descent, c)?;
        Some(Found { step, trial, descent })
    }

    /// The first of 1, 1/2, 1/4, ... of the step that lowers the objective enough, up to its rounding.
    fn trial_of(&self, current: &Iterate, step: &Step, objective: f64, descent: f64, c: f64) -> Option<Trial> {
        let rounding = 4.0 * (f64::EPSILON * objective + S::ROUNDING * step.weights_by_change.abs() / c);
        let finite = step.direction.bias.is_finite() && step.squared_norm.is_finite() && descent.is_finite();
        // Up to rounding every direction leads down.
        let downward = finite && descent >= -rounding;
        let halvings = if downward { 0..MOST_HALVINGS } else { 0..0 };
        halvings
            .map(|halvings| current.trial(step, 0.5_f64.powi(halvings as i32), self.labels))
            .find(|trial| trial.objective(c) <= objective - SUFFICIENT_DECREASE * trial.length * descent + rounding)
    }
}

/// What the objective is like at an iterate.
struct Slope {
    objective: f64,
    /// Predicted probability less label, `[n]`.
    residual: Array1<f64>,
    gradient: Gradient,
    /// That of the gradient.
    norm: f64,
}

/// The outcome of a line search.
struct Found {
    step: Step,
    /// Where the search ended.
    trial: Trial,
    /// By how much the objective falls along the step at first, per length.
    descent: f64,
}
