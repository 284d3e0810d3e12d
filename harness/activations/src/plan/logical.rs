//! The normal form of a plan: which samples and layers it needs, and what then happens to values.
//!
//! Every operation treats samples alike and apart, so a batch selection may move before anything else. A layer
//! selection commutes with casts and with pools of `s`, and cannot follow a pool of `l`, so it moves to the front as
//! well. What remains are casts and pools, which round, and therefore keep their order. Two selections in a row
//! become one by composing them: the second counts in what the first left.

use std::fmt;
use std::sync::Arc;

use super::axes::Axis;
use super::operation::{Operation, abbreviate};
use super::signature::Signature;
use crate::error::Result;

/// A plan as: select samples and layers of the source, then change values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalPlan {
    /// The source's sample that each sample of the result is.
    pub samples: Arc<[usize]>,
    /// The layers to take, in order; the source's own where it has no axis `l`.
    pub layers: Arc<[usize]>,
    /// Whether taking a layer drops axis `l`.
    pub drops_layer_axis: bool,
    /// Casts and pools in the order they were asked for; casts to the type at hand are left out.
    pub values: Vec<Operation>,
}

impl LogicalPlan {
    /// Brings `operations` on a source of signature `source` to normal form.
    ///
    /// # Errors
    /// An operation that does not fit; plans check each as it is added, so theirs do.
    pub fn of(source: &Signature, operations: &[Operation]) -> Result<Self> {
        let mut signature = source.clone();
        let mut plan = LogicalPlan {
            samples: (0..source.n_samples).collect(),
            layers: source.layer_ids.clone(),
            drops_layer_axis: false,
            values: Vec::new(),
        };
        for operation in operations {
            let after = signature.after(operation)?;
            match operation {
                Operation::SelectLayers(ids) => plan.layers = ids.clone(),
                Operation::SelectLayer(id) => {
                    plan.layers = [*id].into();
                    plan.drops_layer_axis = true;
                }
                Operation::SliceBatch(selection) => {
                    let kept = selection.resolve(signature.n_samples)?;
                    plan.samples = kept.into_iter().map(|sample| plan.samples[sample]).collect();
                }
                Operation::Cast(dtype) if *dtype == signature.dtype => {}
                Operation::Pool { .. } | Operation::Cast(_) => plan.values.push(operation.clone()),
                Operation::To(_) => {}
            }
            signature = after;
        }
        Ok(plan)
    }

    /// The casts and pools as text: `cast(f32) mean_pool(s)`, or `none`.
    pub fn value_chain(&self) -> String {
        match &self.values[..] {
            [] => "none".to_owned(),
            values => values.iter().map(Operation::to_string).collect::<Vec<_>>().join(" "),
        }
    }

    /// Whether some operation pools `axis`.
    pub fn pools(&self, axis: Axis) -> bool {
        self.values.iter().any(|operation| matches!(operation, Operation::Pool { axis: pooled, .. } if *pooled == axis))
    }
}

impl fmt::Display for LogicalPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axis = if self.drops_layer_axis { ", axis l dropped" } else { "" };
        writeln!(f, "samples [{}]", abbreviate(&self.samples))?;
        writeln!(f, "layers [{}]{axis}", abbreviate(&self.layers))?;
        write!(f, "then {}", self.value_chain())
    }
}

#[cfg(test)]
mod tests {
    use actbench_kernels::{DType, PoolMethod};

    use super::*;
    use crate::plan::axes::Axes;
    use crate::plan::operation::BatchSelection;

    fn source() -> Signature {
        Signature {
            axes: Axes::BLSH,
            n_samples: 10,
            layer_ids: [1, 4, 6, 8].into(),
            seq_len: 3,
            hidden_size: 2,
            dtype: DType::Bf16,
            has_mask: true,
        }
    }

    #[test]
    fn selections_in_a_row_compose() {
        let operations = [
            Operation::SliceBatch((2..8).into()),
            Operation::SelectLayers([8, 4, 1].into()),
            Operation::SliceBatch(vec![-1, 0, 0, 3].into()),
            Operation::SelectLayers([1, 8].into()),
            Operation::SliceBatch(BatchSelection::range(1, -1)),
        ];
        let plan = LogicalPlan::of(&source(), &operations).unwrap();
        assert_eq!(plan.samples[..], [2, 2]);
        assert_eq!(plan.layers[..], [1, 8]);
        assert_eq!(plan.value_chain(), "none");
    }

    #[test]
    fn selections_move_before_values_and_values_keep_their_order() {
        let operations = [
            Operation::Cast(DType::Bf16),
            Operation::Cast(DType::F32),
            Operation::Pool { method: PoolMethod::Mean, axis: Axis::Sequence },
            Operation::SliceBatch((..2).into()),
            Operation::Cast(DType::F16),
            Operation::SelectLayer(6),
        ];
        let plan = LogicalPlan::of(&source(), &operations).unwrap();
        assert!(plan.pools(Axis::Sequence) && !plan.pools(Axis::Layer));
        insta::assert_snapshot!(plan, @r"
        samples [0, 1]
        layers [6], axis l dropped
        then cast(f32) mean_pool(s) cast(f16)
        ");
    }
}
