//! The operations of a plan.

use std::fmt;
use std::ops::{Range, RangeFrom, RangeFull, RangeTo};
use std::str::FromStr;
use std::sync::Arc;

use actbench_kernels::{DType, PoolMethod};

use super::axes::Axis;
use crate::error::{Error, Result};

/// One operation of a plan. [`ActTensor::apply`](super::ActTensor::apply) defines its semantics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Keeps these layers, named by layer number (never by position), in this order. Axis `l` stays.
    SelectLayers(Arc<[usize]>),
    /// Keeps one layer, named by layer number, and drops axis `l`.
    SelectLayer(usize),
    /// Keeps some samples.
    SliceBatch(BatchSelection),
    /// Pools `axis` to one vector: the masked positions of `s`, or every layer of `l`.
    ///
    /// The dtype stays: sums run in `f32` in the order of the axis and are rounded once.
    Pool {
        /// The pooling method.
        method: PoolMethod,
        /// The pooled axis: `s` or `l`.
        axis: Axis,
    },
    /// Rounds every element to another storage type.
    Cast(DType),
    /// Names the memory of the result.
    To(ResultDevice),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::SelectLayers(ids) => write!(f, "select_layers([{}])", abbreviate(ids)),
            Operation::SelectLayer(id) => write!(f, "select_layer({id})"),
            Operation::SliceBatch(selection) => write!(f, "slice_batch({selection})"),
            Operation::Pool { method, axis } => write!(f, "{method}_pool({axis})"),
            Operation::Cast(dtype) => write!(f, "cast({dtype})"),
            Operation::To(device) => write!(f, "to({device})"),
        }
    }
}

/// Which samples to keep. Negative numbers count from the end, as in Python; unlike there, a bound past the end is
/// an error and not silently clipped. An index may be repeated: its sample is computed once and occurs twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchSelection {
    /// From `start` (the first sample if absent) up to, not including, `end` (past the last if absent).
    Range {
        /// First sample kept.
        start: Option<i64>,
        /// First sample no longer kept.
        end: Option<i64>,
    },
    /// These samples in this order.
    Indices(Arc<[i64]>),
}

impl BatchSelection {
    /// Samples from `start` up to, not including, `end`; either may be absent or negative. (`1..-1` would do as well,
    /// but looks like a mistake to readers and to lints.)
    pub fn range(start: impl Into<Option<i64>>, end: impl Into<Option<i64>>) -> Self {
        BatchSelection::Range { start: start.into(), end: end.into() }
    }

    /// The indices of the samples kept, out of `n_samples`.
    ///
    /// # Errors
    /// A number outside the batch, or a range that ends before it starts.
    pub fn resolve(&self, n_samples: usize) -> Result<Vec<usize>> {
        match self {
            BatchSelection::Range { start, end } => {
                let bound = |bound: i64| {
                    from_end(bound, n_samples).filter(|bound| *bound <= n_samples).ok_or_else(|| {
                        Error::usage(format!(
                            "slice_batch({self}): {bound} is outside a batch of {n_samples}; bounds run from -{n_samples} to {n_samples}"
                        ))
                    })
                };
                let start = start.map_or(Ok(0), bound)?;
                let end = end.map_or(Ok(n_samples), bound)?;
                if end < start {
                    return Err(Error::usage(format!(
                        "slice_batch({self}): ends at sample {end}, before its start at {start}; give indices to reverse an order"
                    )));
                }
                Ok((start..end).collect())
            }
            BatchSelection::Indices(indices) => indices
                .iter()
                .map(|index| {
                    from_end(*index, n_samples).filter(|index| *index < n_samples).ok_or_else(|| {
                        Error::usage(format!("slice_batch({self}): index {index} is outside a batch of {n_samples}"))
                    })
                })
                .collect(),
        }
    }
}

/// `index`, counted from the end if it is negative.
fn from_end(index: i64, n_samples: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => n_samples.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

impl fmt::Display for BatchSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchSelection::Range { start, end } => {
                start.map_or(Ok(()), |start| write!(f, "{start}"))?;
                f.write_str("..")?;
                end.map_or(Ok(()), |end| write!(f, "{end}"))
            }
            BatchSelection::Indices(indices) => write!(f, "[{}]", abbreviate(indices)),
        }
    }
}

impl From<Range<i64>> for BatchSelection {
    fn from(range: Range<i64>) -> Self {
        BatchSelection::Range { start: Some(range.start), end: Some(range.end) }
    }
}

impl From<RangeFrom<i64>> for BatchSelection {
    fn from(range: RangeFrom<i64>) -> Self {
        BatchSelection::Range { start: Some(range.start), end: None }
    }
}

impl From<RangeTo<i64>> for BatchSelection {
    fn from(range: RangeTo<i64>) -> Self {
        BatchSelection::Range { start: None, end: Some(range.end) }
    }
}

impl From<RangeFull> for BatchSelection {
    fn from(_: RangeFull) -> Self {
        BatchSelection::Range { start: None, end: None }
    }
}

impl From<&[i64]> for BatchSelection {
    fn from(indices: &[i64]) -> Self {
        BatchSelection::Indices(indices.into())
    }
}

impl From<Vec<i64>> for BatchSelection {
    fn from(indices: Vec<i64>) -> Self {
        BatchSelection::Indices(indices.into())
    }
}

/// The memory of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResultDevice {
    /// Host memory.
    Cpu,
    /// The memory of a numbered GPU.
    Cuda(usize),
}

impl fmt::Display for ResultDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResultDevice::Cpu => f.write_str("cpu"),
            ResultDevice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for ResultDevice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(ResultDevice::Cpu),
            "cuda" => Ok(ResultDevice::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(ResultDevice::Cuda)
                .ok_or_else(|| Error::usage(format!("unknown device '{text}': use cpu, cuda or cuda:N"))),
        }
    }
}

/// A list for people: all of a short one, the ends of a long one.
pub(crate) fn abbreviate<T: fmt::Display>(items: &[T]) -> String {
    const MAX_SHOWN: usize = 16;
    let join = |items: &[T]| items.iter().map(T::to_string).collect::<Vec<_>>().join(", ");
    match items {
        [] => String::new(),
        [first @ .., last] if items.len() > MAX_SHOWN => {
            format!("{}, ..., {last} ({} in all)", join(&first[..4]), items.len())
        }
        _ => join(items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn kept(selection: impl Into<BatchSelection>, n_samples: usize) -> Vec<usize> {
        selection.into().resolve(n_samples).unwrap()
    }

    #[test]
    fn negative_numbers_count_from_the_end() {
        assert_eq!(kept(-2.., 5), [3, 4]);
        assert_eq!(kept(..-1, 3), [0, 1]);
        assert_eq!(kept(BatchSelection::range(1, -1), 4), [1, 2]);
        assert_eq!(kept(.., 2), [0, 1]);
        assert_eq!(kept(2..2, 2), [0usize; 0]);
        assert_eq!(kept(vec![-1, 0, -1], 3), [2, 0, 2]);
    }

    #[test]
    fn selection_outside_batch_is_refused_with_size() {
        let out_of_range: [BatchSelection; 6] = [
            (0..4).into(),
            (-4..).into(),
            vec![3].into(),
            vec![0, -4].into(),
            vec![i64::MIN].into(),
            (i64::MIN..i64::MAX).into(),
        ];
        for selection in out_of_range {
            let message = selection.resolve(3).unwrap_err().to_string();
            assert!(message.contains("batch of 3"), "{message}");
        }
        let backwards = BatchSelection::range(2, 1).resolve(3).unwrap_err().to_string();
        assert!(backwards.contains("before its start"), "{backwards}");
        assert!(BatchSelection::from(vec![0]).resolve(0).is_err());
    }

    #[test]
    fn operations_print_as_method_calls() {
        let operations = [
            Operation::SelectLayers([5, 3].into()),
            Operation::SelectLayer(7),
            Operation::SliceBatch((-3..).into()),
            Operation::SliceBatch((0..20).collect::<Vec<i64>>().into()),
            Operation::Pool { method: PoolMethod::Mean, axis: Axis::Sequence },
            Operation::Cast(DType::F32),
            Operation::To(ResultDevice::Cuda(1)),
        ];
        let printed: Vec<String> = operations.iter().map(Operation::to_string).collect();
        insta::assert_snapshot!(printed.join("\n"), @r"
        select_layers([5, 3])
        select_layer(7)
        slice_batch(-3..)
        slice_batch([0, 1, 2, 3, ..., 19 (20 in all)])
        mean_pool(s)
        cast(f32)
        to(cuda:1)
        ");
    }

    #[test]
    fn device_names_round_trip() {
        for device in [ResultDevice::Cpu, ResultDevice::Cuda(3)] {
            assert_eq!(device.to_string().parse::<ResultDevice>().unwrap(), device);
        }
        assert_eq!("cuda".parse::<ResultDevice>().unwrap(), ResultDevice::Cuda(0));
        assert!("tpu".parse::<ResultDevice>().is_err());
        assert!("cuda:x".parse::<ResultDevice>().is_err());
    }
}
