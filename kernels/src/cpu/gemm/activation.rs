//! Activations of epilogues, as types: the loop over the accumulators of a tile is compiled for each of them.

use crate::cpu::math::{gelu, gelu_tanh, silu};

/// An activation function.
pub trait ActivationFunction: Sync {
    /// The function's value at `x`.
    fn apply(x: f32) -> f32;
}

/// [`crate::backend::Activation::Silu`].
pub struct Silu;
/// [`crate::backend::Activation::Gelu`].
pub struct Gelu;
/// [`crate::backend::Activation::GeluTanh`].
pub struct GeluTanh;

impl ActivationFunction for Silu {
    #[inline(always)]
    fn apply(x: f32) -> f32 {
        silu(x)
    }
}

impl ActivationFunction for Gelu {
    #[inline(always)]
    fn apply(x: f32) -> f32 {
        gelu(x)
    }
}

impl ActivationFunction for GeluTanh {
    #[inline(always)]
    fn apply(x: f32) -> f32 {
        gelu_tanh(x)
    }
}

/// Evaluates `$body` with `$function` as the type of the activation `$activation`.
macro_rules! with_activation {
    ($activation:expr, $function:ident => $body:expr) => {
        match $activation {
            $crate::backend::Activation::Silu => {
                type $function = $crate::cpu::gemm::activation::Silu;
                $body
            }
            $crate::backend::Activation::Gelu => {
                type $function = $crate::cpu::gemm::activation::Gelu;
                $body
            }
            $crate::backend::Activation::GeluTanh => {
                type $function = $crate::cpu::gemm::activation::GeluTanh;
                $body
            }
        }
    };
}
pub(crate) use with_activation;
