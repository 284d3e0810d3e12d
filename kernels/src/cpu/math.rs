//! Elementary functions and sums with the same bits for every vector width.

/// Number of partial sums of [`sum`]: the lanes of a 512-bit vector of `f32`.
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

/// `x * Phi(x)`, the GELU of Hendrycks and Gimpel 2016, with the normal distribution's `Phi(x) = (1 + erf(x / sqrt(2))) / 2`.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    let half = 0.5 * x;
    half.mul_add(erf(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// The approximation of [`gelu`] with a hyperbolic tangent: `x / 2 * (1 + tanh(u))` with
/// `u = sqrt(2 / pi) * (x + 0.044715 x^3)`.
///
/// It equals `x / (1 + e^-2u)`, in which nothing cancels and which is finite for all finite `x`.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    /// `2 sqrt(2 / pi)`.
    const LINEAR: f32 = 1.595_769_2;
    /// `0.044715 * 2 sqrt(2 / pi)`.
    const CUBIC: f32 = 0.071_354_814;
    let twice_u = x * (x * x).mul_add(CUBIC, LINEAR);
    x / (1.0 + exp(-twice_u))
}

/// `cap * tanh(score / cap)`, the limit of scores of Gemma 2.
#[inline(always)]
pub fn soft_cap(score: f32, cap: f32) -> f32 {
    cap * tanh(score / cap)
}

/// The error function, with an absolute error below 6e-8.
///
/// Minimax polynomials with coefficients that N. Juffa published: near 0 one for `erf(x) / x - 1`, elsewhere one for
/// `ln(1 - erf(|x|))`. Both are computed and one is selected, so that loops vectorize.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const BOUNDARY: f32 = 0.927_734_4;
    let (t, square) = (x.abs(), x * x);
    let mut p = (-1.728_534_7e-5_f32).mul_add(t, 3.831_971_3e-4);
    p = p.mul_add(square, (-3.883_964_4e-3_f32).mul_add(t, 2.425_462_2e-2));
    p = p.mul_add(t, -1.067_778_8e-1);
    p = p.mul_add(t, -6.348_467e-1);
    p = p.mul_add(t, -1.287_175_1e-1);
    let tail = 1.0 - exp(p.mul_add(t, -t));
    let mut p = -5.967_617e-4_f32;
    p = p.mul_add(square, 4.991_194_2e-3);
    p = p.mul_add(square, -2.676_813_5e-2);
    p = p.mul_add(square, 1.128_199_25e-1);
    p = p.mul_add(square, -3.761_253_4e-1);
    p = p.mul_add(square, 1.283_791_7e-1);
    let center = p.mul_add(x, x);
    let signed_tail = if x < 0.0 { -tail } else { tail };
    if t > BOUNDARY { signed_tail } else { center }
}

/// The hyperbolic tangent, with a relative error below 2e-7.
///
/// `1 - 2 / (e^2|x| + 1)` loses digits near 0, where a minimax polynomial for `tanh(x) / x - 1` by N. Juffa (Stack Overflow)
/// replaces it. Both are computed and one is selected, so that loops vectorize.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    const BOUNDARY: f32 = 0.55;
    let (t, square) = (x.abs(), x * x);
    let tail = 1.0 - 2.0 / (exp(t + t) + 1.0);
    let mut p = 1.573_944e-2_f32;
    p = p.mul_add(square, -5.230_255_8e-2);
    p = p.mul_add(square, 1.331_524_7e-1);
    p = p.mul_add(square, -3.333_276_8e-1);
    let center = (p * square).mul_add(x, x);
    let signed_tail = if x < 0.0 { -tail } else { tail };
    if t >= BOUNDARY { signed_tail } else { center }
}

/// The sum, as 16 interleaved partial sums that are added in a fixed order.
#[inline(always)]
pub fn sum(values: &[f32]) -> f32 {
    interleaved_sum(values, |value, lane| lane + value)
}

/// The sum of squares, in the order of [`sum`].
#[inline(always)]
pub fn sum_of_squares(values: &[f32]) -> f32 {
    interleaved_sum(values, |value, lane| value.mul_add(value, lane))
}

/// The sum of the squared differences from `center`, in the order of [`sum`].
#[inline(always)]
pub fn sum_of_squared_differences(values: &[f32], center: f32) -> f32 {
    interleaved_sum(values, |value, lane| {
        let difference = value - center;
        difference.mul_add(difference, lane)
    })
}

/// Value `i` is added to partial sum `i % LANES` by `add(value, partial sum)`.
#[inline(always)]
fn interleaved_sum(values: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = add(*value, *lane);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = add(*value, *lane);
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

    /// `erf` by a series of positive terms, `2 / sqrt(pi) * e^(-x^2) * sum of (2 x^2)^n x / (1 * 3 * ... * (2n + 1))`
    /// (Abramowitz and Stegun 1964, 7.1.6).
    fn exact_erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..400 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    }

    /// Evenly spaced values from `-limit` to `limit`.
    fn grid(limit: f32) -> impl Iterator<Item = f32> {
        let steps = 60_001i32;
        (-steps..=steps).map(move |step| step as f32 / steps as f32 * limit)
    }

    #[test]
    fn erf_is_close_to_series() {
        assert!((exact_erf(1.0) - 0.842_700_792_949_714_9).abs() < 1e-15);
        assert!((exact_erf(5.0) - 0.999_999_999_998_462_5).abs() < 1e-14);
        for x in grid(8.0) {
            let error = (f64::from(erf(x)) - exact_erf(f64::from(x))).abs();
            assert!(error <= 1e-7, "erf({x}) is off by {error:e}");
        }
        assert_eq!(
            [0.0, 1e4, -1e4, f32::MAX, f32::INFINITY, f32::NEG_INFINITY].map(erf),
            [0.0, 1.0, -1.0, 1.0, 1.0, -1.0]
        );
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_equals_definition() {
        for x in grid(8.0) {
            let exact = f64::from(x) * 0.5 * (1.0 + exact_erf(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2));
            let error = (f64::from(gelu(x)) - exact).abs();
            assert!(error <= 1e-7 * f64::from(x).abs().max(1.0), "gelu({x}) is off by {error:e}");
        }
        assert_eq!([0.0, 1e4, -1e4, f32::MAX, f32::MIN].map(gelu), [0.0, 1e4, 0.0, f32::MAX, 0.0]);
        assert!(gelu(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_tanh_equals_definition() {
        for x in grid(8.0) {
            let wide = f64::from(x);
            let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
            let error = (f64::from(gelu_tanh(x)) - wide * 0.5 * (1.0 + u.tanh())).abs();
            assert!(error <= 2e-7 * wide.abs().max(1.0), "gelu_tanh({x}) is off by {error:e}");
        }
        assert_eq!([0.0, 1e4, 1e13, f32::MAX].map(gelu_tanh), [0.0, 1e4, 1e13, f32::MAX]);
        for x in [-1e4, -1e13, f32::MIN] {
            // The quotient by the largest power of e is not 0.
            assert!(gelu_tanh(x).abs() <= 2.0, "{x}: {}", gelu_tanh(x));
        }
        assert!(gelu_tanh(-1e4).abs() <= 1e-30);
        assert!(gelu_tanh(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_accurate_near_zero_and_far() {
        for x in grid(10.0).chain(grid(0.6)).chain(grid(1e-3)).chain(grid(1e-30)).filter(|x| *x != 0.0) {
            let exact = f64::from(x).tanh();
            let error = ((f64::from(tanh(x)) - exact) / exact).abs();
            assert!(error <= 2e-7, "tanh({x}) is off by {error:e}");
        }
        assert_eq!([0.0, 1e4, f32::MIN, f32::INFINITY, f32::NEG_INFINITY].map(tanh), [0.0, 1.0, -1.0, 1.0, -1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn soft_cap_bounds_scores() {
        for (score, cap) in [(0.0f32, 50.0f32), (3.0, 50.0), (-60.0, 50.0), (1e6, 30.0), (-1e30, 0.5), (1e-20, 50.0)] {
            let exact = f64::from(cap) * (f64::from(score) / f64::from(cap)).tanh();
            let error = (f64::from(soft_cap(score, cap)) - exact).abs();
            assert!(error <= 4e-7 * exact.abs(), "soft_cap({score}, {cap}) is off by {error:e}");
        }
    }

    #[test]
    fn sums_include_tails() {
        for len in [0, 1, 15, 16, 17, 33] {
            let values: Vec<f32> = (0..len).map(|value| value as f32).collect();
            assert_eq!(sum(&values), values.iter().sum::<f32>());
            let expected: f32 = values.iter().map(|value| (value - 3.0) * (value - 3.0)).sum();
            assert_eq!(sum_of_squared_differences(&values, 3.0), expected);
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
