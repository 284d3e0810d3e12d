//! Elementary functions and sums with the same bits for every vector width.

/// Number of partial sums of [`sum_of_squares`]: the lanes of a 512-bit vector of `f32`.
const LANES: usize = 16;

/// `e^x` for `x <= 0` or moderate positive `x`, within 2 units in the last place.
///
/// Cody and Waite's range reduction to `|r| <= ln(2) / 2` and a polynomial of degree 6 (Cephes `expf` coefficients). It
/// has no branches, so that loops over it vectorize. The standard library's `exp` does not vectorize, and its bits
/// differ between C libraries. Below -87.3 the result is 0; above 88.7 it saturates.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const LOWEST: f32 = -87.336_55;
    let clamped = x.clamp(LOWEST, 88.376_26);
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer without a function call.
    const ROUND: f32 = 12_582_912.0;
    let shifted = clamped.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5.000_000_3e-1);
    let value = p.mul_add(r * r, r) + 1.0;
    // The low bits of `shifted` are n. A cast would saturate and check for NaN, which no vector instruction does.
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let result = value * scale;
    if x < LOWEST { 0.0 } else { result }
}

/// `x / (1 + e^-x)`, the SiLU of Elfwing et al. 2018.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The sum of squares, as 16 interleaved partial sums that are added in a fixed order.
#[inline(always)]
pub fn sum_of_squares(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = value.mul_add(*value, *lane);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = value.mul_add(*value, *lane);
    }
    reduce(lanes)
}

#[inline(always)]
fn reduce(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut x = -87.3f32;
        while x < 88.0 {
            let exact = f64::from(x).exp();
            let error = ((f64::from(exp(x)) - exact) / exact).abs();
            assert!(error <= 2.4e-7, "exp({x}) is off by {error:e}");
            x += 0.003_7;
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn silu_equals_definition() {
        for x in [-90.0f32, -20.0, -1.5, -1e-3, 0.0, 1e-3, 2.0, 30.0] {
            let exact = f64::from(x) / (1.0 + f64::from(-x).exp());
            assert!((f64::from(silu(x)) - exact).abs() <= 1e-6 * exact.abs() + 1e-30, "silu({x})");
        }
    }

    #[test]
    fn sum_of_squares_includes_tails() {
        for len in [0, 1, 15, 16, 17, 33] {
            let values: Vec<f32> = (0..len).map(|value| value as f32).collect();
            let expected: f32 = values.iter().map(|value| value * value).sum();
            assert_eq!(sum_of_squares(&values), expected);
        }
    }
}
