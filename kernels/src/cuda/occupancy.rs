//! How much of a multiprocessor a kernel fills: warps that are there at once, of those that could be.
//!
//! Computed from what the compiler says a kernel takes and from the limits of each architecture, so that it is known
//! without a GPU. A driver's answer is the same sum.

use super::{Architecture, attention, linear};

/// What a block takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Threads.
    pub threads: u32,
    /// Registers of a thread. Where warpgroups exchange registers, those they are launched with.
    pub registers: u32,
    /// Shared memory, static and dynamic.
    pub shared_bytes: u32,
}

/// What a multiprocessor has (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
struct Limits {
    number: u32,
    warps: u32,
    blocks: u32,
    shared_bytes: u32,
}

const LIMITS: [Limits; 6] = [
    Limits { number: 80, warps: 64, blocks: 32, shared_bytes: 164 << 10 },
    Limits { number: 86, warps: 48, blocks: 16, shared_bytes: 100 << 10 },
    Limits { number: 89, warps: 48, blocks: 24, shared_bytes: 100 << 10 },
    Limits { number: 90, warps: 64, blocks: 32, shared_bytes: 228 << 10 },
    Limits { number: 100, warps: 64, blocks: 32, shared_bytes: 228 << 10 },
    Limits { number: 120, warps: 48, blocks: 24, shared_bytes: 100 << 10 },
];

/// Registers of each of a multiprocessor's four parts, which warps are spread over.
const PART_REGISTERS: u32 = 16 << 10;
const PARTS: u32 = 4;

/// Registers come to a warp in units of this.
const REGISTER_UNIT: u32 = 256;

/// Shared memory that the system takes of each block.
const SYSTEM_SHARED_BYTES: u32 = 1 << 10;

const WARP: u32 = 32;

impl Block {
    /// The blocks that a multiprocessor of `architecture` holds at once, and the share of its warps that they are in
    /// percent. None of an architecture that is not known here.
    pub fn occupancy(self, architecture: Architecture) -> Option<(u32, u32)> {
        let limits = LIMITS.iter().find(|limits| Architecture::new(limits.number).code() == architecture.code())?;
        let warps = self.threads.div_ceil(WARP).max(1);
        let registers = (self.registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT);
        let by_registers = PART_REGISTERS / registers * PARTS / warps;
        let by_shared = limits.shared_bytes / (self.shared_bytes + SYSTEM_SHARED_BYTES).next_multiple_of(128);
        let blocks = by_registers.min(by_shared).min(limits.blocks).min(limits.warps / warps);
        Some((blocks, blocks * warps * 100 / limits.warps))
    }
}

/// Threads of a block and its dynamic shared memory, as the backend launches `kernel`.
pub fn launched(kernel: &str) -> (u32, u32) {
    if kernel.contains("_wgmma_") {
        return (linear::WGMMA.threads, linear::WGMMA.shared_bytes);
    }
    if let Some(width) = kernel.strip_prefix("attention_mma_").and_then(|rest| rest.split('_').nth(1)?.parse().ok()) {
        return (attention::THREADS, attention::fast_shared_bytes(width));
    }
    if kernel.contains("_mma_") {
        return (linear::MMA.threads, linear::MMA.shared_bytes);
    }
    let has_256 = ["cast_", "compare_", "rms_norm_wide_"].iter().any(|name| kernel.starts_with(name));
    (if has_256 { 256 } else { 128 }, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_out_first_decides() {
        let occupancy = |threads, registers, shared_bytes, architecture| {
            Block { threads, registers, shared_bytes }.occupancy(Architecture::new(architecture)).unwrap()
        };
        // Blocks, warps, registers, shared memory.
        assert_eq!(occupancy(32, 32, 0, 80), (32, 50));
        assert_eq!(occupancy(256, 32, 0, 80), (8, 100));
        assert_eq!(occupancy(256, 32, 0, 86), (6, 100));
        assert_eq!(occupancy(256, 128, 0, 80), (2, 25));
        assert_eq!(occupancy(128, 16, 48 << 10, 80), (3, 18));
        assert_eq!(occupancy(384, 168, 193 << 10, 90), (1, 18));
        assert_eq!(occupancy(384, 168, 193 << 10, 120), (0, 0));
        assert_eq!(Block { threads: 32, registers: 32, shared_bytes: 0 }.occupancy(Architecture::new(70)), None);
    }

    #[test]
    fn launches_are_those_of_the_kernels_heads() {
        assert_eq!(launched("linear_residual_wgmma_bf16"), (384, 197_632));
        assert_eq!(launched("linear_mma_f16"), (256, 49_152));
        assert_eq!(launched("attention_mma_bf16_256"), (128, 98_304));
        assert_eq!(launched("attention_bf16"), (128, 0));
        assert_eq!(launched("rms_norm_wide_f32"), (256, 0));
    }
}
