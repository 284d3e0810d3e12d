//! Cosines and sines of a rotary table on a backend.

use std::ops::Range;

use actbench_kernels::{Backend, DType, HostTensor};

use crate::error::Result;
use crate::model::rope_spec::RopeSpec;

/// Cosines and sines of all angles, `[positions, rotary_dim / 2]` each.
pub(super) struct RopeTable<B: Backend> {
    /// The first elements of each head that are rotated.
    pub(super) rotary_dim: usize,
    pub(super) cos: B::Vector,
    pub(super) sin: B::Vector,
}

impl<B: Backend> RopeTable<B> {
    /// The table of `rope` for positions below `n_positions`. Each angle is one `f32` multiplication, as in transformers.
    pub(super) fn new(backend: &B, rope: &RopeSpec, n_positions: usize) -> Result<Self> {
        let (frequencies, factor) = (rope.frequencies(), rope.attention_factor());
        let angles = |positions: Range<usize>| {
            positions.flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency))
        };
        let vector = |values: Vec<f32>| -> Result<B::Vector> {
            // Angles stay in f32 whatever the run's type: in bf16 neighboring positions would have equal angles.
            let tensor = HostTensor::from_f32(DType::F32, vec![values.len()], &values)?;
            Ok(backend.prepare_vector(&[tensor], DType::F32)?)
        };
        Ok(RopeTable {
            rotary_dim: rope.rotary_dim,
            cos: vector(angles(0..n_positions).map(|angle| angle.cos() * factor).collect())?,
            sin: vector(angles(0..n_positions).map(|angle| angle.sin() * factor).collect())?,
        })
    }
}
