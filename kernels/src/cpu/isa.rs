//! Which instruction set the kernels use, found once at start.
//!
//! Every kernel is one generic body compiled several times, each time with other instructions enabled. All of them
//! use fused multiply-adds in the same order, so the choice changes the speed and not one bit of a result. The one
//! exception are products of bf16 with weights, for which processors have instructions with an order of their own:
//! see [`Isa::kernel_id`].

use std::fmt;

/// The environment variable that forces a lower instruction set, by one of the names in [`Isa::ALL`].
pub const ISA_VARIABLE: &str = "ACTBENCH_CPU_ISA";

/// An instruction set the kernels are compiled for. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the target guarantees.
    Portable,
    /// AVX2, FMA and F16C on x86-64.
    Avx2,
    /// AVX-512 F, BW, DQ and VL on x86-64.
    Avx512,
    /// AVX-512 with dot products of pairs of bf16 (Zen 4, Cooper Lake).
    Avx512Bf16,
    /// Tiles of bf16 (AMX, Sapphire Rapids), which the operating system must permit.
    Amx,
}

impl Isa {
    /// All instruction sets, the lowest first.
    pub const ALL: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The fastest instruction set of this processor, or no higher than that of [`ISA_VARIABLE`] where it is set to a
    /// known name.
    pub fn detect() -> Self {
        let best = Self::best();
        let forced = std::env::var(ISA_VARIABLE).ok();
        match Self::ALL.iter().find(|isa| forced.as_deref() == Some(isa.name())) {
            Some(isa) => best.min(*isa),
            // Intel's cores with AMX do one `vdpbf16ps` in two cycles, half as many products as by fused
            // multiply-adds; where AMX is not to be had there, AVX-512 is faster. AMD's Zen 4 does one a cycle.
            None if best == Isa::Avx512Bf16 && !has_fast_dots() => Isa::Avx512,
            None => best,
        }
    }

    /// Whether products of f32 with weights that bf16 holds are made of products of bf16.
    pub(super) fn splits(self) -> bool {
        self == Isa::Amx
    }

    /// Names the arithmetic: two backends with the same name agree to the last bit in every operation and type.
    ///
    /// Up to AVX-512 all instruction sets share one chain of fused multiply-adds an output. `vdpbf16ps` and
    /// `tdpbf16ps` add the products of bf16 in pairs, in orders of their own, round in between to nearest even
    /// whatever the rounding mode is, and take subnormal inputs and results for zero (Intel's manual, volume 2).
    /// Other types than bf16 keep the common chain there too, apart from f32 on weights that are stored as bf16 where
    /// there are tiles: see `gemm::amx`. The number goes up in all of them when the bits of an
    /// operation that they share change.
    pub fn kernel_id(self) -> &'static str {
        match self {
            Isa::Portable | Isa::Avx2 | Isa::Avx512 => "cpu-fma-2",
            Isa::Avx512Bf16 => "cpu-bf16dot-2",
            Isa::Amx => "cpu-amx-3",
        }
    }

    /// Whether `name` is that of an instruction set, or empty.
    pub(super) fn is_name(name: &std::ffi::OsStr) -> bool {
        name.is_empty() || Self::ALL.iter().any(|isa| name == isa.name())
    }

    fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn best() -> Self {
        let avx2 =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx2, avx512, is_x86_feature_detected!("avx512bf16")) {
            (true, true, true) if amx_is_permitted() => Isa::Amx,
            (true, true, true) => Isa::Avx512Bf16,
            (true, true, false) => Isa::Avx512,
            (true, false, _) => Isa::Avx2,
            _ => Isa::Portable,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn best() -> Self {
        Isa::Portable
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether dot products of bf16 are faster than fused multiply-adds: on processors by AMD.
#[cfg(target_arch = "x86_64")]
fn has_fast_dots() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fast_dots() -> bool {
    false
}

/// Whether the processor multiplies tiles of bf16 and Linux lets this process use them.
///
/// Linux gives the 8 KiB of tile registers only to processes that ask ("Using XSTATE features in user space
/// applications" in its documentation). Asking once covers all threads of the process, running and to come.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_is_permitted() -> bool {
    use std::sync::OnceLock;
    /// `ARCH_REQ_XCOMP_PERM` of `asm/prctl.h`.
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    /// The state component of the tile registers, `XFEATURE_XTILEDATA`.
    const TILE_DATA: libc::c_long = 18;
    /// Bits of EDX in leaf 7 of `cpuid`.
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let has = |leaf: u32| std::arch::x86_64::__cpuid(0).eax >= leaf;
        let wanted = AMX_BF16 | AMX_TILE;
        has(7)
            && std::arch::x86_64::__cpuid_count(7, 0).edx & wanted == wanted
            // SAFETY: a plain system call without pointers, which older systems refuse.
            && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) } == 0
    })
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_is_permitted() -> bool {
    false
}

/// Defines `$name(isa, ...)`, which runs the `#[inline(always)]` function `$body` compiled for the instruction set.
///
/// The body must be safe and must not depend on the instruction set for its results.
macro_rules! dispatch {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident $(<$generic:ident: $bound:path>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:path) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name $(<$generic: $bound>)? (isa: $crate::cpu::isa::Isa, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::isa::Isa;
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$generic: $bound>)? ($($argument: $type),*) $(-> $result)? {
                    $body($($argument),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$generic: $bound>)? ($($argument: $type),*) $(-> $result)? {
                    $body($($argument),*)
                }
                match isa {
                    // SAFETY: an `Isa` above `Portable` comes from `Isa::detect`, which saw these features.
                    Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    Isa::Avx2 => return unsafe { avx2($($argument),*) },
                    Isa::Portable => {}
                }
            }
            let _ = isa;
            $body($($argument),*)
        }
    };
}
pub(crate) use dispatch;
