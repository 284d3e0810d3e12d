//! Where the outputs of layers go: to the caller's sink in order, or with a batch to the next stage.

use std::collections::VecDeque;

use actbench_kernels::PendingCopy;

use crate::error::Result;
use crate::model::StepSink;

/// Copies that may be under way while the device goes on: while one fills its memory the host reads the other's.
pub(super) const UNDER_WAY: usize = 2;

/// Takes the outputs of layers, in order.
pub(super) trait Outlet {
    /// Rows that are in host memory.
    fn rows(&mut self, step: u64, layer: usize, rows: &[u8]) -> Result<()>;

    /// Rows that are on their way there.
    fn copy(&mut self, step: u64, layer: usize, copy: Box<dyn PendingCopy>) -> Result<()>;
}

/// Hands outputs to a sink.
pub(super) struct ToSink<'a, 'b> {
    sink: &'a mut StepSink<'b>,
    under_way: VecDeque<(u64, usize, Box<dyn PendingCopy>)>,
}

impl<'a, 'b> ToSink<'a, 'b> {
    pub(super) fn new(sink: &'a mut StepSink<'b>) -> Self {
        ToSink { sink, under_way: VecDeque::new() }
    }

    /// Hands on what is under way, until no more than `left` copies are.
    fn drain(&mut self, left: usize) -> Result<()> {
        while self.under_way.len() > left
            && let Some((step, layer, mut copy)) = self.under_way.pop_front()
        {
            (self.sink)(step, layer, copy.wait()?)?;
        }
        Ok(())
    }

    /// Waits for everything that is still under way.
    pub(super) fn finish(mut self) -> Result<()> {
        self.drain(0)
    }
}

impl Outlet for ToSink<'_, '_> {
    fn rows(&mut self, step: u64, layer: usize, rows: &[u8]) -> Result<()> {
        self.drain(0)?;
        (self.sink)(step, layer, rows)
    }

    fn copy(&mut self, step: u64, layer: usize, copy: Box<dyn PendingCopy>) -> Result<()> {
        self.under_way.push_back((step, layer, copy));
        self.drain(UNDER_WAY)
    }
}

/// The output of a layer that goes with its batch.
pub(super) enum Output {
    /// In host memory.
    Rows(Vec<u8>),
    /// On its way there.
    Copy(Box<dyn PendingCopy>),
}

/// Outputs of one step, by layer.
#[derive(Default)]
pub(super) struct Collected(pub(super) Vec<(usize, Output)>);

impl Collected {
    /// Hands the outputs of step `step` to `sink`.
    pub(super) fn deliver(self, step: u64, sink: &mut StepSink<'_>) -> Result<()> {
        self.0.into_iter().try_for_each(|(layer, output)| match output {
            Output::Rows(rows) => sink(step, layer, &rows),
            Output::Copy(mut copy) => sink(step, layer, copy.wait()?),
        })
    }
}

impl Outlet for Collected {
    fn rows(&mut self, _step: u64, layer: usize, rows: &[u8]) -> Result<()> {
        self.0.push((layer, Output::Rows(rows.to_vec())));
        Ok(())
    }

    fn copy(&mut self, _step: u64, layer: usize, copy: Box<dyn PendingCopy>) -> Result<()> {
        self.0.push((layer, Output::Copy(copy)));
        // Copies hold memory of the device: those before the last few are brought in.
        let settled = self.0.len().saturating_sub(UNDER_WAY);
        for (_, output) in &mut self.0[..settled] {
            if let Output::Copy(copy) = output {
                *output = Output::Rows(copy.wait()?.to_vec());
            }
        }
        Ok(())
    }
}
