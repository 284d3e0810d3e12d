//! The checks that weights are finite: kernels note the first element of each conversion that is not, and the host reads
//! all notes at once. A wait for each tensor would keep the device idle while the next one is read.

use std::sync::{Mutex, PoisonError};

use super::{CudaBackend, Device};
use crate::error::KernelError;

/// Conversions whose notes are in one buffer: those of 32 blocks with one or two for each matrix.
const CAPACITY: usize = 256;

/// The value of a note without an element that is not finite.
const NOTHING: u64 = u64::MAX;

/// The conversions since the last reading of notes.
pub(super) struct WeightChecks<B>(Mutex<PendingChecks<B>>);

/// The notes on the device.
struct PendingChecks<B> {
    /// Made for the first conversion.
    notes: Option<B>,
    /// The conversion of each note.
    conversions: Vec<Conversion>,
}

/// The conversion of a tensor or of a part of it.
#[derive(Clone, Copy)]
pub(super) struct Conversion {
    /// The operation, for errors.
    pub(super) op: &'static str,
    /// The flat index of its first element in the tensor.
    pub(super) first_element: usize,
}

impl<B> Default for WeightChecks<B> {
    fn default() -> Self {
        WeightChecks(Mutex::new(PendingChecks { notes: None, conversions: Vec::new() }))
    }
}

impl<D: Device> CudaBackend<D> {
    /// Calls `launch` with the notes of the device and the index of the one for `conversion`.
    pub(super) fn with_note(
        &self,
        conversion: Conversion,
        launch: impl FnOnce(&mut D::Buffer, usize) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let mut pending = self.checks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.conversions.len() == CAPACITY {
            self.read_notes(&mut pending)?;
        }
        let PendingChecks { notes, conversions } = &mut *pending;
        let notes = match notes {
            Some(notes) => notes,
            None => {
                let nothing = [NOTHING; CAPACITY];
                let nothing: &[u8] = bytemuck::cast_slice(&nothing);
                self.traffic.add_to_device(nothing.len());
                // A small upload, the first of a model: its pinned memory is then there before the first batch.
                notes.insert(self.device.upload(nothing)?)
            }
        };
        launch(notes, conversions.len())?;
        conversions.push(conversion);
        Ok(())
    }

    /// Waits for all conversions so far, and fails for the first with an element that is not finite.
    pub(super) fn read_checks(&self) -> Result<(), KernelError> {
        self.read_notes(&mut self.checks.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read_notes(&self, pending: &mut PendingChecks<D::Buffer>) -> Result<(), KernelError> {
        let (notes, conversions) = (pending.notes.take(), std::mem::take(&mut pending.conversions));
        let Some(notes) = notes else { return Ok(()) };
        let mut read = vec![NOTHING; conversions.len()];
        self.read(&notes, bytemuck::cast_slice_mut(&mut read))?;
        match conversions.iter().zip(read).find(|(_, note)| *note != NOTHING) {
            None => Ok(()),
            Some((conversion, note)) => {
                // As cast.cu writes it.
                let value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN][(note % 4) as usize];
                let index = conversion.first_element + (note / 4) as usize;
                Err(KernelError::NotFinite { op: conversion.op, index, value })
            }
        }
    }
}
