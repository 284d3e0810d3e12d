#!/usr/bin/env python3
"""Compares the error rates of a replay with the bounds of the regression gate. Usage: check_replay.py replay.json

Rates of a few thousand resamples have a standard error; a bound is missed if a rate lies beyond it by more than two standard
errors, so that the result does not depend on the seed.
"""

import json
import math
import sys

# (kind, injected, rate, bound, whether it is an upper bound, suffix of the records' names)
BOUNDS = [
    ("cases", "none", "regressed", 0.01, True, ""),
    ("cases", "+5 % time", "regressed", 0.90, False, ""),
    ("cases", "+10 % time", "regressed", 0.99, False, ""),
    ("cases", "none", "inconclusive", 0.02, True, "cpu"),
    ("cases", "+5 % time", "inconclusive", 0.02, True, "cpu"),
    ("cases", "+10 % time", "inconclusive", 0.02, True, "cpu"),
    ("cases", "+1 MiB memory", "regressed", 1.0, False, "mem"),
    ("cases", "+2 % memory", "regressed", 1.0, False, "mem"),
    ("suites", "none", "false_alarm", 0.01, True, ""),
    ("suites", "+5 % time", "false_alarm", 0.01, True, ""),
]
MAX_PAIRS = 20
COVERAGE = (0.94, 0.96)


def standard_error(rate, resamples):
    return math.sqrt(max(rate * (1 - rate), 0.0) / resamples)


def main(path):
    missed = []
    for record in json.load(open(path))["records"]:
        name, replay = record["name"], record["replay"]
        n = replay["resamples"]
        for kind, injected, key, bound, is_upper, suffix in BOUNDS:
            if not name.endswith(suffix):
                continue
            rate = next(line[key] for line in replay[kind] if line["injected"] == injected)
            slack = 2 * standard_error(bound, n)
            if not (rate <= bound + slack if is_upper else rate >= bound - slack):
                missed.append(f"{name}: {injected}, {key} {rate:.4f}, expected {'at most' if is_upper else 'at least'} {bound}")
        pairs = next(line["mean_pairs"] for line in replay["cases"] if line["injected"] == "+5 % time")
        if not pairs <= MAX_PAIRS:
            missed.append(f"{name}: {pairs:.1f} pairs at +5 %, expected at most {MAX_PAIRS}")
        for line in replay["coverage"]:
            # Stopping at a narrow interval lowers its coverage; that line shows the loss and has no bound.
            if line["pairs"] is None:
                continue
            low, high = (bound + sign * 2 * standard_error(bound, n) for bound, sign in zip(COVERAGE, (-1, 1)))
            if not low <= line["share"] <= high:
                missed.append(f"{name}: {line['metric']}, {line['pairs']} pairs: coverage {line['share']:.4f}")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    if not missed:
        print("all error rates are within their bounds")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main(sys.argv[1])
