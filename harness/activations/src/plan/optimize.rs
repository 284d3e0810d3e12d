//! The physical plan: the part of a plan that the source does itself, and the operations on its output.

use std::fmt;
use std::sync::Arc;

use actbench_kernels::{DType, PoolMethod};

use super::axes::Axis;
use super::logical::LogicalPlan;
use super::operation::{Operation, abbreviate};
use super::rules::{Rule, Rules};
use super::signature::Signature;
use super::sources::SourceRequest;

/// A plan cut in two: a request to the source, and the operations on each batch that it emits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptimizedPlan {
    /// The source's sample that each sample of the result is.
    pub samples: Arc<[usize]>,
    /// Whether the source is asked for all of its samples, needed or not.
    pub all_samples: bool,
    /// The layers asked of the source, in order; its own if it has no axis `l`.
    pub layers: Arc<[usize]>,
    /// How the source pools axis `s`, if it does.
    pub pool: Option<PoolMethod>,
    /// Whether only pooled positions of axis `s` matter, so that the source may leave out a sample's later ones.
    pub cut_tails: bool,
    /// The operations on each batch afterwards.
    pub remaining: Vec<Operation>,
    /// The rules that shaped this plan; sources apply them too.
    pub rules: Rules,
}

impl OptimizedPlan {
    /// Pushes operations down to the source as far as `rules` allow.
    pub fn of(source: &Signature, logical: &LogicalPlan, rules: Rules) -> Self {
        let mut remaining = Vec::new();
        let mut layers = logical.layers.clone();
        if !rules.has(Rule::Layers) {
            layers = source.layer_ids.clone();
        }
        if logical.drops_layer_axis {
            remaining.extend(logical.layers.iter().map(|id| Operation::SelectLayer(*id)));
        } else if layers != logical.layers {
            remaining.push(Operation::SelectLayers(logical.layers.clone()));
        }
        let mut values = logical.values.clone();
        let pushed = rules.has(Rule::Pooling).then(|| first_pool(&values)).flatten();
        if let Some((index, _)) = pushed {
            values.remove(index);
        }
        remaining.extend(values);
        OptimizedPlan {
            samples: logical.samples.clone(),
            all_samples: !rules.has(Rule::Batch),
            layers,
            pool: pushed.map(|(_, method)| method),
            cut_tails: rules.has(Rule::Tail) && logical.pools(Axis::Sequence),
            remaining,
            rules,
        }
    }

    /// The request to the source for `samples`, which are distinct.
    pub(super) fn request<'a>(&'a self, samples: &'a [usize]) -> SourceRequest<'a> {
        SourceRequest { samples, layers: &self.layers, pool: self.pool, cut_tails: self.cut_tails, rules: self.rules }
    }

    /// Whether the output of the source is the result, apart from the number of its layer.
    pub fn is_plain(&self) -> bool {
        self.pool.is_none() && self.remaining.iter().all(|operation| matches!(operation, Operation::SelectLayer(_)))
    }
}

/// The pool of `s` in `values` with its index, if it may move to the front.
///
/// A pool rounds, so it moves only past operations that it commutes with bit by bit: `last` copies one position, which
/// commutes with casts and with pools of `l`; `max` picks one, which commutes with the exact cast, to `f32`. A sum commutes
/// with no operation: a cast before it decides how it is rounded.
fn first_pool(values: &[Operation]) -> Option<(usize, PoolMethod)> {
    values
        .iter()
        .enumerate()
        .find_map(|(index, operation)| match operation {
            Operation::Pool { method, axis: Axis::Sequence } => Some((index, *method)),
            _ => None,
        })
        .filter(|(index, method)| {
            let exact = values[..*index].iter().all(|before| *before == Operation::Cast(DType::F32));
            match method {
                PoolMethod::Last => true,
                PoolMethod::Max => exact,
                PoolMethod::Mean | PoolMethod::Sum => *index == 0,
            }
        })
}

impl fmt::Display for OptimizedPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.all_samples { "all samples, of which" } else { "samples" };
        writeln!(f, "source: {all} [{}]", abbreviate(&self.samples))?;
        writeln!(f, "source: layers [{}]", abbreviate(&self.layers))?;
        if let Some(method) = self.pool {
            writeln!(f, "source: {method}_pool(s)")?;
        }
        self.remaining.iter().try_for_each(|operation| writeln!(f, "batches: {operation}"))?;
        write!(f, "rules: {}", self.rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::axes::Axes;

    fn optimize(operations: &[Operation], rules: Rules) -> OptimizedPlan {
        let source = Signature {
            axes: Axes::BLSH,
            n_samples: 6,
            layer_ids: [0, 1, 2].into(),
            seq_len: 3,
            hidden_size: 2,
            dtype: DType::Bf16,
            has_mask: true,
        };
        OptimizedPlan::of(&source, &LogicalPlan::of(&source, operations).unwrap(), rules)
    }

    fn pool(method: PoolMethod, axis: Axis) -> Operation {
        Operation::Pool { method, axis }
    }

    #[test]
    fn pool_moves_to_source_past_selections() {
        let operations = [
            Operation::SliceBatch((..2).into()),
            pool(PoolMethod::Mean, Axis::Sequence),
            Operation::SelectLayer(1),
            Operation::Cast(DType::F32),
        ];
        insta::assert_snapshot!(optimize(&operations, Rules::all()), @r"
        source: samples [0, 1]
        source: layers [1]
        source: mean_pool(s)
        batches: select_layer(1)
        batches: cast(f32)
        rules: depth, packing, mask, tail, pooling, prefix, layers, batch
        ");
        insta::assert_snapshot!(optimize(&operations, Rules::none()), @r"
        source: all samples, of which [0, 1]
        source: layers [0, 1, 2]
        batches: select_layer(1)
        batches: mean_pool(s)
        batches: cast(f32)
        rules: none
        ");
    }

    #[test]
    fn pool_passes_cast_only_without_changing_bits() {
        let moved = |method, casts: &[DType]| {
            let mut operations: Vec<Operation> = casts.iter().map(|dtype| Operation::Cast(*dtype)).collect();
            operations.push(pool(method, Axis::Sequence));
            optimize(&operations, Rules::all()).pool
        };
        assert_eq!(moved(PoolMethod::Mean, &[DType::F32]), None);
        assert_eq!(moved(PoolMethod::Sum, &[DType::F32]), None);
        assert_eq!(moved(PoolMethod::Max, &[DType::F32]), Some(PoolMethod::Max));
        assert_eq!(moved(PoolMethod::Max, &[DType::F32, DType::F16]), None);
        assert_eq!(moved(PoolMethod::Last, &[DType::F32, DType::F16]), Some(PoolMethod::Last));
        assert_eq!(moved(PoolMethod::Mean, &[DType::Bf16]), Some(PoolMethod::Mean));
    }

    #[test]
    fn only_last_pool_passes_layer_pool() {
        for method in PoolMethod::ALL {
            let operations = [pool(PoolMethod::Sum, Axis::Layer), pool(method, Axis::Sequence)];
            let plan = optimize(&operations, Rules::all());
            let moved = (method == PoolMethod::Last).then_some(method);
            assert_eq!((plan.pool, plan.remaining.len()), (moved, if moved.is_some() { 1 } else { 2 }));
        }
        assert!(!optimize(&[pool(PoolMethod::Sum, Axis::Layer)], Rules::all()).is_plain());
        assert!(optimize(&[Operation::SelectLayer(2)], Rules::all()).is_plain());
    }
}
