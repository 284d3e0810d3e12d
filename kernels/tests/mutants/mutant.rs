//! A mutant of a kernel source.

/// The code path of a kernel file that a mutant changes, which decides on the shape that runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KernelPath {
    /// The only kernel of its file, or the plain one.
    Default,
    /// The kernel with vector loads and stores.
    Wide,
    /// The epilogue with an activation.
    Activated,
    /// The epilogue of a gated activation.
    Gated,
    /// The plain kernel that adds to its output, or the GEMM that does.
    Added,
    /// The kernel with vector loads and stores that adds to its output.
    AddedWide,
    /// Sums of squares: those of the GEMM that adds to its output.
    Squares,
    /// A projection of a folded norm.
    Normed,
    /// The GEMM of queries, keys and values.
    Qkv,
    /// Attention with a window.
    Window,
    /// Attention with a soft cap.
    SoftCap,
    /// Attention of several KV heads with groups that do not divide a tile.
    Packed,
    /// Attention of a node of a prefix tree, whose keys are not consecutive rows.
    Node,
    /// Attention whose last keys lie before rows that are not numbers.
    BeforeNan,
    /// Attention of heads so wide that keys and values have one stage.
    OneStage,
}

/// One changed text in one kernel source.
pub struct Mutant {
    /// Name of the mutant: the fault.
    pub name: &'static str,
    /// File in `kernels/cuda/`, without its extension.
    pub file: &'static str,
    /// The code path that it changes.
    pub path: KernelPath,
    /// The replaced text.
    pub find: &'static str,
    /// The replacement.
    pub replace: &'static str,
}
