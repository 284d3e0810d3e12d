//! How rows are pooled, and which.

use std::fmt;
use std::str::FromStr;

use crate::error::KernelError;

/// How the selected rows of one sample are reduced to one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolMethod {
    /// The sum divided by the count.
    Mean,
    /// The elementwise maximum.
    Max,
    /// The last selected row.
    Last,
    /// The sum.
    Sum,
}

impl PoolMethod {
    /// All methods, in the order of help texts.
    pub const ALL: [PoolMethod; 4] = [PoolMethod::Mean, PoolMethod::Max, PoolMethod::Last, PoolMethod::Sum];

    /// The name on the command line and in result files.
    pub const fn name(self) -> &'static str {
        match self {
            PoolMethod::Mean => "mean",
            PoolMethod::Max => "max",
            PoolMethod::Last => "last",
            PoolMethod::Sum => "sum",
        }
    }
}

impl fmt::Display for PoolMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PoolMethod {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, KernelError> {
        PoolMethod::ALL
            .into_iter()
            .find(|method| method.name() == text)
            .ok_or_else(|| KernelError::shape("pool", format!("unknown pool '{text}': use mean, max, last or sum")))
    }
}

/// The rows of a tensor that are pooled into each output row, as a compressed list of lists (CSR).
///
/// Rows of a group are listed by increasing position in their sample and are accumulated in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolGroups {
    /// `rows[offsets[g]..offsets[g + 1]]` are the rows of group `g`. One entry more than there are groups.
    offsets: Vec<usize>,
    /// Row indices, group after group.
    rows: Vec<u32>,
}

impl PoolGroups {
    /// An empty list of groups.
    pub fn new() -> Self {
        PoolGroups { offsets: vec![0], rows: Vec::new() }
    }

    /// Appends a group of row indices. An empty group pools to zeros.
    pub fn push(&mut self, rows: impl IntoIterator<Item = u32>) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.rows.extend(rows);
        self.offsets.push(self.rows.len());
    }

    /// The number of groups.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of group `group`.
    pub fn rows_of(&self, group: usize) -> &[u32] {
        &self.rows[self.offsets[group]..self.offsets[group + 1]]
    }

    /// The largest row index, if there is any.
    pub fn max_row(&self) -> Option<u32> {
        self.rows.iter().copied().max()
    }

    /// The number of row indices in all groups.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }
}
