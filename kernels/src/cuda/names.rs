//! Names of kernels, made when the program is compiled: a forward pass asks for hundreds.

/// The kernel of `$stem` for elements of a type: `typed!("rope", dtype)` is `rope_bf16`, and `$end` comes behind that.
macro_rules! typed {
    ($stem:literal, $dtype:expr $(, $end:literal)?) => {
        match $dtype {
            $crate::dtype::DType::F32 => concat!($stem, "_f32" $(, $end)?),
            $crate::dtype::DType::F16 => concat!($stem, "_f16" $(, $end)?),
            $crate::dtype::DType::Bf16 => concat!($stem, "_bf16" $(, $end)?),
        }
    };
}

pub(super) use typed;
