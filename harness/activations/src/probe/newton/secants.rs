//! L-BFGS correction of a model by the last steps: the two-loop recursion (Nocedal and Wright, "Numerical
//! Optimization", algorithm 7.4) with the model's inverse Hessian in place of a multiple of the identity.

use std::collections::VecDeque;

use super::system::{NewtonSystem, ObjectiveGradient, SearchDirection};

/// The number of stored steps. A model is used for about ten steps; more than five stored steps did not reduce the
/// number of iterations on features of language models.
const MAX_SECANTS: usize = 5;

/// A step, the change of the gradient along it, and the inner product of both.
struct Secant {
    step: SearchDirection,
    change: ObjectiveGradient,
    curvature: f64,
}

/// The last steps, oldest first.
pub(super) struct Secants {
    taken: VecDeque<Secant>,
}

impl Secants {
    /// No steps.
    pub(super) fn new() -> Self {
        Self { taken: VecDeque::with_capacity(MAX_SECANTS) }
    }

    /// Removes all steps. A new model has the current curvature.
    pub(super) fn clear(&mut self) {
        self.taken.clear();
    }

    /// Stores a step that changed the gradient by `change`. A step with negative curvature is a rounding error,
    /// because the objective is convex, and is ignored.
    pub(super) fn push<S: NewtonSystem>(&mut self, system: &S, step: SearchDirection, change: ObjectiveGradient) {
        let curvature = system.pairing(&step, &change);
        if curvature > 0.0 {
            if self.taken.len() == MAX_SECANTS {
                self.taken.pop_front();
            }
            self.taken.push_back(Secant { step, change, curvature });
        }
    }

    /// The corrected inverse Hessian times `gradient`.
    pub(super) fn solve<S: NewtonSystem>(
        &self,
        system: &S,
        model: &S::Model,
        gradient: &ObjectiveGradient,
        relative_gradient: f64,
    ) -> SearchDirection {
        if self.taken.is_empty() {
            return system.solve(model, gradient, relative_gradient);
        }
        let mut remainder = gradient.clone();
        let mut coefficients = Vec::with_capacity(self.taken.len());
        for secant in self.taken.iter().rev() {
            let coefficient = system.pairing(&secant.step, &remainder) / secant.curvature;
            remainder.scaled_add(-coefficient, &secant.change);
            coefficients.push(coefficient);
        }
        let mut direction = system.solve(model, &remainder, relative_gradient);
        for (secant, coefficient) in self.taken.iter().zip(coefficients.into_iter().rev()) {
            let corrected = coefficient - system.pairing(&direction, &secant.change) / secant.curvature;
            direction.scaled_add(corrected, &secant.step);
        }
        direction
    }
}
