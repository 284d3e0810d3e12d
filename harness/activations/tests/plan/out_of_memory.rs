//! A device without room for a batch: lazily the batch is halved and the result stays, until a sample alone has no room.

use std::sync::Arc;

use crate::fake_model::{FakeModel, VOCABULARY, token_set};
use actbench_activations::plan::{Acts, Axis, Rules};
use actbench_activations::{Error, eager};
use actbench_kernels::{DType, KernelError, PoolMethod};

/// Twelve sequences of 3 to 8 tokens, some of which begin alike.
fn sequences() -> Vec<(Vec<u32>, Vec<bool>)> {
    let sequence = |index: u32| {
        let ids: Vec<u32> = (0..3 + index % 6).map(|position| (index / 4 + position * index) % VOCABULARY).collect();
        let mask = ids.iter().enumerate().map(|(position, _)| position % 2 == 0).collect();
        (ids, mask)
    };
    (0..12).map(sequence).collect()
}

fn plan(model: &Arc<FakeModel>, no_opt: &[&str]) -> Acts {
    let sequences = sequences();
    let pairs: Vec<(&[u32], &[bool])> = sequences.iter().map(|(ids, mask)| (&ids[..], &mask[..])).collect();
    let plan = Acts::collect(model.clone(), Arc::new(token_set(&pairs)), &[0, 2], 6).unwrap();
    plan.with_rules(Rules::all_but(no_opt).unwrap()).pool(PoolMethod::Mean, Axis::Sequence).unwrap()
}

fn model(memory_rows: Option<usize>, n_lanes: usize) -> Arc<FakeModel> {
    let mut model = FakeModel::new(4, DType::Bf16);
    (model.memory_rows, model.n_lanes) = (memory_rows, n_lanes);
    Arc::new(model)
}

#[test]
fn batches_are_halved_until_they_fit_and_no_bit_changes() {
    for no_opt in [&[][..], &["prefix"], &["packing"], &["mask"], &["pooling"], &["all"]] {
        let expected = plan(&model(None, 1), no_opt);
        let bytes = expected.realize().unwrap();
        assert_eq!(expected.stats().halvings, 0);
        for memory_rows in [8, 11, 20] {
            let model = model(Some(memory_rows), 1);
            let plan = plan(&model, no_opt);
            assert_eq!(plan.realize().unwrap().bytes(), bytes.bytes(), "{no_opt:?} in {memory_rows} rows");
            let stats = plan.stats();
            assert!(stats.halvings > 0 || memory_rows == 20, "{no_opt:?} in {memory_rows} rows: {stats:?}");
            assert_eq!(stats.tokens_total, expected.stats().tokens_total);
            assert!(stats.batches > expected.stats().batches || stats.halvings == 0);
        }
    }
}

#[test]
fn a_sample_that_does_not_fit_alone_is_the_devices_own_error() {
    for no_opt in [&[][..], &["packing"]] {
        let error = plan(&model(Some(7), 1), no_opt).realize().unwrap_err();
        assert!(matches!(error, Error::Kernel(KernelError::OutOfMemory { .. })), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn eager_takes_its_batches_as_they_are() {
    let sequences = sequences();
    let pairs: Vec<(&[u32], &[bool])> = sequences.iter().map(|(ids, mask)| (&ids[..], &mask[..])).collect();
    let model = model(Some(20), 1);
    let error =
        eager::extract_layer_pooled(model.as_ref(), &token_set(&pairs), 1, 6, PoolMethod::Mean, None).unwrap_err();
    assert!(matches!(error, Error::Kernel(KernelError::OutOfMemory { .. })), "{error}");
}

#[test]
fn lanes_change_no_bit_and_each_sample_is_run_once() {
    for no_opt in [&[][..], &["prefix"], &["packing"], &["batch"]] {
        let one = plan(&model(None, 1), no_opt);
        let expected = one.realize().unwrap();
        for n_lanes in [2, 3, 5, 20] {
            let model = model(None, n_lanes);
            let several = plan(&model, no_opt);
            assert_eq!(several.realize().unwrap().bytes(), expected.bytes(), "{no_opt:?} in {n_lanes} lanes");
            assert_eq!(several.stats().tokens_total, one.stats().tokens_total);
            // A prefix that samples of two lanes share is computed in both.
            assert!(several.stats().tokens_computed >= one.stats().tokens_computed || no_opt == ["packing"]);
        }
    }
}
