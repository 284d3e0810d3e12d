//! The logical plan: a normal form of which samples and layers are needed, and the operations on values.
//!
//! Every operation treats each sample alone, so a batch selection may move to the front. A layer selection commutes with
//! casts and with pools of `s`, and cannot follow a pool of `l`, so it moves to the front as well. Casts and pools remain;
//! they round, and therefore keep their order. Consecutive selections compose to one.

use std::fmt;
use std::sync::Arc;

use super::axes::Axis;
use super::operation::{Operation, abbreviate};
use super::signature::Signature;
use crate::error::Result;

/// A plan in two steps: select samples and layers of the source, then change values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalPlan {
    /// The source's sample that each sample of the result is.
    pub samples: Arc<[usize]>,
    /// The selected layers, in order; the source's own if it has no axis `l`.
    pub layers: Arc<[usize]>,
    /// Whether selecting a layer drops axis `l`.
    pub drops_layer_axis: bool,
    /// Casts and pools in the order of the plan; casts to the type that values already have are left out.
    pub values: Vec<Operation>,
}

impl LogicalPlan {
    /// Brings `operations` on a source of signature `source` to normal form.
    ///
    /// # Errors
    /// An operation that does not fit; those of a plan were checked when they were added.
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
    fn consecutive_selections_compose() {
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
    fn selections_move_first_and_values_keep_order() {
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
