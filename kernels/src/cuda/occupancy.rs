//! Occupancy: the resident warps of a multiprocessor, of its maximum.
//!
//! Computed without a GPU from the kernel's resources, which the compiler reports, and the limits of each architecture, as
//! a driver does.

use super::Architecture;

/// The resources of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockResources {
    /// Threads.
    pub threads: u32,
    /// Registers of a thread at launch, before any `setmaxnreg`.
    pub registers: u32,
    /// Shared memory, static and dynamic.
    pub shared_bytes: u32,
}

/// The limits of a multiprocessor (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
struct MultiprocessorLimits {
    number: u32,
    warps: u32,
    blocks: u32,
    shared_bytes: u32,
}

const LIMITS: [MultiprocessorLimits; 6] = [
    MultiprocessorLimits { number: 80, warps: 64, blocks: 32, shared_bytes: 164 << 10 },
    MultiprocessorLimits { number: 86, warps: 48, blocks: 16, shared_bytes: 100 << 10 },
    MultiprocessorLimits { number: 89, warps: 48, blocks: 24, shared_bytes: 100 << 10 },
    MultiprocessorLimits { number: 90, warps: 64, blocks: 32, shared_bytes: 228 << 10 },
    MultiprocessorLimits { number: 100, warps: 64, blocks: 32, shared_bytes: 228 << 10 },
    MultiprocessorLimits { number: 120, warps: 48, blocks: 24, shared_bytes: 100 << 10 },
];

/// Registers of each of a multiprocessor's four sub-partitions, which warps are distributed over.
const PARTITION_REGISTERS: u32 = 16 << 10;
const PARTITIONS: u32 = 4;

/// Registers are allocated to a warp in units of this.
const REGISTER_UNIT: u32 = 256;

/// Shared memory that the system reserves for each block.
const SYSTEM_SHARED_BYTES: u32 = 1 << 10;

const WARP: u32 = 32;

impl BlockResources {
    /// The resident blocks of a multiprocessor of `architecture`, and their warps in percent of its maximum; `None` for an
    /// unknown architecture.
    pub fn occupancy(self, architecture: Architecture) -> Option<(u32, u32)> {
        let limits = LIMITS.iter().find(|limits| Architecture::new(limits.number).code() == architecture.code())?;
        let warps = self.threads.div_ceil(WARP).max(1);
        let registers = (self.registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT);
        let by_registers = PARTITION_REGISTERS / registers * PARTITIONS / warps;
        let by_shared = limits.shared_bytes / (self.shared_bytes + SYSTEM_SHARED_BYTES).next_multiple_of(128);
        let blocks = by_registers.min(by_shared).min(limits.blocks).min(limits.warps / warps);
        Some((blocks, blocks * warps * 100 / limits.warps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scarcest_resource_limits_occupancy() {
        let occupancy = |threads, registers, shared_bytes, architecture| {
            BlockResources { threads, registers, shared_bytes }.occupancy(Architecture::new(architecture)).unwrap()
        };
        // Blocks, warps, registers, shared memory.
        assert_eq!(occupancy(32, 32, 0, 80), (32, 50));
        assert_eq!(occupancy(256, 32, 0, 80), (8, 100));
        assert_eq!(occupancy(256, 32, 0, 86), (6, 100));
        assert_eq!(occupancy(256, 128, 0, 80), (2, 25));
        assert_eq!(occupancy(128, 16, 48 << 10, 80), (3, 18));
        assert_eq!(occupancy(384, 168, 193 << 10, 90), (1, 18));
        assert_eq!(occupancy(384, 168, 193 << 10, 120), (0, 0));
        assert_eq!(
            BlockResources { threads: 32, registers: 32, shared_bytes: 0 }.occupancy(Architecture::new(70)),
            None
        );
    }
}
