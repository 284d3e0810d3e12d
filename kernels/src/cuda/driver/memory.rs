//! Memory of a GPU in the stream's order, and how much of it is in use.
//!
//! Where the driver can, memory comes from a pool of this device object's own, which keeps what is given back for the
//! next request, so that a forward pass does not wait for the driver. Elsewhere each request is the driver's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::{self, CUmemPool_attribute as PoolAttribute};
use cudarc::driver::{CudaStream, DriverError, result};

use super::session::Session;
use crate::cuda::MemoryUse;
use crate::error::KernelError;

/// All ones is a NaN in each storage type.
pub(super) const POISON: u8 = 0xff;

/// Bytes in front of and behind each buffer of a checked device that no kernel may touch. A multiple of the alignment
/// that the driver gives.
const GUARD: usize = 256;

/// Where buffers come from.
pub(super) struct Memory {
    pub(super) session: Arc<Session>,
    pool: Option<Pool>,
    /// Bytes on each side of a buffer.
    guard: usize,
    used: AtomicU64,
    used_high: AtomicU64,
}

/// A pool of the driver's.
struct Pool(sys::CUmemoryPool);

// SAFETY: the driver's functions for pools may be called from any thread.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// Memory of a GPU, given back when it is dropped, once what was launched before has ended.
pub struct DriverBuffer {
    /// Where the driver's allocation starts: the guard in front, if there is one.
    base: sys::CUdeviceptr,
    len: usize,
    memory: Arc<Memory>,
}

impl Memory {
    /// `guarded` puts bytes on both sides of each buffer, for [`Memory::untouched_around`].
    pub(super) fn new(session: Arc<Session>, guarded: bool) -> Result<Arc<Self>, KernelError> {
        session.enter("open")?;
        let pool = match session.facts.has_pools {
            true => Some(session.check("open", || "making a memory pool".to_owned(), Pool::new(&session))?),
            false => None,
        };
        let guard = if guarded { GUARD } else { 0 };
        Ok(Arc::new(Memory { session, pool, guard, used: AtomicU64::new(0), used_high: AtomicU64::new(0) }))
    }

    /// Whether memory can be had in the order of any stream and used without a word to the kernels' stream.
    pub(super) fn is_ordered(&self) -> bool {
        self.pool.is_some() && self.guard == 0
    }

    /// Memory of `len` bytes, and at least one, as the driver has no empty memory. It is the kernels' stream's.
    pub(super) fn alloc(self: &Arc<Self>, len: usize) -> Result<DriverBuffer, KernelError> {
        self.alloc_on(&self.session.stream, len)
    }

    /// The same in the order of `stream`.
    pub(super) fn alloc_on(self: &Arc<Self>, stream: &CudaStream, len: usize) -> Result<DriverBuffer, KernelError> {
        const OP: &str = "alloc";
        self.session.enter(OP)?;
        let too_much = || KernelError::OutOfMemory { op: OP, bytes: len, device: self.session.device() };
        let bytes = len.max(1).checked_add(2 * self.guard).ok_or_else(too_much)?;
        let request = || match &self.pool {
            // SAFETY: the context is this thread's, and pool and stream are of it.
            Some(pool) => unsafe { result::mem_pool::alloc_async(pool.0, bytes, stream.cu_stream()) },
            // SAFETY: as above.
            None => unsafe { result::malloc_sync(bytes) },
        };
        let base = match request() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                // Some of it may be given back by work that is still to come, or lie in pieces in the pool.
                self.session.synchronize_all(OP, || "waiting for memory".to_owned())?;
                self.trim()?;
                request()
            }
            other => other,
        };
        let base = match base {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => return Err(too_much()),
            other => self.session.check(OP, || format!("{bytes} bytes of memory"), other)?,
        };
        let used = self.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.used_high.fetch_max(used, Ordering::Relaxed);
        let buffer = DriverBuffer { base, len, memory: self.clone() };
        if self.guard > 0 {
            // The buffer's own bytes too: nothing may rely on what is in new memory.
            self.fill(OP, base, bytes)?;
        }
        Ok(buffer)
    }

    /// Fills `bytes` bytes from `start` on with NaN.
    pub(super) fn fill(&self, op: &'static str, start: sys::CUdeviceptr, bytes: usize) -> Result<(), KernelError> {
        // SAFETY: the range is of one allocation of this context, which the callers see to.
        let filled = unsafe { result::memset_d8_async(start, POISON, bytes, self.session.stream.cu_stream()) };
        self.session.check(op, || format!("filling {bytes} bytes"), filled)
    }

    /// Whether the guards on both sides of `buffer` are as they were. Waits for the stream.
    pub(super) fn untouched_around(&self, buffer: &DriverBuffer) -> Result<bool, KernelError> {
        const OP: &str = "launch";
        let mut guards = [[0u8; GUARD]; 2];
        let behind = buffer.start() + buffer.len.max(1) as u64;
        for (guard, start) in guards.iter_mut().zip([buffer.base, behind]) {
            let guard = &mut guard[..self.guard];
            // SAFETY: both guards are of the buffer's allocation, and `guards` lives until the stream has ended.
            let copied = unsafe { result::memcpy_dtoh_async(guard, start, self.session.stream.cu_stream()) };
            self.session.check(OP, || "reading what lies around a buffer".to_owned(), copied)?;
        }
        self.session.synchronize(OP, || "reading what lies around a buffer".to_owned())?;
        Ok(guards.iter().all(|guard| guard[..self.guard].iter().all(|byte| *byte == POISON)))
    }

    /// What is in use now and was at most.
    pub(super) fn in_use(&self) -> Result<MemoryUse, KernelError> {
        let (used, used_high) = (self.used.load(Ordering::Relaxed), self.used_high.load(Ordering::Relaxed));
        let Some(pool) = &self.pool else {
            return Ok(MemoryUse { used, used_high, reserved: used, reserved_high: used_high });
        };
        self.session.enter("memory")?;
        let attribute =
            |attribute| self.session.check("memory", || "asking the memory pool".to_owned(), pool.attribute(attribute));
        Ok(MemoryUse {
            used,
            used_high,
            reserved: attribute(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
            reserved_high: attribute(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
        })
    }

    /// Bytes that can still be had: what the device has free, and what the pool holds for nobody.
    pub(super) fn free(&self) -> Result<u64, KernelError> {
        self.session.enter("memory")?;
        let (free, _) = self.session.check("memory", || "asking for free memory".to_owned(), result::mem_get_info())?;
        let in_use = self.in_use()?;
        Ok(free as u64 + in_use.reserved.saturating_sub(in_use.used))
    }

    /// Gives what the pool holds for nobody back to the device. Memory that was given back to the pool but not yet in the
    /// stream stays.
    pub(super) fn trim(&self) -> Result<(), KernelError> {
        let Some(pool) = &self.pool else { return Ok(()) };
        self.session.enter("memory")?;
        // SAFETY: the pool lives as long as `self`, and memory that is in use is not touched.
        let trimmed = unsafe { result::mem_pool::trim_to(pool.0, 0) };
        self.session.check("memory", || "trimming the memory pool".to_owned(), trimmed)
    }

    /// Starts the high-water marks anew from what is in use now.
    pub(super) fn reset_high(&self) -> Result<(), KernelError> {
        self.used_high.store(self.used.load(Ordering::Relaxed), Ordering::Relaxed);
        let Some(pool) = &self.pool else { return Ok(()) };
        self.session.enter("memory")?;
        let reset = pool.set_attribute(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, 0);
        self.session.check("memory", || "resetting the memory pool".to_owned(), reset)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            // Every buffer holds this object, so all memory of the pool was given back; of a lost context nothing can be.
            if self.session.context.bind_to_thread().is_ok() {
                // SAFETY: made in `Pool::new` and destroyed here alone.
                let _ = unsafe { result::mem_pool::destroy(pool.0) };
            }
        }
    }
}

impl Pool {
    fn new(session: &Session) -> Result<Self, DriverError> {
        let properties = sys::CUmemPoolProps {
            allocType: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: sys::CUmemLocation {
                type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: session.context.cu_device(),
            },
            win32SecurityAttributes: std::ptr::null_mut(),
            maxSize: 0,
            usage: 0,
            reserved: [0; 54],
        };
        // SAFETY: the properties live through the call, and reserved fields are zeros as asked for.
        let pool = Pool(unsafe { result::mem_pool::create(&properties) }?);
        // By default a pool gives back everything at each wait for the stream.
        pool.set_attribute(PoolAttribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)?;
        // Otherwise a copy to the device could be made to wait for the kernels whose memory it is given.
        pool.set_attribute(PoolAttribute::CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES, 0)?;
        Ok(pool)
    }

    /// The value of an attribute of 64 bits.
    fn attribute(&self, attribute: PoolAttribute) -> Result<u64, DriverError> {
        let mut value = 0u64;
        let place: *mut u64 = &mut value;
        // SAFETY: the pool lives as long as `self`, and the attributes asked for here are all of 64 bits.
        unsafe { result::mem_pool::get_attribute(self.0, attribute, place.cast()) }?;
        Ok(value)
    }

    fn set_attribute(&self, attribute: PoolAttribute, mut value: u64) -> Result<(), DriverError> {
        let place: *mut u64 = &mut value;
        // SAFETY: as in `attribute`.
        unsafe { result::mem_pool::set_attribute(self.0, attribute, place.cast()) }
    }
}

impl DriverBuffer {
    /// The address of the first byte on the device.
    pub(super) fn start(&self) -> sys::CUdeviceptr {
        self.base + self.memory.guard as u64
    }

    /// Bytes of the buffer.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for DriverBuffer {
    fn drop(&mut self) {
        let memory = &self.memory;
        memory.used.fetch_sub((self.len.max(1) + 2 * memory.guard) as u64, Ordering::Relaxed);
        memory.session.give_back(self.base);
    }
}
