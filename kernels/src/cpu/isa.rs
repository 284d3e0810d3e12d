//! The instruction set of the kernels, detected once at start.
//!
//! Every kernel is one generic body, compiled once for each instruction set. All variants use fused multiply-adds in
//! the same order, so the choice changes the speed and not the bits. The exception are matmuls and attention in bf16:
//! processors have instructions for them that accumulate in an order of their own. See [`Isa::kernel_id`].

use std::fmt;

/// The environment variable that selects a lower instruction set, by one of the names of [`Isa::ALL`].
pub const ISA_VARIABLE: &str = "ACTBENCH_CPU_ISA";

/// An instruction set that the kernels are compiled for. Each includes the previous ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The instructions that the compilation target guarantees.
    Portable,
    /// AVX2, FMA and F16C on x86-64.
    Avx2,
    /// AVX-512 F, BW, DQ and VL on x86-64.
    Avx512,
    /// AVX-512 with dot products of bf16 pairs (Zen 4, Cooper Lake).
    Avx512Bf16,
    /// AMX tiles of bf16 (Sapphire Rapids), which need a permission of the operating system.
    Amx,
}

impl Isa {
    /// All instruction sets, lowest first.
    pub const ALL: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

    /// The fastest instruction set of this processor, limited to that of [`ISA_VARIABLE`] if it names one.
    pub fn detect() -> Self {
        let best = Self::best();
        let forced = std::env::var(ISA_VARIABLE).ok();
        match Self::ALL.iter().find(|isa| forced.as_deref() == Some(isa.name())) {
            Some(isa) => best.min(*isa),
            // Intel's cores with AMX execute a `vdpbf16ps` in two cycles, which is half the rate of fused
            // multiply-adds. Without permission for AMX, AVX-512 is faster there. AMD's Zen 4 executes one a cycle.
            None if best == Isa::Avx512Bf16 && !has_fast_dots() => Isa::Avx512,
            None => best,
        }
    }

    /// Whether matmuls and attention in bf16 use instructions for dot products of pairs.
    pub(super) fn has_bf16_dots(self) -> bool {
        self >= Isa::Avx512Bf16
    }

    /// Whether matmuls of f32 with weights that are exact in bf16 split the activations into bf16 terms (see
    /// `gemm::amx`).
    pub(super) fn splits_f32(self) -> bool {
        self == Isa::Amx
    }

    /// The name of the arithmetic: two backends with the same name have the same bits in every operation and dtype.
    ///
    /// Up to AVX-512 all instruction sets use one chain of fused multiply-adds per output. `vdpbf16ps` and `tdpbf16ps`
    /// accumulate pairs of bf16 in orders of their own, round to nearest even in between, independent of the rounding
    /// mode, and treat subnormal inputs and results as zero (Intel's manual, volume 2). Attention in bf16 uses them too, with
    /// weights rounded to bf16: see `attention::pairs`. The other dtypes keep the common chain there too, except f32 with
    /// matmul weights that are stored as bf16 on AMX: see `gemm::amx`. The number is increased whenever the bits of an operation change, in all names that the operation affects.
    pub fn kernel_id(self) -> &'static str {
        match self {
            Isa::Portable | Isa::Avx2 | Isa::Avx512 => "cpu-fma-2",
            Isa::Avx512Bf16 => "cpu-bf16dot-3",
            Isa::Amx => "cpu-amx-4",
        }
    }

    /// Whether `name` is empty or the name of an instruction set.
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

/// Whether bf16 dot products are faster than fused multiply-adds, which is the case on AMD processors.
#[cfg(target_arch = "x86_64")]
fn has_fast_dots() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fast_dots() -> bool {
    false
}

/// Whether the processor has AMX with bf16 and Linux permits this process to use it.
///
/// Linux enables the 8 KiB of tile registers on request only ("Using XSTATE features in user space applications" in its
/// documentation). One request covers all threads of the process, including later ones.
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
        let has_leaf = |leaf: u32| std::arch::x86_64::__cpuid(0).eax >= leaf;
        let required = AMX_BF16 | AMX_TILE;
        has_leaf(7)
            && std::arch::x86_64::__cpuid_count(7, 0).edx & required == required
            // SAFETY: a system call without pointers. Older kernels return an error.
            && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) } == 0
    })
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_is_permitted() -> bool {
    false
}

/// Defines `$name(isa, ...)`, which runs the `#[inline(always)]` function `$body`, compiled for the instruction set
/// `isa`.
///
/// The body must be safe, and its results must not depend on the instruction set.
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
                    // SAFETY: an `Isa` above `Portable` comes from `Isa::detect`, which found these features.
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
