//! NVTX ranges: Nsight Systems shows the spans of a profile next to the kernels in its timeline (feature `nvtx`).
//!
//! The calls of NVTX do nothing unless such a tool started the process.

/// A range that ends when it is dropped.
pub(super) struct NvtxRange {
    /// Not `Send`: NVTX keeps a stack of ranges for each thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

#[cfg(feature = "nvtx")]
impl NvtxRange {
    /// Begins a range inside the current ranges of this thread.
    pub(super) fn push(name: &str, detail: &str) -> Self {
        // NVTX takes a C string: the macro panics on a NUL.
        let label = format!("{name} {detail}").replace('\0', " ");
        nvtx::range_push!("{}", label.trim_end());
        NvtxRange { _not_send: std::marker::PhantomData }
    }
}

#[cfg(feature = "nvtx")]
impl Drop for NvtxRange {
    fn drop(&mut self) {
        nvtx::range_pop!();
    }
}

#[cfg(not(feature = "nvtx"))]
impl NvtxRange {
    /// Does nothing without the feature `nvtx`.
    pub(super) fn push(_name: &str, _detail: &str) -> Self {
        NvtxRange { _not_send: std::marker::PhantomData }
    }
}
