//! Batches in streams, a thread each: features and costs are those of one stream, errors and interrupts of any stream reach the
//! caller, and no thread outlives its session.

use std::sync::Arc;

use actbench_activations::model::host_streams::HostStreams;
use actbench_activations::model::{ActivationModel, ModelStep, SessionEvent, StepOutput, TokenBatch, run_batch};
use actbench_activations::plan::{Acts, Axis, Rules};
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_activations::{Error, Result, eager};
use actbench_kernels::{CpuBackend, DType, PoolMethod};

use crate::fake_model::{FakeModel, VOCABULARY};
use crate::shared_prefixes::tiny_over;

/// `n` sequences of `own` tokens after `shared` common ones; ids are below `vocabulary`.
fn sequences(n: u32, shared: u32, own: u32, vocabulary: u32) -> Arc<TokenSet> {
    let sequence = |sample: u32| {
        let id = |position: u32| match position.checked_sub(shared) {
            None => position * 7 % vocabulary,
            Some(offset) => (sample >> offset.min(20)) * (offset + 1) % vocabulary,
        };
        let ids: Vec<u32> = (0..shared + own).map(id).collect();
        let mask = (0..shared + own).map(|position| position >= shared / 2 + sample % 3).collect();
        TokenSequence { ids, mask }
    };
    Arc::new(TokenSet { sequences: (0..n).map(sequence).collect() })
}

fn plan(model: Arc<dyn ActivationModel>, tokens: &Arc<TokenSet>, batch_size: usize, no_opt: &[&str]) -> Acts {
    let plan = Acts::collect(model, tokens.clone(), &[0, 2], batch_size).unwrap();
    plan.with_rules(Rules::all_but(no_opt).unwrap()).pool(PoolMethod::Mean, Axis::Sequence).unwrap()
}

fn tiny(threads: usize) -> Arc<dyn ActivationModel> {
    let model = tiny_over(CpuBackend::new(threads).unwrap(), DType::Bf16, 3);
    Arc::new(HostStreams::new(model, threads))
}

#[test]
fn streams_give_the_features_of_one() {
    // Batches of 640 tokens; a prefix that all samples share, none, too few tokens, and a prefix too long to be computed twice.
    for (name, tokens, in_streams) in [
        ("chain", sequences(40, 5, 35, 997), true),
        ("alone", sequences(20, 0, 40, 997), true),
        ("one batch", sequences(9, 5, 35, 997), false),
        ("long prefix", sequences(50, 80, 16, 997), false),
    ] {
        for no_opt in [&[][..], &["prefix"], &["packing"], &["pooling"]] {
            let batch_size = if name == "long prefix" { 6 } else { 16 };
            let one = plan(tiny(1), &tokens, batch_size, no_opt);
            assert_eq!(one.cost().unwrap().unwrap().streams, 1);
            let expected = one.realize().unwrap();
            for threads in [2, 3] {
                let model = tiny(threads);
                let several = plan(model.clone(), &tokens, batch_size, no_opt);
                let cost = several.cost().unwrap().unwrap();
                if no_opt.is_empty() {
                    assert_eq!(cost.streams, if in_streams { threads as u64 } else { 1 }, "{name}");
                }
                assert_eq!(
                    several.realize().unwrap().bytes(),
                    expected.bytes(),
                    "{name}, {no_opt:?}, {threads} threads"
                );
                let stats = several.stats();
                let (counted, run) = ((cost.tokens_computed, cost.batches, cost.flops), several.stats());
                assert_eq!(counted, (run.tokens_computed, run.batches, run.flops), "{name}, {no_opt:?}: {stats:?}");
                assert_eq!(stats.tokens_total, one.stats().tokens_total);
            }
        }
    }
}

#[test]
fn eager_streams_give_the_features_of_one() {
    let tokens = sequences(30, 5, 20, 997);
    for batch_size in [4, 40] {
        let extract = |threads: usize| {
            let model = tiny(threads);
            let pooled = eager::extract_layer_pooled(&*model, &tokens, 2, batch_size, PoolMethod::Mean, None).unwrap();
            let full = eager::extract_full(&*model, &tokens, &[2, 0], batch_size, None).unwrap();
            let cost = eager::cost(&*model, &tokens, &[2, 0], batch_size).unwrap();
            assert_eq!(cost.streams, if batch_size == 40 { 1 } else { threads as u64 });
            assert_eq!((cost.tokens_computed, cost.batches), (full.stats.tokens_computed, full.stats.batches));
            (pooled.tensor.bytes().to_vec(), full.tensor.bytes().to_vec())
        };
        let expected = extract(1);
        for threads in [2, 3] {
            assert!(extract(threads) == expected, "batches of {batch_size}, {threads} threads");
        }
    }
}

/// 20 batches of 256 tokens in two streams over a fake model.
fn fake_plan(model: FakeModel) -> (Arc<HostStreams<FakeModel>>, Acts) {
    let model = Arc::new(HostStreams::new(model, 2));
    let plan = plan(model.clone(), &sequences(320, 0, 16, VOCABULARY), 16, &["prefix", "mask", "tail"]);
    (model, plan)
}

#[test]
fn error_of_one_stream_ends_the_others() {
    for run in [0, 1, 7, 19] {
        let (_, plan) = fake_plan(FakeModel::failing_at(run, 4, DType::Bf16));
        let cost = plan.cost().unwrap().unwrap();
        assert_eq!((cost.streams, cost.batches), (2, 20));
        let error = plan.realize().unwrap_err();
        assert!(error.to_string().contains("the fake model fails by request"), "{error}");
        assert!(plan.stats().batches <= 19, "{:?}", plan.stats());
    }
}

#[test]
fn interrupt_ends_all_streams() {
    let (_, plan) = fake_plan(FakeModel::new(4, DType::Bf16));
    let plan = plan.with_interrupt(|| true);
    assert!(matches!(plan.realize().unwrap_err(), Error::Interrupted));
    assert_eq!(plan.stats().batches, 1, "the first batch is the last");
}

#[test]
fn progress_counts_every_sample_once() {
    use std::sync::Mutex;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (_, plan) = fake_plan(FakeModel::new(4, DType::Bf16));
    let sink = seen.clone();
    let plan = plan.with_progress(Arc::new(move |step| sink.lock().unwrap().push((step.done, step.total))));
    plan.realize().unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 20 && seen.is_sorted_by(|a, b| a.0 < b.0), "{seen:?}");
    assert_eq!(seen.last(), Some(&(320, 320)));
}

#[test]
fn streams_halve_batches_that_do_not_fit() {
    let (_, whole) = fake_plan(FakeModel::new(4, DType::Bf16));
    let mut small = FakeModel::new(4, DType::Bf16);
    small.memory_tokens = Some(100);
    let (_, halved) = fake_plan(small);
    assert_eq!(halved.realize().unwrap().bytes(), whole.realize().unwrap().bytes());
    assert!(halved.stats().halvings > 0);
}

/// A batch of one token.
fn step(id: u64) -> ModelStep {
    ModelStep { id, batch: TokenBatch::of_sequences([&[1][..]]), output: StepOutput::Tokens }
}

#[test]
fn dropped_session_ends_its_streams() -> Result<()> {
    let model = tiny(2);
    for n_events in 0..6 {
        let mut session = model.session(&[0, 1, 2])?;
        // A second session of the model runs while the first one has batches in flight.
        run_batch(&*model, &step(0).batch, &[0], actbench_activations::model::LayerOutput::Tokens, &mut |_, _| Ok(()))?;
        for id in 0..n_events {
            if let SessionEvent::NeedsBatch { stream } = session.next()? {
                session.submit(stream, step(id))?;
            }
        }
        drop(session);
    }
    Ok(())
}

#[test]
fn invalid_batch_is_an_error_of_its_stream() {
    let model = tiny(2);
    let mut session = model.session(&[0]).unwrap();
    let mut wrong = step(1);
    wrong.batch.positions = vec![1000];
    let mut left = vec![step(0), wrong];
    let error = loop {
        match session.next() {
            Ok(SessionEvent::NeedsBatch { stream }) => match left.pop() {
                Some(step) => session.submit(stream, step).unwrap(),
                None => session.close(stream),
            },
            Ok(SessionEvent::Output(_)) => {}
            Ok(SessionEvent::Finished) => panic!("the wrong batch was run"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("position 1000 is out of range"), "{error}");
}
