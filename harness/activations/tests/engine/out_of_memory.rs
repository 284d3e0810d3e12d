//! A device that is out of memory: lazy extraction halves its batches, without changing a bit, until a sample alone does
//! not fit. And several streams of batches.

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

fn model(memory_tokens: Option<usize>, n_streams: usize) -> Arc<FakeModel> {
    let mut model = FakeModel::new(4, DType::Bf16);
    (model.memory_tokens, model.n_streams) = (memory_tokens, n_streams);
    Arc::new(model)
}

#[test]
fn batches_are_halved_until_they_fit() {
    for no_opt in [&[][..], &["prefix"], &["packing"], &["mask"], &["pooling"], &["all"]] {
        let expected = plan(&model(None, 1), no_opt);
        let bytes = expected.realize().unwrap();
        assert_eq!(expected.stats().halvings, 0);
        for memory_tokens in [8, 11, 20] {
            let model = model(Some(memory_tokens), 1);
            let plan = plan(&model, no_opt);
            assert_eq!(plan.realize().unwrap().bytes(), bytes.bytes(), "{no_opt:?} in {memory_tokens} tokens");
            let stats = plan.stats();
            assert!(stats.halvings > 0 || memory_tokens == 20, "{no_opt:?} in {memory_tokens} tokens: {stats:?}");
            assert_eq!(stats.tokens_total, expected.stats().tokens_total);
            assert!(stats.batches > expected.stats().batches || stats.halvings == 0);
        }
    }
}

#[test]
fn sample_that_does_not_fit_is_device_error() {
    for no_opt in [&[][..], &["packing"]] {
        // Two samples of 8 tokens need 7 of them.
        let error = plan(&model(Some(6), 1), no_opt).realize().unwrap_err();
        assert!(matches!(error, Error::Kernel(KernelError::OutOfMemory { .. })), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn eager_batches_are_not_halved() {
    let sequences = sequences();
    let pairs: Vec<(&[u32], &[bool])> = sequences.iter().map(|(ids, mask)| (&ids[..], &mask[..])).collect();
    let model = model(Some(20), 1);
    let error =
        eager::extract_layer_pooled(model.as_ref(), &token_set(&pairs), 1, 6, PoolMethod::Mean, None).unwrap_err();
    assert!(matches!(error, Error::Kernel(KernelError::OutOfMemory { .. })), "{error}");
}

#[test]
fn streams_change_no_bit() {
    for no_opt in [&[][..], &["prefix"], &["packing"], &["batch"]] {
        let one = plan(&model(None, 1), no_opt);
        let expected = one.realize().unwrap();
        for n_streams in [2, 3, 5, 20] {
            let model = model(None, n_streams);
            let several = plan(&model, no_opt);
            assert_eq!(several.realize().unwrap().bytes(), expected.bytes(), "{no_opt:?} in {n_streams} streams");
            assert_eq!(several.stats().tokens_total, one.stats().tokens_total);
            // A prefix that samples of two streams share is computed in both.
            assert!(several.stats().tokens_computed >= one.stats().tokens_computed || no_opt == ["packing"]);
        }
    }
}
