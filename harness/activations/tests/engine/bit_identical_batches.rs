//! A sample's pooled features have the same bits however its tokens are batched, shared, padded, pruned or cut.

use actbench_activations::Result;
use actbench_activations::model::decoder::Decoder;
use actbench_activations::model::{ActivationModel, ModelSession, ModelStep, SessionEvent, StepOutput};
use actbench_activations::plan::batches::{Batches, Batching, ScheduledBatch};
use actbench_activations::plan::needed_tokens::NeededTokens;
use actbench_activations::plan::prefix::SharedPrefixes;
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_kernels::{CpuBackend, DType, PoolMethod};
use proptest::prelude::*;

use crate::shared_prefixes::{features, tiny_over};

fn tiny(dtype: DType, threads: usize) -> Decoder<CpuBackend> {
    tiny_over(CpuBackend::new(threads).unwrap(), dtype, 3)
}

fn arbitrary_tokens() -> impl Strategy<Value = TokenSet> {
    let stem = prop::collection::vec(0u32..4096, 0..20);
    let tails = prop::collection::vec(prop::collection::vec((0u32..3, any::<bool>()), 1..12), 1..12);
    (stem, tails).prop_map(|(stem, tails)| TokenSet {
        sequences: tails
            .into_iter()
            .map(|tail| TokenSequence {
                ids: stem.iter().copied().chain(tail.iter().map(|pair| pair.0)).collect(),
                mask: stem.iter().map(|id| id % 2 == 0).chain(tail.iter().map(|pair| pair.1)).collect(),
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn sharing_packing_padding_cutting_pruning_and_threads_keep_bits(
        tokens in arbitrary_tokens(), max_samples in 1usize..9, max_tokens in 1usize..60, threads in 1usize..4,
        method in prop::sample::select(PoolMethod::ALL.to_vec()),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
    ) {
        let all: Vec<usize> = (0..tokens.len()).collect();
        let reversed: Vec<usize> = all.iter().rev().copied().collect();
        let one = Batching { max_samples: 1, max_tokens: 1, padded: false, masked_only: false };
        let (single, several) = (tiny(dtype, 1), tiny(dtype, threads));
        let whole = NeededTokens::from(&tokens);
        let expected = features(&single, &[0, 2], whole, &SharedPrefixes::none(&all), one, method);
        let batching = Batching { max_samples, max_tokens, padded: false, masked_only: false };
        let cut = whole.without_tails();
        for (needed, prefixes, padded) in [
            (whole, SharedPrefixes::none(&reversed), false),
            (whole, SharedPrefixes::none(&all), true),
            (whole, SharedPrefixes::of(whole, &all), false),
            (cut, SharedPrefixes::none(&reversed), false),
            (cut, SharedPrefixes::none(&all), true),
            (cut, SharedPrefixes::of(cut, &all), false),
        ] {
            for masked_only in [false, true] {
                let batching = Batching { padded, masked_only, ..batching };
                let got = features(&several, &[0, 2], needed, &prefixes, batching, method);
                prop_assert!(got == expected, "{:?} {:?}", batching, needed);
            }
        }
    }
}

/// Two sequences in two batches, of which the second continues the prefix of the first.
fn two_batches() -> Vec<ModelStep> {
    let tokens = TokenSet {
        sequences: [[1u32, 2, 3], [1, 2, 4]]
            .map(|ids| TokenSequence { ids: ids.to_vec(), mask: vec![true; 3] })
            .to_vec(),
    };
    let prefixes = SharedPrefixes::of(&tokens, &[0, 1]);
    let batching = Batching { max_samples: 1, max_tokens: 1, padded: false, masked_only: false };
    let batches = Batches::new(&tokens, &prefixes, batching).enumerate();
    let step = |(id, scheduled): (usize, ScheduledBatch)| ModelStep {
        id: id as u64,
        batch: scheduled.batch,
        output: StepOutput::Tokens,
    };
    batches.map(step).collect()
}

/// Runs `step` in `session` and returns the bytes of its only layer.
fn run(session: &mut dyn ModelSession, step: &ModelStep) -> Result<Vec<u8>> {
    assert!(matches!(session.next()?, SessionEvent::NeedsBatch { stream: 0 }));
    session.submit(0, step.clone())?;
    match session.next()? {
        SessionEvent::Output(mut vectors) => Ok(vectors.bytes.wait()?.to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn prefix_cache_of_another_session_is_refused() {
    let steps = two_batches();
    let model = tiny(DType::F32, 1);
    run(model.session(&[0]).unwrap().as_mut(), &steps[0]).unwrap();
    // The session before has left its buffers, and not its prefix.
    let error = run(model.session(&[0]).unwrap().as_mut(), &steps[1]).unwrap_err();
    assert!(error.to_string().contains("its prefix tokens are not cached in this one"), "{error}");
}

#[test]
fn reserved_memory_changes_no_bit() {
    let steps = two_batches();
    let (model, reserved) = (tiny(DType::Bf16, 1), tiny(DType::Bf16, 1));
    reserved.reserve(40).unwrap();
    let (mut session, mut after) = (model.session(&[0]).unwrap(), reserved.session(&[0]).unwrap());
    for step in &steps {
        assert!(run(session.as_mut(), step).unwrap() == run(after.as_mut(), step).unwrap(), "step {}", step.id);
    }
}

#[test]
fn sessions_of_one_model_may_alternate() {
    let steps = two_batches();
    let model = tiny(DType::F32, 1);
    let mut alone = model.session(&[0]).unwrap();
    let expected = steps.iter().map(|step| run(alone.as_mut(), step).unwrap()).collect::<Vec<_>>();
    let (mut first, mut second) = (model.session(&[0]).unwrap(), model.session(&[0]).unwrap());
    for (step, expected) in steps.iter().zip(&expected) {
        for session in [&mut first, &mut second] {
            assert!(run(session.as_mut(), step).unwrap() == *expected, "step {}", step.id);
        }
    }
}
