//! What the last steps have taught about the curvature, on top of a model: the two-loop recursion of L-BFGS (Nocedal and
//! Wright, "Numerical Optimization", algorithm 7.4), with the inverse of the model's Hessian in the middle.

use std::collections::VecDeque;

use super::system::{Direction, Gradient, System};

/// Steps remembered. A model serves for about ten steps; more than five taught nothing on features of language models.
const REMEMBERED: usize = 5;

/// A step taken, by how much it changed the gradient, and the inner product of the two.
struct Secant {
    step: Direction,
    change: Gradient,
    curvature: f64,
}

/// The last steps, oldest first.
pub(super) struct Secants {
    taken: VecDeque<Secant>,
}

impl Secants {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { taken: VecDeque::with_capacity(REMEMBERED) }
    }

    /// Forgets all, as a new model knows better.
    pub(super) fn clear(&mut self) {
        self.taken.clear();
    }

    /// Learns from a step that changed the gradient by `change`; what contradicts convexity is rounding, and left out.
    pub(super) fn learn<S: System>(&mut self, system: &S, step: Direction, change: Gradient) {
        let curvature = system.pairing(&step, &change);
        if curvature > 0.0 {
            if self.taken.len() == REMEMBERED {
                self.taken.pop_front();
            }
            self.taken.push_back(Secant { step, change, curvature });
        }
    }

    /// The inverse Hessian, as known, times `gradient`.
    pub(super) fn solve<S: System>(
        &self,
        system: &S,
        model: &S::Model,
        gradient: &Gradient,
        relative_gradient: f64,
    ) -> Direction {
        if self.taken.is_empty() {
            return system.solve(model, gradient, relative_gradient);
        }
        let mut left = gradient.clone();
        let mut shares = Vec::with_capacity(self.taken.len());
        for secant in self.taken.iter().rev() {
            let share = system.pairing(&secant.step, &left) / secant.curvature;
            left.scaled_add(-share, &secant.change);
            shares.push(share);
        }
        let mut direction = system.solve(model, &left, relative_gradient);
        for (secant, share) in self.taken.iter().zip(shares.into_iter().rev()) {
            let corrected = share - system.pairing(&direction, &secant.change) / secant.curvature;
            direction.scaled_add(corrected, &secant.step);
        }
        direction
    }
}
