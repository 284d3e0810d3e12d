//! A model around another that notes each forward pass in a profile.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actbench_kernels::{DType, DeviceUse, Profile};

use crate::error::Result;
use actbench_activations::model::{ActivationModel, LayerOutput, LayerSink, StepSink, StepSource, TokenBatch};

/// Passes everything on; each batch is a span.
pub struct TracedModel {
    model: Arc<dyn ActivationModel>,
    profile: Profile,
}

impl TracedModel {
    /// Around `model`.
    pub fn new(model: Arc<dyn ActivationModel>, profile: Profile) -> Self {
        TracedModel { model, profile }
    }
}

/// A batch under way.
struct UnderWay {
    id: u64,
    start: Duration,
    detail: String,
}

/// Batches under way, each with the lowest number that was free when it was given, counted from 1.
#[derive(Default)]
struct Slots(Vec<Option<UnderWay>>);

impl Slots {
    fn give(&mut self, batch: UnderWay) {
        match self.0.iter_mut().find(|slot| slot.is_none()) {
            Some(free) => *free = Some(batch),
            None => self.0.push(Some(batch)),
        }
    }

    fn take(&mut self, id: u64) -> Option<(usize, UnderWay)> {
        let slots = self.0.iter_mut().enumerate();
        let (index, slot) = slots.into_iter().find(|(_, slot)| slot.as_ref().is_some_and(|batch| batch.id == id))?;
        Some((index + 1, slot.take()?))
    }
}

fn told(batch: &TokenBatch) -> String {
    format!("{} rows, {} carried", batch.ids.len(), batch.n_carried)
}

impl ActivationModel for TracedModel {
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

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        let start = self.profile.now();
        let result = self.model.run(batch, layers, output, sink);
        self.profile.batch(told(batch), 1, start);
        result
    }

    fn lanes(&self) -> usize {
        self.model.lanes()
    }

    fn rows_that_fit(&self) -> Result<Option<usize>> {
        self.model.rows_that_fit()
    }

    fn run_all(&self, layers: &[usize], next: &mut StepSource<'_>, sink: &mut StepSink<'_>) -> Result<()> {
        let slots = RefCell::new(Slots::default());
        let deepest = layers.last().copied();
        let mut noted = |lane: usize| {
            let step = next(lane)?;
            let (id, start, detail) = (step.id, self.profile.now(), told(&step.batch));
            slots.borrow_mut().give(UnderWay { id, start, detail });
            Some(step)
        };
        self.model.run_all(layers, &mut noted, &mut |id, layer, rows| {
            if Some(layer) == deepest
                && let Some((number, batch)) = slots.borrow_mut().take(id)
            {
                self.profile.batch(batch.detail, number, batch.start);
            }
            sink(id, layer, rows)
        })
    }

    fn device_use(&self) -> Result<Option<DeviceUse>> {
        self.model.device_use()
    }

    fn reset_device_use(&self) -> Result<()> {
        self.model.reset_device_use()
    }
}
