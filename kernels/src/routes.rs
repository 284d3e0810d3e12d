//! The experts that the router of a mixture of experts chooses for each row, in host memory, and rows grouped by expert.

use std::ops::Range;

use crate::error::KernelError;

/// Experts that a router can choose from. The kernels keep the probabilities of a row in shared memory.
pub const MAX_EXPERTS: usize = 512;

/// How a router turns its logits into experts and weights (Shazeer et al. 2017).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// Experts of a row: at least 1, and at most as many as there are.
    pub top_k: usize,
    /// Whether the weights of a row are divided by their sum.
    pub renormalize: bool,
    /// Whether the weights are rounded to the dtype of the logits. Families differ in this.
    pub rounded: bool,
}

/// The experts of each row, by increasing index, and their weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    top_k: usize,
    experts: Vec<u32>,
    weights: Vec<f32>,
}

impl Routes {
    /// `top_k` experts a row out of `n_experts`, row after row, and as many weights.
    ///
    /// # Errors
    /// An expert that does not exist, or another number of experts than of weights.
    pub(crate) fn new(
        top_k: usize,
        n_experts: usize,
        experts: Vec<u32>,
        weights: Vec<f32>,
    ) -> Result<Self, KernelError> {
        if experts.len() != weights.len() || !experts.len().is_multiple_of(top_k.max(1)) {
            return Err(KernelError::shape(
                "route",
                format!("{} experts and {} weights, {top_k} a row", experts.len(), weights.len()),
            ));
        }
        match experts.iter().find(|expert| **expert as usize >= n_experts) {
            Some(expert) => Err(KernelError::shape("route", format!("expert {expert} of {n_experts}"))),
            None => Ok(Routes { top_k, experts, weights }),
        }
    }

    /// Experts of a row.
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// The experts, `top_k` a row.
    pub fn experts(&self) -> &[u32] {
        &self.experts
    }

    /// The weights, in the order of [`Routes::experts`].
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The rows of each of `n_experts` experts.
    ///
    /// # Panics
    /// If there are fewer experts than were chosen from.
    pub fn by_expert(&self, n_experts: usize) -> ExpertRows {
        let mut offsets = vec![0usize; n_experts + 1];
        for expert in &self.experts {
            offsets[*expert as usize + 1] += 1;
        }
        for expert in 0..n_experts {
            offsets[expert + 1] += offsets[expert];
        }
        let mut next = offsets.clone();
        let mut rows = vec![0; self.experts.len()];
        let mut slots = vec![0; self.experts.len()];
        for (choice, expert) in self.experts.iter().enumerate() {
            let slot = &mut next[*expert as usize];
            rows[*slot] = (choice / self.top_k.max(1)) as u32;
            slots[choice] = *slot as u32;
            *slot += 1;
        }
        ExpertRows { offsets, rows, slots }
    }
}

/// Rows sorted by expert, and within an expert by their index. A row has a slot for each of its experts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpertRows {
    /// The slots of expert `e` are `offsets[e]..offsets[e + 1]`.
    offsets: Vec<usize>,
    rows: Vec<u32>,
    slots: Vec<u32>,
}

impl ExpertRows {
    /// The row in each slot.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The slots of each row, in the order of [`Routes::experts`].
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The slots of expert `expert`.
    ///
    /// # Panics
    /// If there is no such expert.
    pub fn slots_of(&self, expert: usize) -> Range<usize> {
        self.offsets[expert]..self.offsets[expert + 1]
    }

    /// The rows of the expert with most of them.
    pub fn most_rows(&self) -> usize {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// Rows of a tensor with weights, equally many for each row of a result.
#[derive(Clone, Copy, Debug)]
pub struct WeightedRows<'a> {
    /// Rows for each row of the result, at least 1.
    pub per_row: usize,
    /// `rows[i * per_row..(i + 1) * per_row]` are those of row `i`, in the order of their addition.
    pub rows: &'a [u32],
    /// The weight of each row.
    pub weights: &'a [f32],
}

impl WeightedRows<'_> {
    /// Rows of the result.
    pub fn n_results(&self) -> usize {
        self.rows.len() / self.per_row.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_expert_then_row() {
        let experts = vec![0, 3, 1, 3, 0, 1];
        let routes = Routes::new(2, 4, experts, vec![0.5; 6]).unwrap();
        let groups = routes.by_expert(4);
        assert_eq!(groups.rows(), [0, 2, 1, 2, 0, 1]);
        assert_eq!([0, 1, 2, 3].map(|expert| groups.slots_of(expert)), [0..2, 2..4, 4..4, 4..6]);
        assert_eq!(groups.slots(), [0, 4, 2, 5, 1, 3]);
        // The slot of each choice holds its row and belongs to its expert.
        for (choice, slot) in groups.slots().iter().enumerate() {
            assert_eq!(groups.rows()[*slot as usize] as usize, choice / 2);
            assert!(groups.slots_of(routes.experts()[choice] as usize).contains(&(*slot as usize)));
        }
        assert_eq!(groups.most_rows(), 2);
    }

    #[test]
    fn no_rows_have_no_slots() {
        let groups = Routes::new(2, 3, Vec::new(), Vec::new()).unwrap().by_expert(3);
        assert_eq!((groups.rows().len(), groups.most_rows(), groups.slots_of(2)), (0, 0, 0..0));
    }

    #[test]
    fn impossible_routes_are_errors() {
        let error = |experts: Vec<u32>, weights| Routes::new(2, 3, experts, weights).unwrap_err().to_string();
        assert!(error(vec![0, 3], vec![0.5; 2]).contains("expert 3 of 3"));
        assert!(error(vec![0, 1], vec![0.5]).contains("2 experts and 1 weights"));
        assert!(error(vec![0], vec![0.5]).contains("1 experts and 1 weights, 2 a row"));
    }
}
