//! The exact null distribution of Wilcoxon's signed-rank statistic (Wilcoxon 1945).

/// The number of sign patterns of ranks `1..=n` that give each sum of positive ranks, as probabilities.
///
/// Element `w` is `P(W = w)` for `w` in `0..=n (n + 1) / 2`, when signs are fair coins. Built rank by rank, with
/// halves instead of counts so that no `n` overflows.
pub fn distribution(n: usize) -> Vec<f64> {
    let mut probabilities = vec![1.0];
    for rank in 1..=n {
        let mut next = vec![0.0; probabilities.len() + rank];
        for (sum, probability) in probabilities.iter().enumerate() {
            next[sum] += 0.5 * probability;
            next[sum + rank] += 0.5 * probability;
        }
        probabilities = next;
    }
    probabilities
}

/// The largest `k` with `P(W < k) <= tail`, and that probability: how many of the smallest Walsh averages may be left
/// out on each side of an interval.
pub fn tail_count(n: usize, tail: f64) -> (usize, f64) {
    let mut below = 0.0;
    for (k, probability) in distribution(n).into_iter().enumerate() {
        if below + probability > tail {
            return (k, below);
        }
        below += probability;
    }
    (0, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ranks_have_eight_patterns() {
        let expected = [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0].map(|count| count / 8.0);
        assert_eq!(distribution(3), expected);
    }

    #[test]
    fn probabilities_sum_to_one_and_mirror() {
        for n in [1, 5, 20, 60] {
            let probabilities = distribution(n);
            assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for (left, right) in probabilities.iter().zip(probabilities.iter().rev()) {
                assert!((left - right).abs() < 1e-15);
            }
        }
    }

    #[test]
    fn critical_values_are_those_of_the_tables() {
        // Largest W with P(W' <= W) <= 0.025, from published tables: 6: 0, 8: 3, 10: 8, 20: 52.
        for (n, critical) in [(6, 0), (8, 3), (10, 8), (20, 52)] {
            assert_eq!(tail_count(n, 0.025).0, critical + 1, "n = {n}");
        }
        assert_eq!(tail_count(5, 0.025), (0, 0.0), "five pairs cannot reach 95 %");
    }
}
