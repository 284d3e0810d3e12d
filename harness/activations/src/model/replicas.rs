//! One model several times over, a copy a device: each runs walks of its own side by side with the others.

use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use actbench_kernels::{DType, DeviceUse};

use super::{ActivationModel, LayerOutput, LayerSink, Step, StepSink, StepSource, TokenBatch};
use crate::error::{Error, Result};

/// Steps that a copy is given before the first of them is done: more than it holds back while copies are under way.
const AHEAD: usize = 4;

/// Copies of a model.
pub struct Replicas<M> {
    models: Vec<M>,
    /// The first of them, which answers for all.
    first: M,
}

/// What a copy says.
enum Said {
    Rows { lane: usize, step: u64, layer: usize, rows: Vec<u8> },
    Ended { lane: usize, result: Result<()> },
}

impl<M: ActivationModel> Replicas<M> {
    /// Of copies of one model.
    ///
    /// # Errors
    /// None at all.
    pub fn new(models: Vec<M>) -> Result<Self> {
        let mut models = models.into_iter();
        let first = models.next().ok_or_else(|| Error::usage("replicas of a model need at least one device"))?;
        Ok(Replicas { models: models.collect(), first })
    }

    fn all(&self) -> impl Iterator<Item = &M> {
        std::iter::once(&self.first).chain(&self.models)
    }
}

impl<M: ActivationModel> ActivationModel for Replicas<M> {
    fn n_layers(&self) -> usize {
        self.first.n_layers()
    }

    fn hidden_size(&self) -> usize {
        self.first.hidden_size()
    }

    fn vocab_size(&self) -> usize {
        self.first.vocab_size()
    }

    fn dtype(&self) -> DType {
        self.first.dtype()
    }

    fn fingerprint(&self) -> &str {
        self.first.fingerprint()
    }

    fn describe(&self) -> String {
        self.all().map(ActivationModel::describe).collect::<Vec<_>>().join("; ")
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.first.flops(batch, n_blocks)
    }

    fn lanes(&self) -> usize {
        1 + self.models.len()
    }

    fn rows_that_fit(&self) -> Result<Option<usize>> {
        let fitting = self.all().map(ActivationModel::rows_that_fit).collect::<Result<Vec<_>>>()?;
        Ok(fitting.into_iter().flatten().min())
    }

    fn device_use(&self) -> Result<Option<DeviceUse>> {
        let used = self.all().map(ActivationModel::device_use).collect::<Result<Option<Vec<_>>>>()?;
        Ok(used.map(|used| used.into_iter().sum()))
    }

    fn reset_device_use(&self) -> Result<()> {
        self.all().try_for_each(ActivationModel::reset_device_use)
    }

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        self.first.run(batch, layers, output, sink)
    }

    fn run_all(&self, layers: &[usize], next: &mut StepSource<'_>, sink: &mut StepSink<'_>) -> Result<()> {
        let Some(&deepest) = layers.last() else { return Ok(()) };
        thread::scope(|scope| {
            let (tell, said) = channel();
            let mut feeds = Vec::new();
            for (lane, model) in self.all().enumerate() {
                let (feed, inbox) = sync_channel::<Step>(AHEAD);
                let tell = tell.clone();
                feeds.push(Some(feed));
                scope.spawn(move || {
                    let gone = |_| Error::Disagreement("nobody takes a model's results any more".to_owned());
                    let result = model.run_all(layers, &mut |_| inbox.recv().ok(), &mut |step, layer, rows| {
                        tell.send(Said::Rows { lane, step, layer, rows: rows.to_vec() }).map_err(gone)
                    });
                    // Where another copy has failed nobody listens.
                    let _ = tell.send(Said::Ended { lane, result });
                });
            }
            drop(tell);
            let mut under_way = vec![0; feeds.len()];
            let mut running = feeds.len();
            while running > 0 {
                for (lane, feed) in feeds.iter_mut().enumerate() {
                    while under_way[lane] < AHEAD
                        && let Some(open) = feed
                    {
                        match next(lane).map(|step| open.send(step).is_ok()) {
                            Some(true) => under_way[lane] += 1,
                            // No more steps, or the copy has ended and will say why.
                            Some(false) | None => *feed = None,
                        }
                    }
                }
                match said.recv() {
                    Ok(Said::Rows { lane, step, layer, rows }) => {
                        under_way[lane] -= usize::from(layer == deepest);
                        sink(step, layer, &rows)?;
                    }
                    Ok(Said::Ended { lane, result }) => {
                        result?;
                        feeds[lane] = None;
                        running -= 1;
                    }
                    Err(_) => return Err(Error::Disagreement("a copy of the model ended without a word".to_owned())),
                }
            }
            Ok(())
        })
    }
}
