#!/usr/bin/env python3
"""Writes the reference statistics for the Rust tests.

Needs numpy and scipy. Usage, from the repository's root:

    python scripts/make_stats_goldens.py

Tests without ties come from scipy's exact signed-rank test, trends from its exact test of Kendall's tau. Tests with ties,
tails, intervals and Holm's correction are computed by brute force or in whole numbers, by code that shares nothing with
the Rust side.
"""

import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy import stats

DIRECTORY = Path(__file__).resolve().parent.parent / "harness" / "pairgate" / "tests" / "data" / "stats"


def counts_of_sums(n):
    """How many subsets of 1..n have each sum, as whole numbers."""
    counts = [1]
    for rank in range(1, n + 1):
        longer = counts + [0] * rank
        for total, count in enumerate(counts):
            longer[total + rank] += count
        counts = longer
    return counts


def brute_force_test(differences, center):
    """The exact test over all sign patterns, with mean ranks for ties and zeros left out."""
    shifted = [d - center for d in differences if d != center]
    ranks = stats.rankdata(np.abs(shifted))
    observed = sum(r for r, d in zip(ranks, shifted) if d > 0)
    sums = [sum(r for r, s in zip(ranks, signs) if s) for signs in itertools.product([0, 1], repeat=len(shifted))]
    greater = Fraction(sum(s >= observed for s in sums), len(sums))
    less = Fraction(sum(s <= observed for s in sums), len(sums))
    return float(observed), float(greater), float(less)


def signed_rank(rng):
    cases = []
    for n in [1, 2, 5, 6, 10, 17, 25, 40]:
        differences = rng.normal(0.02, 0.05, n)
        center = 0.0 if n % 2 else 0.01
        p = {
            side: float(stats.wilcoxon(differences - center, alternative=name, method="exact").pvalue)
            for side, name in [("p_greater", "greater"), ("p_less", "less"), ("p_two_sided", "two-sided")]
        }
        # scipy's two-sided statistic is the smaller sum; the one-sided one is the sum over the positive differences.
        statistic = float(stats.wilcoxon(differences - center, alternative="greater", method="exact").statistic)
        cases.append(
            {"name": f"scipy {n}", "differences": differences.tolist(), "center": center, "statistic": statistic, **p}
        )
    for n in [4, 8, 12]:
        differences = rng.integers(-3, 5, n).astype(float)
        statistic, greater, less = brute_force_test(differences, 0.0)
        cases.append(
            {
                "name": f"ties {n}",
                "differences": differences.tolist(),
                "center": 0.0,
                "statistic": statistic,
                "p_greater": greater,
                "p_less": less,
                "p_two_sided": min(1.0, 2 * min(greater, less)),
            }
        )
    return cases


def tails():
    cases = []
    for n, total in [(10, 8), (20, 30), (40, 100), (40, 246), (100, 900), (200, 3000)]:
        tail = Fraction(sum(counts_of_sums(n)[: total + 1]), 2**n)
        cases.append({"name": f"tail {n}", "n": n, "sum": total, "at_most": float(tail)})
    return cases


def interval_of(observations, nominal):
    """Estimate and interval from all Walsh averages, with tails counted in whole numbers."""
    n = len(observations)
    averages = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(observations, 2))
    counts = counts_of_sums(n)
    level = (1 - Fraction(str(nominal))) / 2
    best, tail, running = None, Fraction(1, 2**n), 0
    for k, count in enumerate(counts):
        running += count
        if Fraction(running, 2**n) > level:
            break
        best, tail = k, Fraction(running, 2**n)
    cut = best or 0
    return {
        "estimate": float(np.median(averages)),
        "low": float(averages[cut]),
        "high": float(averages[len(averages) - 1 - cut]),
        "confidence": float(1 - 2 * tail),
        "nominal_reached": best is not None,
    }


def hodges_lehmann(rng):
    cases = []
    for n, nominal in [(2, 0.95), (5, 0.95), (6, 0.95), (10, 0.95), (10, 0.9), (20, 0.9606), (33, 0.99), (40, 0.95)]:
        observations = rng.normal(0.05, 0.04, n) + 0.02 * rng.standard_t(2, n)
        cases.append(
            {
                "name": f"normal {n} at {nominal}",
                "observations": observations.tolist(),
                "nominal": nominal,
                **interval_of(observations.tolist(), nominal),
            }
        )
    tied = rng.integers(0, 4, 15).astype(float).tolist()
    cases.append({"name": "tied", "observations": tied, "nominal": 0.95, **interval_of(tied, 0.95)})
    return cases


def ratio(rng):
    cases = []
    for n, factor in [(8, 1.0), (12, 1.3), (25, 0.9)]:
        denominators = 10.0 * np.exp(0.2 * rng.standard_normal(n))
        numerators = denominators * factor * np.exp(0.03 * rng.standard_normal(n))
        found = interval_of(np.log(numerators / denominators).tolist(), 0.95)
        low, high = np.exp(found["low"]), np.exp(found["high"])
        cases.append(
            {
                "name": f"ratio {n}",
                "numerators": numerators.tolist(),
                "denominators": denominators.tolist(),
                "estimate": float(np.exp(found["estimate"])),
                "low": float(low),
                "high": float(high),
            }
        )
    return cases


def summary(rng):
    cases = []
    for n in [1, 2, 3, 10, 31]:
        values = rng.lognormal(1.0, 0.5, n)
        cases.append(
            {
                "name": f"summary {n}",
                "values": values.tolist(),
                "median": float(np.median(values)),
                "lower_quartile": float(np.quantile(values, 0.25)),
                "upper_quartile": float(np.quantile(values, 0.75)),
                "q90": float(np.quantile(values, 0.9)),
                "median_absolute_deviation": float(stats.median_abs_deviation(values)),
            }
        )
    return cases


def holm(rng):
    """Holm's correction as the closed test of Bonferroni's: each set of tests that a test is in has to reject."""
    cases = []
    for n in [1, 2, 5, 9]:
        p_values = (rng.uniform(0, 1, n) ** 3).tolist()
        if n == 9:
            p_values[3] = p_values[4]
        adjusted = [
            max(
                min(1.0, len(chosen) * min(p_values[j] for j in chosen))
                for size in range(1, n + 1)
                for chosen in itertools.combinations(range(n), size)
                if i in chosen
            )
            for i in range(n)
        ]
        cases.append({"name": f"holm {n}", "p_values": p_values, "adjusted": adjusted})
    return cases


def trend(rng):
    cases = []
    for n, slope in [(6, 0.05), (7, 0.0), (12, 0.01), (25, -0.004), (40, 0.002), (40, 0.02)]:
        values = np.exp(slope * np.arange(n) + 0.05 * rng.standard_normal(n))
        found = stats.kendalltau(np.arange(n), values, method="exact")
        cases.append(
            {
                "name": f"trend {n} {slope}",
                "values": values.tolist(),
                "tau": float(found.statistic),
                "p": float(found.pvalue),
                "last_over_first": float(np.median(values[-(n // 3) :]) / np.median(values[: n // 3])),
            }
        )
    return cases


def coverage(rng):
    """How many intervals hold the center: as many as scipy's two-sided test does not reject."""
    cases = []
    for n in [6, 10, 20]:
        series = 0.05 * rng.standard_t(3, (60, n))
        covered = [float(stats.wilcoxon(row, method="exact").pvalue) > 0.05 for row in series]
        cases.append({"name": f"coverage {n}", "series": series.tolist(), "nominal": 0.95, "covered": int(sum(covered))})
    return cases


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(11)
    goldens = {
        "signed_rank": signed_rank(rng),
        "tails": tails(),
        "hodges_lehmann": hodges_lehmann(rng),
        "ratio": ratio(rng),
        "summary": summary(rng),
        "holm": holm(rng),
        "trend": trend(rng),
        "coverage": coverage(rng),
    }
    path = DIRECTORY / "stats.json"
    path.write_text(json.dumps(goldens, indent=1) + "\n")
    print(path.name, path.stat().st_size, "bytes")
