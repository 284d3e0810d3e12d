//! Random plans over every source, materialized in every way, compared with the reference semantics of their operations on
//! the full tensor; and the eager baseline compared with the lazy plan. All comparisons are of bytes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::fake_model::{FakeModel, VOCABULARY, assert_same};
use actbench_activations::eager;
use actbench_activations::plan::{ActTensor, Acts, Axis, BatchSelection, Operation, Rule, Rules};
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_kernels::{DType, PoolMethod};
use proptest::prelude::*;

const N_LAYERS: usize = 6;

fn arbitrary_tokens() -> impl Strategy<Value = TokenSet> {
    let pairs = prop::collection::vec((0..VOCABULARY, any::<bool>()), 1..8);
    prop::collection::vec(pairs, 1..12).prop_map(|sequences| TokenSet {
        sequences: sequences
            .into_iter()
            .map(|pairs| {
                let (ids, mask) = pairs.into_iter().unzip();
                TokenSequence { ids, mask }
            })
            .collect(),
    })
}

fn arbitrary_dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16])
}

fn arbitrary_method() -> impl Strategy<Value = PoolMethod> {
    prop::sample::select(PoolMethod::ALL.to_vec())
}

fn arbitrary_layers() -> impl Strategy<Value = Vec<usize>> {
    (Just((0..N_LAYERS).collect::<Vec<_>>()).prop_shuffle(), 1..=N_LAYERS).prop_map(|(mut layers, n)| {
        layers.truncate(n);
        layers
    })
}

fn arbitrary_rules() -> impl Strategy<Value = Rules> {
    prop::collection::vec(any::<bool>(), Rule::ALL.len()).prop_map(|on| {
        Rule::ALL.into_iter().zip(on).filter(|(_, on)| !on).fold(Rules::all(), |rules, (rule, _)| rules.without(rule))
    })
}

/// A random step that becomes an operation on the tensor that it is applied to, so that chains are long and legal.
#[derive(Clone, Debug)]
enum RandomStep {
    SelectLayers(Vec<prop::sample::Index>),
    SelectLayer(prop::sample::Index),
    Range(prop::sample::Index, prop::sample::Index, bool),
    Indices(Vec<(prop::sample::Index, bool)>),
    Pool(PoolMethod, Axis),
    Cast(DType),
}

fn arbitrary_step() -> impl Strategy<Value = RandomStep> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => prop::collection::vec(index(), 1..5).prop_map(RandomStep::SelectLayers),
        1 => index().prop_map(RandomStep::SelectLayer),
        2 => (index(), index(), any::<bool>()).prop_map(|(a, b, negative)| RandomStep::Range(a, b, negative)),
        2 => prop::collection::vec((index(), any::<bool>()), 0..7).prop_map(RandomStep::Indices),
        2 => arbitrary_method().prop_map(|method| RandomStep::Pool(method, Axis::Sequence)),
        1 => arbitrary_method().prop_map(|method| RandomStep::Pool(method, Axis::Layer)),
        2 => arbitrary_dtype().prop_map(RandomStep::Cast),
    ]
}

impl RandomStep {
    /// The operation of this step on `tensor`, if there is one.
    fn operation_on(&self, tensor: &ActTensor) -> Option<Operation> {
        let n = tensor.signature().n_samples;
        let ids = tensor.layer_ids();
        let has_layers = tensor.axes().has(Axis::Layer);
        let signed = |index: usize, negative: bool| if negative { index as i64 - n as i64 } else { index as i64 };
        match self {
            RandomStep::SelectLayers(picks) if has_layers => {
                let mut seen = BTreeSet::new();
                let picked = picks.iter().map(|pick| ids[pick.index(ids.len())]).filter(|id| seen.insert(*id));
                Some(Operation::SelectLayers(picked.collect()))
            }
            RandomStep::SelectLayer(pick) if has_layers => Some(Operation::SelectLayer(ids[pick.index(ids.len())])),
            RandomStep::Range(a, b, negative) => {
                let (a, b) = (a.index(n + 1), b.index(n + 1));
                // The bound past the end has no negative name.
                let end = if a.max(b) == n { None } else { Some(signed(a.max(b), *negative)) };
                let start = if a.min(b) == n { n as i64 } else { signed(a.min(b), *negative) };
                Some(Operation::SliceBatch(BatchSelection::range(start, end)))
            }
            RandomStep::Indices(picks) if n > 0 => {
                let indices = picks.iter().map(|(pick, negative)| signed(pick.index(n), *negative));
                Some(Operation::SliceBatch(indices.collect::<Vec<i64>>().into()))
            }
            RandomStep::Pool(method, axis) if tensor.axes().has(*axis) => {
                Some(Operation::Pool { method: *method, axis: *axis })
            }
            RandomStep::Cast(dtype) => Some(Operation::Cast(*dtype)),
            _ => None,
        }
    }
}

/// The operations of `steps` on `full`, and their result by the reference semantics.
fn interpret(full: &ActTensor, steps: &[RandomStep]) -> (Vec<Operation>, ActTensor) {
    let mut operations = Vec::new();
    let mut tensor = full.clone();
    for step in steps {
        if let Some(operation) = step.operation_on(&tensor) {
            tensor = tensor.apply(&operation).unwrap();
            operations.push(operation);
        }
    }
    (operations, tensor)
}

fn plan(source: Acts, operations: &[Operation], rules: Rules) -> Acts {
    operations.iter().fold(source, |plan, operation| plan.then(operation.clone()).unwrap()).with_rules(rules)
}

/// Materializes `plan` in every way and compares each result with `expected`.
fn check_every_way(plan: &Acts, expected: &ActTensor, n: usize, directory: &Path) {
    assert_eq!(plan.signature(), expected.signature(), "\n{plan}");
    assert_same(&plan.realize().unwrap(), expected, &format!("realize\n{plan}"));

    let n_samples = expected.signature().n_samples;
    let mut next = 0;
    for part in plan.iter_batches(n).unwrap() {
        let end = (next + n).min(n_samples);
        let slice = expected.slice_batch(next as i64..end as i64).unwrap();
        assert_same(&part.unwrap(), &slice, &format!("iter_batches({n}) at {next}\n{plan}"));
        next = end;
    }
    assert_eq!(next, n_samples);

    if expected.axes().has(Axis::Layer) {
        let layers: Vec<(usize, ActTensor)> = plan.iter_layers().unwrap().map(Result::unwrap).collect();
        let ids: Vec<usize> = layers.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, expected.layer_ids());
        for (id, layer) in layers {
            assert_same(&layer, &expected.select_layer(id).unwrap(), &format!("iter_layers at {id}\n{plan}"));
        }
    } else {
        assert!(plan.iter_layers().is_err());
    }

    let path = directory.join("plan.safetensors");
    plan.save(&path).unwrap();
    assert_same(&Acts::load(&path).unwrap().realize().unwrap(), expected, &format!("save and load\n{plan}"));
    let copy = plan.cache(Some(&path)).unwrap();
    assert_same(&copy.realize().unwrap(), expected, &format!("cache on disk\n{plan}"));
    assert_same(&plan.cache(None).unwrap().realize().unwrap(), expected, &format!("cache in memory\n{plan}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn plan_matches_reference_semantics(
        tokens in arbitrary_tokens(), layers in arbitrary_layers(), dtype in arbitrary_dtype(), batch_size in 1usize..7,
        steps in prop::collection::vec(arbitrary_step(), 0..8), rules in arbitrary_rules(), n in 1usize..9,
    ) {
        let model = Arc::new(FakeModel::new(N_LAYERS, dtype));
        let full = model.reference(&tokens, &layers);
        let (operations, expected) = interpret(&full, &steps);
        let directory = tempfile::tempdir().unwrap();
        let from_model = Acts::collect(model, Arc::new(tokens), &layers, batch_size).unwrap();
        let file = directory.path().join("full.safetensors");
        from_model.save(&file).unwrap();
        for source in [from_model, Acts::from_tensor(full), Acts::load(&file).unwrap()] {
            check_every_way(&plan(source, &operations, rules), &expected, n, directory.path());
        }
    }

    #[test]
    fn cache_in_the_middle_changes_no_byte(
        tokens in arbitrary_tokens(), layers in arbitrary_layers(), dtype in arbitrary_dtype(),
        before in prop::collection::vec(arbitrary_step(), 0..4), after in prop::collection::vec(arbitrary_step(), 0..4),
        on_disk in any::<bool>(),
    ) {
        let model = Arc::new(FakeModel::new(N_LAYERS, dtype));
        let (first, middle) = interpret(&model.reference(&tokens, &layers), &before);
        let (second, expected) = interpret(&middle, &after);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("middle.safetensors");
        let start = plan(Acts::collect(model, Arc::new(tokens), &layers, 3).unwrap(), &first, Rules::all());
        let copy = start.cache(on_disk.then_some(path.as_path())).unwrap();
        let end = plan(copy, &second, Rules::all());
        assert_same(&end.realize().unwrap(), &expected, &end.to_string());
    }

    #[test]
    fn eager_and_lazy_are_bit_identical(
        tokens in arbitrary_tokens(), layers in arbitrary_layers(), dtype in arbitrary_dtype(),
        method in arbitrary_method(), eager_batch in 1usize..9, lazy_batch in 1usize..9, rules in arbitrary_rules(),
    ) {
        let model = Arc::new(FakeModel::new(N_LAYERS, dtype));
        let full = eager::extract_full(model.as_ref(), &tokens, &layers, eager_batch, None).unwrap();
        assert_same(&full.tensor, &model.reference(&tokens, &layers), "eager, full");
        prop_assert!(full.stats.tokens_computed >= full.stats.tokens_total);
        prop_assert_eq!(full.stats.tokens_total, tokens.n_tokens() as u64);
        prop_assert_eq!(full.stats.batches, tokens.len().div_ceil(eager_batch) as u64);

        let lazy = Acts::collect(model.clone(), Arc::new(tokens.clone()), &layers, lazy_batch).unwrap();
        let lazy = lazy.with_rules(rules).pool(method, Axis::Sequence).unwrap();
        for (layer, pooled) in lazy.iter_layers().unwrap().map(Result::unwrap) {
            assert_same(&full.tensor.pool_layer(layer, method).unwrap(), &pooled, "eager, full and then pooled");
            let one =
                eager::extract_layer_pooled(model.as_ref(), &tokens, layer, eager_batch, method, None).unwrap();
            assert_same(&one.tensor, &pooled, "eager, one layer");
        }
    }

    #[test]
    fn repeated_samples_are_computed_once(
        tokens in arbitrary_tokens(), picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        batch_size in 1usize..5, n in 1usize..5, pooled in any::<bool>(),
    ) {
        let indices: Vec<i64> = picks.iter().map(|pick| pick.index(tokens.len()) as i64).collect();
        let distinct: BTreeSet<i64> = indices.iter().copied().collect();
        let wanted: usize = distinct.iter().map(|index| tokens.sequences[*index as usize].len()).sum();
        let run = |materialize: &dyn Fn(&Acts)| {
            let model = Arc::new(FakeModel::new(N_LAYERS, DType::Bf16));
            let mut plan = Acts::collect(model.clone(), Arc::new(tokens.clone()), &[1, 4], batch_size).unwrap();
            if pooled {
                plan = plan.max_pool(Axis::Sequence).unwrap();
            }
            let rules = Rules::all().without(Rule::Prefix).without(Rule::Tail);
            plan = plan.slice_batch(indices.clone()).unwrap().with_rules(rules);
            materialize(&plan);
            assert_eq!(model.log().tokens, wanted);
            let stats = plan.stats();
            assert_eq!((stats.tokens_total, stats.tokens_computed), (wanted as u64, wanted as u64));
            assert_eq!(stats.batches, model.log().runs as u64);
        };
        run(&|plan| drop(plan.realize().unwrap()));
        run(&|plan| plan.iter_batches(n).unwrap().for_each(|part| drop(part.unwrap())));
        run(&|plan| plan.iter_layers().unwrap().for_each(|layer| drop(layer.unwrap())));
        let directory = tempfile::tempdir().unwrap();
        run(&|plan| drop(plan.cache(Some(&directory.path().join(format!("{}", plan.axes())))).unwrap()));
    }
}
