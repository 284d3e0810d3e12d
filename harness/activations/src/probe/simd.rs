//! Loops that are compiled once per instruction set; `pulp` selects one at run time.
//!
//! The loops use no fused multiply-add, so that all instruction sets give the same bits.

/// A loop that is compiled once per instruction set. `run` and all functions it calls must be `#[inline(always)]`:
/// code that is not inlined is compiled for the oldest processors.
pub(super) trait SimdLoop {
    /// The result of the loop.
    type Output;

    /// Runs the loop.
    fn run(self) -> Self::Output;
}

/// Runs `body` compiled for the best available instruction set.
pub(super) fn run_simd<V: SimdLoop>(body: V) -> V::Output {
    struct Body<V>(V);
    impl<V: SimdLoop> pulp::WithSimd for Body<V> {
        type Output = V::Output;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> V::Output {
            self.0.run()
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}
