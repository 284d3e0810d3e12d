//! Outputs that land part by part while later batches are submitted, on a fake device.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use actbench_activations::model::memory_model::MAX_PENDING_COPIES;
use actbench_activations::model::{
    ActivationModel, LayerBytes, LayerVectors, ModelSession, ModelStep, SessionEvent, StepOutput, TokenBatch,
    run_submitted,
};
use actbench_activations::plan::{Acts, Axis, Rules};
use actbench_activations::tokens::TokenSet;
use actbench_activations::{Error, Result, eager};
use actbench_kernels::{DType, DeviceUsage, KernelError, PendingCopy, PoolMethod};

use crate::fake_model::{FakeModel, HIDDEN, VOCABULARY, assert_same, token_set};

/// Bytes of a vector in `f32`.
const VECTOR: usize = HIDDEN * 4;

/// What happened, in order, and what must have happened before.
#[derive(Default)]
struct Events {
    log: Mutex<Vec<String>>,
    changed: Condvar,
    /// `(event, earlier)`: the thread of the first one waits for the second one.
    after: Vec<(&'static str, &'static str)>,
    /// Copies that have not landed, and the most of them at a time.
    n_pending: AtomicUsize,
    max_pending: AtomicUsize,
}

impl Events {
    fn note(&self, event: String) {
        let mut log = self.log.lock().unwrap();
        for (_, earlier) in self.after.iter().filter(|(later, _)| *later == event) {
            let is_missing = |log: &mut Vec<String>| !log.iter().any(|known| known == earlier);
            let (waited, timeout) = self.changed.wait_timeout_while(log, Duration::from_secs(10), is_missing).unwrap();
            log = waited;
            assert!(!timeout.timed_out(), "'{event}' came before '{earlier}': {log:?}");
        }
        log.push(event);
        self.changed.notify_all();
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    #[track_caller]
    fn assert_order(&self, events: &[&str]) {
        let log = self.log();
        let places: Vec<_> = events.iter().map(|event| log.iter().position(|known| known == event)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{events:?} in {log:?}");
    }

    fn count(&self, beginning: &str) -> usize {
        self.log().iter().filter(|event| event.starts_with(beginning)).count()
    }
}

/// A fake model whose outputs are copies of parts.
struct FakeDevice {
    model: FakeModel,
    /// Bytes of a part.
    part: usize,
    /// The batch whose copy fails after its first part.
    failing: Option<u64>,
    events: Arc<Events>,
}

impl FakeDevice {
    fn new(model: FakeModel, part: usize, after: &[(&'static str, &'static str)]) -> Self {
        let events = Arc::new(Events { after: after.to_vec(), ..Events::default() });
        FakeDevice { model, part, failing: None, events }
    }
}

struct FakeDeviceSession<'a> {
    session: Box<dyn ModelSession + 'a>,
    device: &'a FakeDevice,
}

impl ModelSession for FakeDeviceSession<'_> {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        match self.session.next()? {
            SessionEvent::Output(LayerVectors { step, layer, mut bytes }) => {
                let FakeDevice { part, failing, events, .. } = self.device;
                let n_pending = events.n_pending.fetch_add(1, Ordering::SeqCst) + 1;
                events.max_pending.fetch_max(n_pending, Ordering::SeqCst);
                events.note(format!("emitted {step}"));
                let bytes = bytes.wait()?.to_vec();
                let (is_failing, events) = (*failing == Some(step), events.clone());
                let copy = CopyInParts { step, bytes, landed: 0, part: *part, is_failing, events };
                Ok(SessionEvent::Output(LayerVectors { step, layer, bytes: LayerBytes::Pending(Box::new(copy)) }))
            }
            SessionEvent::NeedsBatch { stream } => Ok(SessionEvent::NeedsBatch { stream }),
            SessionEvent::Finished => Ok(SessionEvent::Finished),
        }
    }

    fn submit(&mut self, stream: usize, step: ModelStep) -> Result<()> {
        self.device.events.note(format!("submitted {}", step.id));
        self.session.submit(stream, step)
    }

    fn close(&mut self, stream: usize) {
        self.session.close(stream);
    }
}

impl Drop for FakeDeviceSession<'_> {
    fn drop(&mut self) {
        self.device.events.note("session ended".to_owned());
    }
}

struct CopyInParts {
    step: u64,
    bytes: Vec<u8>,
    landed: usize,
    part: usize,
    is_failing: bool,
    events: Arc<Events>,
}

impl PendingCopy for CopyInParts {
    fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn wait_for(&mut self, n_bytes: usize) -> std::result::Result<&[u8], KernelError> {
        while self.landed < n_bytes.min(self.bytes.len()) {
            if self.is_failing && self.landed > 0 {
                return Err(KernelError::shape("read", "a part fails by request"));
            }
            let landed = self.bytes.len().min(self.landed + self.part);
            let is_last = landed == self.bytes.len();
            self.events.note(format!("landed {} {landed}{}", self.step, if is_last { ", all" } else { "" }));
            self.landed = landed;
        }
        Ok(&self.bytes[..self.landed])
    }
}

impl Drop for CopyInParts {
    fn drop(&mut self) {
        self.events.n_pending.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ActivationModel for FakeDevice {
    fn n_layers(&self) -> usize {
        self.model.n_layers()
    }

    fn hidden_size(&self) -> usize {
        self.model.hidden_size()
    }

    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn dtype(&self) -> DType {
        self.model.dtype()
    }

    fn fingerprint(&self) -> &str {
        self.model.fingerprint()
    }

    fn describe(&self) -> String {
        self.model.describe()
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.model.flops(batch, n_blocks)
    }

    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        Ok(Box::new(FakeDeviceSession { session: self.model.session(layers)?, device: self }))
    }

    fn streams(&self) -> usize {
        self.model.streams()
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    fn filled_batch_tokens(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    fn reserve(&self, _tokens: usize) -> Result<()> {
        Ok(())
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        Ok(Some(DeviceUsage::default()))
    }

    fn reset_device_usage(&self) -> Result<()> {
        Ok(())
    }
}

/// Eight sequences of 2 to 4 tokens, some of which begin alike; one has an empty mask.
fn tokens() -> TokenSet {
    let sequence = |index: u32| {
        let ids: Vec<u32> = (0..2 + index % 3).map(|position| (index / 3 + position * index) % VOCABULARY).collect();
        let mask = ids.iter().enumerate().map(|(position, _)| index != 4 && position != 1).collect();
        (ids, mask)
    };
    let sequences: Vec<(Vec<u32>, Vec<bool>)> = (0..8).map(sequence).collect();
    let pairs: Vec<(&[u32], &[bool])> = sequences.iter().map(|(ids, mask)| (&ids[..], &mask[..])).collect();
    token_set(&pairs)
}

fn lazy(model: Arc<dyn ActivationModel>, no_opt: &[&str], batch_size: usize) -> Acts {
    let plan = Acts::collect(model, Arc::new(tokens()), &[0, 2], batch_size).unwrap();
    plan.with_rules(Rules::all_but(no_opt).unwrap()).pool(PoolMethod::Mean, Axis::Sequence).unwrap()
}

#[test]
fn features_are_equal_for_all_parts() {
    for dtype in [DType::F32, DType::Bf16] {
        let host = Arc::new(FakeModel::new(4, dtype));
        // Parts that end inside a vector and inside an element, that hold several samples, and that hold all.
        for part in [7, 2 * VECTOR + 3, 5 * VECTOR, 1 << 20] {
            let device = Arc::new(FakeDevice::new(FakeModel::new(4, dtype), part, &[]));
            for batch_size in [1, 3, 8] {
                let what = format!("{dtype}, parts of {part} bytes, batches of {batch_size}");
                for method in PoolMethod::ALL {
                    let pooled = |model: &dyn ActivationModel| {
                        eager::extract_layer_pooled(model, &tokens(), 2, batch_size, method, None).unwrap()
                    };
                    let (got, expected) = (pooled(device.as_ref()), pooled(host.as_ref()));
                    assert_same(&got.tensor, &expected.tensor, &what);
                    assert_eq!(got.stats, expected.stats, "{what}");
                }
                let full = |model: &dyn ActivationModel| {
                    eager::extract_full(model, &tokens(), &[3, 1], batch_size, None).unwrap().tensor
                };
                assert_same(&full(device.as_ref()), &full(host.as_ref()), &what);
                for no_opt in [&[][..], &["pooling"], &["pooling", "prefix"], &["all"]] {
                    let got = lazy(device.clone(), no_opt, batch_size).realize().unwrap();
                    assert_same(&got, &lazy(host.clone(), no_opt, batch_size).realize().unwrap(), &what);
                }
            }
            assert_eq!(device.events.n_pending.load(Ordering::SeqCst), 0);
        }
    }
}

#[test]
fn batch_is_submitted_while_earlier_one_lands() {
    // The first sample of two tokens: its copy has begun to land before the second batch, and ends after it.
    let after = [("submitted 2", "landed 1 20"), ("landed 1 40, all", "submitted 2")];
    for method in ["eager", "full", "raw"] {
        let device = Arc::new(FakeDevice::new(FakeModel::new(4, DType::F32), VECTOR, &after));
        let model = device.as_ref();
        match method {
            "eager" => drop(eager::extract_layer_pooled(model, &tokens(), 2, 1, PoolMethod::Mean, None).unwrap()),
            "full" => drop(eager::extract_full(model, &tokens(), &[2], 1, None).unwrap()),
            _ => {
                let plan = Acts::collect(device.clone(), Arc::new(tokens()), &[2], 1).unwrap();
                drop(plan.with_rules(Rules::all_but(&["packing"]).unwrap()).realize().unwrap());
            }
        }
        device.events.assert_order(&["landed 1 20", "submitted 2", "landed 1 40, all", "session ended"]);
    }
}

#[test]
fn pending_copies_are_bounded() {
    let device = FakeDevice::new(FakeModel::new(4, DType::F32), VECTOR, &[("landed 1 20", "emitted 3")]);
    let mut steps = steps(8);
    let mut n_seen = 0;
    run_submitted(&device, &[2], &mut |_| steps.pop(), &mut |mut vectors| {
        vectors.bytes.wait()?;
        if n_seen == 0 {
            // Time in which an unbounded submitter would emit further batches.
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(device.events.count("emitted"), MAX_PENDING_COPIES + 1);
        }
        n_seen += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((n_seen, device.events.count("emitted")), (8, 8));
    assert_eq!(device.events.max_pending.load(Ordering::SeqCst), MAX_PENDING_COPIES + 1);
}

/// `count` steps of one token each; the last one has the first id.
fn steps(count: u64) -> Vec<ModelStep> {
    let step = |id| ModelStep { id, batch: TokenBatch::of_sequences([&[1, 0][..]]), output: StepOutput::Tokens };
    (1..=count).rev().map(step).collect()
}

#[test]
fn failing_copy_ends_extraction() {
    for failing in [1, 3, 8] {
        let mut device = FakeDevice::new(FakeModel::new(4, DType::F32), VECTOR, &[]);
        device.failing = Some(failing);
        let pooled = eager::extract_layer_pooled(&device, &tokens(), 2, 1, PoolMethod::Mean, None);
        let error = pooled.unwrap_err().to_string();
        assert!(error.contains("a part fails by request"), "{failing}: {error}");
        // The session of the last batches may end while their copies land.
        assert_eq!(device.events.count("session ended"), 1, "{failing}");
        assert_eq!(device.events.n_pending.load(Ordering::SeqCst), 0, "{failing}");
        assert!(device.events.count("submitted") <= failing as usize + MAX_PENDING_COPIES + 2, "{failing}");
    }
}

#[test]
fn failing_sink_ends_submission() {
    let device = FakeDevice::new(FakeModel::new(4, DType::F32), VECTOR, &[]);
    let mut steps = steps(8);
    let interrupted = run_submitted(&device, &[2], &mut |_| steps.pop(), &mut |_| Err(Error::Interrupted));
    assert!(matches!(interrupted, Err(Error::Interrupted)));
    assert!(device.events.count("submitted") <= MAX_PENDING_COPIES + 2, "{:?}", device.events.log());
    assert_eq!(device.events.log().last().map(String::as_str), Some("session ended"));
    assert_eq!(device.events.n_pending.load(Ordering::SeqCst), 0);
}

#[test]
fn outputs_before_failing_batch_are_consumed() {
    let device = FakeDevice::new(FakeModel::failing_at(2, 4, DType::F32), VECTOR, &[]);
    let (mut left, mut seen) = (steps(8), Vec::new());
    let mut sink = |mut vectors: LayerVectors<'_>| {
        seen.push((vectors.step, vectors.bytes.wait()?.len()));
        Ok(())
    };
    let failed = run_submitted(&device, &[2], &mut |_| left.pop(), &mut sink);
    assert!(failed.unwrap_err().to_string().contains("fails by request"));
    assert_eq!(seen, [(1, 2 * VECTOR), (2, 2 * VECTOR)]);
}

#[test]
fn batches_on_device_are_halved() {
    let host = lazy(Arc::new(FakeModel::new(4, DType::Bf16)), &["pooling"], 4);
    let mut model = FakeModel::new(4, DType::Bf16);
    model.memory_tokens = Some(5);
    let device = lazy(Arc::new(FakeDevice::new(model, VECTOR, &[])), &["pooling"], 4);
    assert_same(&device.realize().unwrap(), &host.realize().unwrap(), "halved");
    assert!(device.stats().halvings > 0);
    assert_eq!(device.stats().tokens_total, host.stats().tokens_total);
}
