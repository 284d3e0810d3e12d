//! Ranges for Nsight Systems: what a profile records, shown beside the kernels in its timeline (feature `nvtx`).
//!
//! NVTX's calls do nothing unless such a tool has started the program.

/// A range that ends when it is dropped, on the thread that began it.
pub(super) struct Range {
    /// Ranges are a stack of their thread's.
    _of_this_thread: std::marker::PhantomData<*const ()>,
}

#[cfg(feature = "nvtx")]
impl Range {
    /// Begins a range inside of those that this thread is in.
    pub(super) fn push(name: &str, detail: &str) -> Self {
        // A NUL would end the name for the other side, and panic on this one.
        let told = format!("{name} {detail}").replace('\0', " ");
        nvtx::range_push!("{}", told.trim_end());
        Range { _of_this_thread: std::marker::PhantomData }
    }
}

#[cfg(feature = "nvtx")]
impl Drop for Range {
    fn drop(&mut self) {
        nvtx::range_pop!();
    }
}

#[cfg(not(feature = "nvtx"))]
impl Range {
    /// Nothing without the feature.
    pub(super) fn push(_name: &str, _detail: &str) -> Self {
        Range { _of_this_thread: std::marker::PhantomData }
    }
}
