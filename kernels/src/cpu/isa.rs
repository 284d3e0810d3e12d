//! Which instruction set the kernels use, found once at start.
//!
//! Every kernel is one generic body compiled several times, each time with other instructions enabled. All of them
//! use fused multiply-adds in the same order, so the choice changes the speed and not one bit of a result.

use std::fmt;

/// The environment variable that forces a lower instruction set: `avx512`, `avx2` or `portable`.
pub const ISA_VARIABLE: &str = "ACTBENCH_CPU_ISA";

/// An instruction set the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the target guarantees.
    Portable,
    /// AVX2, FMA and F16C on x86-64.
    Avx2,
    /// AVX-512 F, BW, DQ and VL on x86-64.
    Avx512,
}

impl Isa {
    /// The best instruction set of this processor, capped by [`ISA_VARIABLE`] where it is set to a known name.
    pub fn detect() -> Self {
        let best = Self::best();
        match std::env::var(ISA_VARIABLE).as_deref() {
            Ok("portable") => Isa::Portable,
            Ok("avx2") => best.min(Isa::Avx2),
            _ => best,
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
        match (avx2, avx512) {
            (true, true) => Isa::Avx512,
            (true, false) => Isa::Avx2,
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
        f.pad(match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        })
    }
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
                    $crate::cpu::isa::Isa::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::cpu::isa::Isa::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::cpu::isa::Isa::Portable => {}
                }
            }
            let _ = isa;
            $body($($argument),*)
        }
    };
}
pub(crate) use dispatch;
