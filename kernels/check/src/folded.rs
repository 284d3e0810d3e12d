//! Inputs of norms that are folded into GEMMs, and their results. The CPU folds none: its result is computed here in `f64`.

use std::ops::Range;

use actbench_kernels::{Activation, Backend, DType, FoldedNorm, HostTensor, KernelError, square_blocks};

use crate::folded_operation::{DTYPE, Folded};
use crate::inputs::{Inputs, random, upload};

/// The constant in the root.
const EPS: f32 = 1e-5;

/// Columns of a block of a sum of squares.
const BLOCK: usize = 64;

/// Whether `backend` folds norms at all.
pub fn folds<B: Backend>(backend: &B) -> bool {
    backend.folds_norms(DTYPE, BLOCK)
}

/// The inputs of an operation on the host.
pub struct FoldedInputs {
    folded: Folded,
    n: usize,
    /// `[rows, k]`.
    x: HostTensor,
    /// `[n, k]`, of gated weights the gate.
    weight: HostTensor,
    /// `[n, k]`.
    up: HostTensor,
    /// `[k]`, the norm's weights.
    scale: HostTensor,
    /// `[rows, n]`.
    stream: HostTensor,
}

impl FoldedInputs {
    /// Those of rows `range`.
    ///
    /// # Errors
    /// Those of the inputs.
    pub fn new(
        inputs: &Inputs<'_>,
        folded: Folded,
        [rows, k, n]: [usize; 3],
        range: Range<usize>,
    ) -> Result<Self, KernelError> {
        let matrix = |stream: u64, rows: usize, columns: usize, range: Range<usize>| {
            let drawn = |len| random(inputs.case.seed, stream, DTYPE, 1.0, len);
            inputs.rows(stream, DTYPE, [rows, columns], range, drawn)
        };
        let x = if folded == Folded::Weights {
            let identity = range.clone().flat_map(|row| (0..k).map(move |column| f32::from(row == column)));
            HostTensor::from_f32(DTYPE, vec![range.len(), k], &identity.collect::<Vec<f32>>())?
        } else {
            matrix(1, rows, k, range.clone())?
        };
        let (weight, up) = (matrix(2, n, k, 0..n)?, matrix(5, n, k, 0..n)?);
        Ok(FoldedInputs {
            folded,
            n,
            x,
            weight,
            up,
            scale: inputs.vector(3, DTYPE, k)?,
            stream: matrix(4, rows, n, range)?,
        })
    }

    /// Runs the operation, on the host if the backend folds no norms. The result is rounded to the type of the case.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn apply<B: Backend>(&self, backend: &B, out: &mut B::Tensor) -> Result<(), KernelError> {
        let values = if folds(backend) { self.on_device(backend)? } else { self.on_host(backend)? };
        backend.upload(&DTYPE.from_f32_slice(&values), out)
    }

    fn on_device<B: Backend>(&self, backend: &B) -> Result<Vec<f32>, KernelError> {
        let rows = self.x.shape()[0];
        let x = upload(backend, &self.x)?;
        let sums = |columns: usize| backend.alloc(DType::F32, rows, square_blocks(columns));
        let linear = || backend.prepare_linear(std::slice::from_ref(&self.weight), DTYPE);
        let mut out = backend.alloc(DTYPE, rows, self.n)?;
        match self.folded {
            Folded::SquareSums => {
                let mut squares = sums(self.x.shape()[1])?;
                backend.square_sums(&x, &mut squares)?;
                return download(backend, &squares, DType::F32, rows, square_blocks(self.x.shape()[1]));
            }
            Folded::ResidualSquares => {
                let (mut stream, mut squares) = (upload(backend, &self.stream)?, sums(self.n)?);
                backend.linear_residual_squares(&x, &linear()?, None, &mut stream, &mut squares)?;
                return download(backend, &squares, DType::F32, rows, square_blocks(self.n));
            }
            Folded::Weights => {
                let mut weight = linear()?;
                let scale = backend.prepare_vector(std::slice::from_ref(&self.scale), DTYPE)?;
                backend.fold_norm(&mut weight, &scale)?;
                backend.verify_weights()?;
                backend.linear(&x, &weight, None, &mut out)?;
            }
            Folded::Projection | Folded::GatedProjection => {
                let mut squares = sums(self.x.shape()[1])?;
                backend.square_sums(&x, &mut squares)?;
                let norm = FoldedNorm { squares: &squares, eps: EPS };
                let (weight, activation) = if self.folded == Folded::GatedProjection {
                    (backend.prepare_gated(&self.weight, &self.up, DTYPE)?, Some(Activation::Silu))
                } else {
                    (linear()?, None)
                };
                backend.linear_normed(&x, norm, &weight, None, activation, &mut out)?;
            }
        }
        download(backend, &out, DTYPE, rows, self.n)
    }

    fn on_host<B: Backend>(&self, backend: &B) -> Result<Vec<f32>, KernelError> {
        let k = self.x.shape()[1];
        let x = self.x.to_f32_vec();
        let rows = x.chunks(k);
        if self.folded == Folded::SquareSums {
            return Ok(square_sums(&x, k));
        }
        if self.folded == Folded::ResidualSquares {
            let (x, mut stream) = (upload(backend, &self.x)?, upload(backend, &self.stream)?);
            let weight = backend.prepare_linear(std::slice::from_ref(&self.weight), DTYPE)?;
            backend.linear_residual(&x, &weight, None, &mut stream)?;
            return Ok(square_sums(&download(backend, &stream, DTYPE, rows.len(), self.n)?, self.n));
        }
        let (weight, up, scale) = (self.weight.to_f32_vec(), self.up.to_f32_vec(), self.scale.to_f32_vec());
        let mut results = Vec::with_capacity(rows.len() * self.n);
        for row in rows {
            let factor = 1.0 / (dot(row, row) / k as f64 + f64::from(EPS)).sqrt();
            for (own, up) in weight.chunks(k).zip(up.chunks(k)) {
                let value = factor * dot(row, own);
                results.push(match self.folded {
                    // Of an identity one product is not zero.
                    Folded::Weights => own.iter().zip(&scale).zip(row).map(|((w, scale), x)| w * scale * x).sum(),
                    Folded::GatedProjection => (value / (1.0 + (-value).exp()) * factor * dot(row, up)) as f32,
                    _ => value as f32,
                });
            }
        }
        Ok(results)
    }
}

fn download<B: Backend>(
    backend: &B,
    tensor: &B::Tensor,
    dtype: DType,
    rows: usize,
    columns: usize,
) -> Result<Vec<f32>, KernelError> {
    let mut bytes = vec![0; rows * columns * dtype.size()];
    backend.download(tensor, rows, &mut bytes)?;
    Ok(dtype.to_f32_vec(&bytes))
}

fn dot(x: &[f32], w: &[f32]) -> f64 {
    x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
}

/// The sums of squares of each block of each row of `columns` columns.
fn square_sums(values: &[f32], columns: usize) -> Vec<f32> {
    values.chunks(columns).flat_map(|row| row.chunks(BLOCK)).map(|block| dot(block, block) as f32).collect()
}
