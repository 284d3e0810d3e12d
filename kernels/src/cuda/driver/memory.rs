//! Stream-ordered memory of a GPU, and the count of the bytes in use.
//!
//! Where the driver supports it, memory comes from a pool of this device object, which keeps freed memory for the next
//! request, so that a forward pass does not wait for the driver. Elsewhere each request allocates from the driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::{self, CUmemPool_attribute as PoolAttribute};
use cudarc::driver::{CudaStream, DriverError, result};

use super::context::DriverContext;
use super::session::Session;
use crate::cuda::MemoryUsage;
use crate::error::KernelError;

/// The byte that fills poisoned memory: all ones are a NaN in each storage type.
pub(super) const POISON: u8 = 0xff;

/// The size of the guards before and after each buffer of a checked device, in bytes. A multiple of the alignment of
/// the driver's allocations.
const GUARD: usize = 256;

/// The allocator of a device.
pub(super) struct DeviceMemory {
    pub(super) session: Arc<Session>,
    pool: Option<DriverPool>,
    /// Bytes of each guard; 0 on a device that is not checked.
    guard: usize,
    used: AtomicU64,
    peak_used: AtomicU64,
}

/// A memory pool of the driver.
struct DriverPool(sys::CUmemoryPool);

// SAFETY: the driver's functions for pools may be called from any thread.
unsafe impl Send for DriverPool {}
// SAFETY: as above.
unsafe impl Sync for DriverPool {}

/// Memory of a GPU. Dropping it frees the memory in the order of the stream, so after all earlier launches.
pub struct DriverBuffer {
    /// The start of the driver's allocation: the first guard, if there is one.
    base: sys::CUdeviceptr,
    len: usize,
    memory: Arc<DeviceMemory>,
}

impl DeviceMemory {
    /// `guarded` adds guards to each buffer, for [`DeviceMemory::guards_intact`].
    pub(super) fn new(session: Arc<Session>, guarded: bool) -> Result<Arc<Self>, KernelError> {
        let context = &session.context;
        context.enter("open")?;
        let pool = if context.facts.has_pools {
            Some(context.check("open", || "creating a memory pool".to_owned(), DriverPool::new(context))?)
        } else {
            None
        };
        let guard = if guarded { GUARD } else { 0 };
        Ok(Arc::new(DeviceMemory { session, pool, guard, used: AtomicU64::new(0), peak_used: AtomicU64::new(0) }))
    }

    /// Whether memory can be allocated in the order of any stream. Not with guards, which the kernels' stream fills.
    pub(super) fn is_stream_ordered(&self) -> bool {
        self.pool.is_some() && self.guard == 0
    }

    /// Memory of `len` bytes in the order of the kernels' stream. At least one byte is allocated, as the driver rejects
    /// 0.
    pub(super) fn alloc(self: &Arc<Self>, len: usize) -> Result<DriverBuffer, KernelError> {
        self.alloc_on(&self.session.context.stream, len)
    }

    /// [`DeviceMemory::alloc`] in the order of `stream`.
    pub(super) fn alloc_on(self: &Arc<Self>, stream: &CudaStream, len: usize) -> Result<DriverBuffer, KernelError> {
        const OP: &str = "alloc";
        let context = &self.session.context;
        context.enter(OP)?;
        let out_of_memory = || KernelError::OutOfMemory { op: OP, bytes: len, device: context.device_name() };
        let bytes = len.max(1).checked_add(2 * self.guard).ok_or_else(out_of_memory)?;
        let request = || match &self.pool {
            // SAFETY: the context is current, and pool and stream belong to it.
            Some(pool) => unsafe { result::mem_pool::alloc_async(pool.0, bytes, stream.cu_stream()) },
            // SAFETY: as above.
            None => unsafe { result::malloc_sync(bytes) },
        };
        let base = match request() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                // Queued work may free memory, and the pool may hold it in fragments.
                self.session.synchronize_all(OP, || "waiting for memory".to_owned())?;
                self.trim()?;
                request()
            }
            other => other,
        };
        let base = match base {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => return Err(out_of_memory()),
            other => context.check(OP, || format!("{bytes} bytes of memory"), other)?,
        };
        let used = self.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.peak_used.fetch_max(used, Ordering::Relaxed);
        let buffer = DriverBuffer { base, len, memory: self.clone() };
        if self.guard > 0 {
            // The buffer's own bytes too: a kernel must not rely on the contents of new memory.
            self.fill(OP, base, bytes)?;
        }
        Ok(buffer)
    }

    /// Fills `bytes` bytes from `start` with NaN.
    pub(super) fn fill(&self, op: &'static str, start: sys::CUdeviceptr, bytes: usize) -> Result<(), KernelError> {
        let context = &self.session.context;
        // SAFETY: the callers pass a range of one allocation of this context.
        let filled = unsafe { result::memset_d8_async(start, POISON, bytes, context.stream.cu_stream()) };
        context.check(op, || format!("filling {bytes} bytes"), filled)
    }

    /// Whether nothing was written to the guards of `buffer`. Waits for the stream.
    pub(super) fn guards_intact(&self, buffer: &DriverBuffer) -> Result<bool, KernelError> {
        const OP: &str = "launch";
        let context = &self.session.context;
        let mut guards = [[0u8; GUARD]; 2];
        let end = buffer.start() + buffer.len.max(1) as u64;
        for (guard, start) in guards.iter_mut().zip([buffer.base, end]) {
            let guard = &mut guard[..self.guard];
            // SAFETY: both guards belong to the buffer's allocation, and `guards` lives until the wait below.
            let copied = unsafe { result::memcpy_dtoh_async(guard, start, context.stream.cu_stream()) };
            context.check(OP, || "reading the guards of a buffer".to_owned(), copied)?;
        }
        self.session.synchronize(OP, || "reading the guards of a buffer".to_owned())?;
        Ok(guards.iter().all(|guard| guard[..self.guard].iter().all(|byte| *byte == POISON)))
    }

    /// The bytes in use and their peaks.
    pub(super) fn usage(&self) -> Result<MemoryUsage, KernelError> {
        let (used, peak_used) = (self.used.load(Ordering::Relaxed), self.peak_used.load(Ordering::Relaxed));
        let Some(pool) = &self.pool else {
            return Ok(MemoryUsage { used, peak_used, reserved: used, peak_reserved: peak_used });
        };
        let context = &self.session.context;
        context.enter("memory")?;
        let query =
            |attribute| context.check("memory", || "querying the memory pool".to_owned(), pool.attribute(attribute));
        Ok(MemoryUsage {
            used,
            peak_used,
            reserved: query(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
            peak_reserved: query(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
        })
    }

    /// Bytes that can still be allocated: the free memory of the device and the unused memory of the pool.
    pub(super) fn free_bytes(&self) -> Result<u64, KernelError> {
        let context = &self.session.context;
        context.enter("memory")?;
        let (free, _) = context.check("memory", || "querying free memory".to_owned(), result::mem_get_info())?;
        let usage = self.usage()?;
        Ok(free as u64 + usage.reserved.saturating_sub(usage.used))
    }

    /// Returns unused memory of the pool to the device. Memory whose free is still queued in the stream stays.
    pub(super) fn trim(&self) -> Result<(), KernelError> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let context = &self.session.context;
        context.enter("memory")?;
        // SAFETY: the pool lives as long as `self`, and this does not free memory in use.
        let trimmed = unsafe { result::mem_pool::trim_to(pool.0, 0) };
        context.check("memory", || "trimming the memory pool".to_owned(), trimmed)
    }

    /// Resets the peaks to the current values.
    pub(super) fn reset_peaks(&self) -> Result<(), KernelError> {
        self.peak_used.store(self.used.load(Ordering::Relaxed), Ordering::Relaxed);
        let Some(pool) = &self.pool else { return Ok(()) };
        let context = &self.session.context;
        context.enter("memory")?;
        let reset = pool.set_attribute(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, 0);
        context.check("memory", || "resetting the memory pool".to_owned(), reset)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            // Every buffer holds this object, so all memory of the pool is free. A lost context cannot free anything.
            if self.session.context.cuda.bind_to_thread().is_ok() {
                // SAFETY: created in `DriverPool::new` and destroyed here alone.
                let _ = unsafe { result::mem_pool::destroy(pool.0) };
            }
        }
    }
}

impl DriverPool {
    fn new(context: &DriverContext) -> Result<Self, DriverError> {
        let properties = sys::CUmemPoolProps {
            allocType: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: sys::CUmemLocation {
                type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: context.cuda.cu_device(),
            },
            win32SecurityAttributes: std::ptr::null_mut(),
            maxSize: 0,
            usage: 0,
            reserved: [0; 54],
        };
        // SAFETY: the properties live through the call, and the reserved fields are 0 as the driver requires.
        let pool = DriverPool(unsafe { result::mem_pool::create(&properties) }?);
        // By default a pool returns all unused memory to the device at each wait for the stream.
        pool.set_attribute(PoolAttribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)?;
        // Otherwise an upload that reuses memory could be made to wait for the kernels that used it before.
        pool.set_attribute(PoolAttribute::CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES, 0)?;
        Ok(pool)
    }

    /// The value of a 64-bit attribute.
    fn attribute(&self, attribute: PoolAttribute) -> Result<u64, DriverError> {
        let mut value = 0u64;
        let pointer: *mut u64 = &mut value;
        // SAFETY: the pool lives as long as `self`, and all attributes in this file have 64 bits.
        unsafe { result::mem_pool::get_attribute(self.0, attribute, pointer.cast()) }?;
        Ok(value)
    }

    fn set_attribute(&self, attribute: PoolAttribute, mut value: u64) -> Result<(), DriverError> {
        let pointer: *mut u64 = &mut value;
        // SAFETY: as in `attribute`.
        unsafe { result::mem_pool::set_attribute(self.0, attribute, pointer.cast()) }
    }
}

impl DriverBuffer {
    /// The address of the first byte on the device.
    pub(super) fn start(&self) -> sys::CUdeviceptr {
        self.base + self.memory.guard as u64
    }

    /// The size of the buffer in bytes, without guards.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for DriverBuffer {
    fn drop(&mut self) {
        let memory = &self.memory;
        memory.used.fetch_sub((self.len.max(1) + 2 * memory.guard) as u64, Ordering::Relaxed);
        memory.session.free(self.base);
    }
}
