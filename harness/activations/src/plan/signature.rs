//! The type of activations (axes, extents, layer numbers, dtype) and how each operation changes it.
//!
//! Plans and tensors check operations here, so that both refuse the same operations with the same message.

use std::fmt;
use std::sync::Arc;

use actbench_kernels::DType;

use super::axes::{Axes, Axis};
use super::operation::{Operation, ResultDevice, abbreviate};
use crate::error::{Error, Result};

/// The type of activations, known before any is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The axes.
    pub axes: Axes,
    /// Extent of `b`.
    pub n_samples: usize,
    /// The layers along `l`, in order. Without axis `l`, the layers that the values were computed from, if known.
    pub layer_ids: Arc<[usize]>,
    /// Extent of `s`; 1 without that axis.
    pub seq_len: usize,
    /// Extent of `h`.
    pub hidden_size: usize,
    /// Storage type.
    pub dtype: DType,
    /// Whether there is a mask; only with axis `s`.
    pub has_mask: bool,
}

impl Signature {
    /// Extent of `l`; 1 without that axis.
    pub fn n_layers(&self) -> usize {
        if self.axes.has(Axis::Layer) { self.layer_ids.len() } else { 1 }
    }

    /// The extents of the axes, in order.
    pub fn shape(&self) -> Vec<usize> {
        let extents = [self.n_samples, self.n_layers(), self.seq_len, self.hidden_size];
        Axis::ALL.into_iter().zip(extents).filter(|(axis, _)| self.axes.has(*axis)).map(|(_, extent)| extent).collect()
    }

    /// Bytes of one `[h]` vector.
    pub fn vector_bytes(&self) -> usize {
        self.hidden_size * self.dtype.size()
    }

    /// Bytes of one layer of one sample: `[h]` or `[s, h]`.
    pub fn block_bytes(&self) -> usize {
        self.seq_len * self.vector_bytes()
    }

    /// Bytes of one sample; samples are contiguous.
    pub fn sample_bytes(&self) -> usize {
        self.n_layers() * self.block_bytes()
    }

    /// Bytes in all; the product of a [`Signature::checked`] signature never overflows.
    pub fn n_bytes(&self) -> usize {
        self.n_samples * self.sample_bytes()
    }

    /// This signature with another number of samples.
    pub fn with_samples(&self, n_samples: usize) -> Self {
        Signature { n_samples, ..self.clone() }
    }

    /// The position of layer `id` along `l`.
    pub fn layer_position(&self, id: usize) -> Option<usize> {
        self.layer_ids.iter().position(|known| *known == id)
    }

    /// This signature if it is valid.
    ///
    /// # Errors
    /// No columns, no layer along `l`, a layer twice, a mask without `s`, or more bytes than can be addressed.
    pub fn checked(self) -> Result<Self> {
        let extents = [self.n_samples, self.n_layers(), self.seq_len, self.hidden_size, self.dtype.size()];
        // Each extent counts as at least 1, so that the product of any of them does not overflow either.
        let bytes = extents.iter().try_fold(1usize, |bytes, extent| bytes.checked_mul((*extent).max(1)));
        let mut sorted = self.layer_ids.to_vec();
        sorted.sort_unstable();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let wrong = if self.hidden_size == 0 {
            "axis h has no columns".to_owned()
        } else if self.n_layers() == 0 {
            "axis l has no layers".to_owned()
        } else if let Some(id) = twice {
            format!("layer {id} is named twice")
        } else if self.has_mask && !self.axes.has(Axis::Sequence) {
            "a mask needs axis s".to_owned()
        } else if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            "more bytes than can be addressed".to_owned()
        } else {
            return Ok(self);
        };
        Err(Error::usage(format!("activations {self}: {wrong}")))
    }

    /// The signature after `operation`.
    ///
    /// # Errors
    /// The operation does not fit: an unknown axis, layer or sample, a pool of `b` or `h`, a pool of `s` without a mask, or
    /// a device other than the host.
    pub fn after(&self, operation: &Operation) -> Result<Self> {
        let refuse = |why: String| Err(Error::usage(format!("{operation}: {why}")));
        match operation {
            Operation::SelectLayers(ids) => {
                self.check_layers(operation, ids)?;
                if ids.is_empty() {
                    return refuse("name at least one layer".to_owned());
                }
                Signature { layer_ids: ids.clone(), ..self.clone() }.checked()
            }
            Operation::SelectLayer(id) => {
                self.check_layers(operation, &[*id])?;
                let axes = self.axes.without(Axis::Layer);
                Ok(Signature { axes, layer_ids: [*id].into(), ..self.clone() })
            }
            Operation::SliceBatch(selection) => {
                let n_samples = selection.resolve(self.n_samples)?.len();
                self.with_samples(n_samples).checked()
            }
            Operation::Pool { axis, .. } => {
                if !matches!(axis, Axis::Sequence | Axis::Layer) {
                    return refuse(format!("axis {axis} cannot be pooled; pool s (positions) or l (layers)"));
                }
                if !self.axes.has(*axis) {
                    return refuse(format!("there is no axis {axis} in {}", self.axes));
                }
                let axes = self.axes.without(*axis);
                match axis {
                    Axis::Sequence if !self.has_mask => {
                        refuse("these activations have no mask of positions to pool".to_owned())
                    }
                    Axis::Sequence => Ok(Signature { axes, seq_len: 1, has_mask: false, ..self.clone() }),
                    _ => Ok(Signature { axes, ..self.clone() }),
                }
            }
            Operation::Cast(dtype) => Signature { dtype: *dtype, ..self.clone() }.checked(),
            Operation::To(ResultDevice::Cpu) => Ok(self.clone()),
            Operation::To(device) => refuse(format!(
                "results are in host memory, to({device}) is not possible; the model itself may run on any device"
            )),
        }
    }

    fn check_layers(&self, operation: &Operation, ids: &[usize]) -> Result<()> {
        if !self.axes.has(Axis::Layer) {
            return Err(Error::usage(format!("{operation}: there is no axis l in {}", self.axes)));
        }
        match ids.iter().find(|id| self.layer_position(**id).is_none()) {
            None => Ok(()),
            Some(id) => Err(Error::usage(format!(
                "{operation}: layer {id} is not among the layers {} (layers go by number, not by position)",
                abbreviate(&self.layer_ids)
            ))),
        }
    }
}

impl fmt::Display for Signature {
    /// `blh [600, 16, 576] bf16`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.axes, self.shape(), self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use actbench_kernels::PoolMethod;

    use super::*;

    fn full() -> Signature {
        Signature {
            axes: Axes::BLSH,
            n_samples: 4,
            layer_ids: [2, 5, 9].into(),
            seq_len: 6,
            hidden_size: 8,
            dtype: DType::Bf16,
            has_mask: true,
        }
    }

    fn pool(axis: Axis) -> Operation {
        Operation::Pool { method: PoolMethod::Mean, axis }
    }

    #[test]
    fn operations_change_signature() {
        let after = |operation: Operation| full().after(&operation).unwrap();
        assert_eq!(full().to_string(), "blsh [4, 3, 6, 8] bf16");
        assert_eq!(after(Operation::SelectLayers([9, 2].into())).shape(), [4, 2, 6, 8]);
        assert_eq!(after(Operation::SelectLayer(5)).to_string(), "bsh [4, 6, 8] bf16");
        assert_eq!(after(Operation::SliceBatch(vec![0, 0, -1, 1, 1].into())).shape(), [5, 3, 6, 8]);
        assert_eq!(after(pool(Axis::Sequence)).to_string(), "blh [4, 3, 8] bf16");
        assert_eq!(after(pool(Axis::Layer)).to_string(), "bsh [4, 6, 8] bf16");
        assert_eq!(after(Operation::Cast(DType::F32)).n_bytes(), 4 * 3 * 6 * 8 * 4);
        assert_eq!(after(Operation::To(ResultDevice::Cpu)), full());
        assert!(after(pool(Axis::Layer)).has_mask && !after(pool(Axis::Sequence)).has_mask);
    }

    #[test]
    fn operations_that_do_not_fit_are_refused() {
        let pooled = full().after(&pool(Axis::Sequence)).unwrap();
        let single = full().after(&Operation::SelectLayer(2)).unwrap();
        let unmasked = Signature { has_mask: false, ..full() };
        let cases = [
            (full(), pool(Axis::Batch), "axis b cannot be pooled"),
            (full(), pool(Axis::Hidden), "axis h cannot be pooled"),
            (pooled, pool(Axis::Sequence), "no axis s in blh"),
            (single.clone(), pool(Axis::Layer), "no axis l in bsh"),
            (single, Operation::SelectLayers([2].into()), "no axis l in bsh"),
            (unmasked, pool(Axis::Sequence), "no mask"),
            (full(), Operation::SelectLayers([1].into()), "layer 1 is not among the layers 2, 5, 9"),
            (full(), Operation::SelectLayers([].into()), "at least one layer"),
            (full(), Operation::SelectLayers([5, 5].into()), "layer 5 is named twice"),
            (full(), Operation::SelectLayer(0), "layer 0 is not among"),
            (full(), Operation::SliceBatch((0..5).into()), "batch of 4"),
            (full(), Operation::To(ResultDevice::Cuda(0)), "host memory"),
        ];
        for (signature, operation, expected) in cases {
            let error = signature.after(&operation).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Signature { n_samples: usize::MAX, ..full() }.checked().is_err());
        assert!(Signature { n_samples: 0, seq_len: usize::MAX, ..full() }.checked().is_err());
        assert!(Signature { hidden_size: 0, ..full() }.checked().is_err());
        assert!(Signature { layer_ids: [].into(), ..full() }.checked().is_err());
        assert!(Signature { n_samples: 0, ..full() }.checked().is_ok());
    }
}
