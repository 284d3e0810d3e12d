//! Which token positions of which sample are pooled: the mask of axis `s`.

use std::sync::Arc;

use super::needed_tokens::NeededTokens;
use crate::error::{Error, Result};

/// A `[b, s]` table of flags; padding positions are never set. Cloning shares the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceMask {
    n_samples: usize,
    seq_len: usize,
    flags: Arc<[bool]>,
}

impl SequenceMask {
    /// Wraps `flags`, row-major.
    ///
    /// # Errors
    /// The number of flags is not `n_samples * seq_len`.
    pub fn new(n_samples: usize, seq_len: usize, flags: impl Into<Arc<[bool]>>) -> Result<Self> {
        let flags = flags.into();
        if n_samples.checked_mul(seq_len) != Some(flags.len()) {
            return Err(Error::usage(format!(
                "a mask of {n_samples} samples x {seq_len} positions cannot have {} flags",
                flags.len()
            )));
        }
        Ok(SequenceMask { n_samples, seq_len, flags })
    }

    /// The masks of `samples`, padded to `seq_len`, which must be at least the longest sequence.
    pub fn of_tokens<'a>(tokens: impl Into<NeededTokens<'a>>, samples: &[usize], seq_len: usize) -> Self {
        let tokens = tokens.into();
        let mut flags = vec![false; samples.len() * seq_len];
        for (index, sample) in samples.iter().enumerate() {
            let row = &mut flags[index * seq_len..(index + 1) * seq_len];
            row.iter_mut().zip(tokens.mask(*sample)).for_each(|(flag, masked)| *flag = *masked);
        }
        SequenceMask { n_samples: samples.len(), seq_len, flags: flags.into() }
    }

    /// The number of samples.
    pub fn n_samples(&self) -> usize {
        self.n_samples
    }

    /// Positions a sample.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// The flags of one sample.
    pub fn row(&self, sample: usize) -> &[bool] {
        &self.flags[sample * self.seq_len..(sample + 1) * self.seq_len]
    }

    /// The masked positions of one sample, increasing.
    pub fn positions(&self, sample: usize) -> impl Iterator<Item = usize> + '_ {
        self.row(sample).iter().enumerate().filter(|(_, masked)| **masked).map(|(position, _)| position)
    }

    /// The masks of `samples`, in that order.
    pub fn select(&self, samples: &[usize]) -> Self {
        let flags: Vec<bool> = samples.iter().flat_map(|sample| self.row(*sample)).copied().collect();
        SequenceMask { n_samples: samples.len(), seq_len: self.seq_len, flags: flags.into() }
    }
}
