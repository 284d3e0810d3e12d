#!/usr/bin/env python3
"""Compares a replay with what the regression gate is meant to keep. Usage: check_replay.py replay.json

Shares of a few thousand resamples have an error of their own; a bound is missed where a share lies beyond it by more than two of
its standard errors, so that the answer does not hang on the seed.
"""

import json
import math
import sys

# (kind, injected, figure, bound, whether it is the largest allowed, records: all or those whose name ends so)
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
MOST_PAIRS = 20
COVERAGE = (0.94, 0.96)


def error_of(share, resamples):
    return math.sqrt(max(share * (1 - share), 0.0) / resamples)


def main(path):
    missed = []
    for record in json.load(open(path))["records"]:
        name, replay = record["name"], record["replay"]
        n = replay["resamples"]
        for kind, injected, figure, bound, largest, ending in BOUNDS:
            if not name.endswith(ending):
                continue
            share = next(line[figure] for line in replay[kind] if line["injected"] == injected)
            slack = 2 * error_of(bound, n)
            if not (share <= bound + slack if largest else share >= bound - slack):
                missed.append(f"{name}: {injected}, {figure} {share:.4f}, wanted {'at most' if largest else 'at least'} {bound}")
        pairs = next(line["mean_pairs"] for line in replay["cases"] if line["injected"] == "+5 % time")
        if not pairs <= MOST_PAIRS:
            missed.append(f"{name}: {pairs:.1f} pairs at +5 %, wanted at most {MOST_PAIRS}")
        for line in replay["coverage"]:
            # Nothing is promised of an interval that is looked at until it is narrow; its line shows what that costs.
            if line["pairs"] is None:
                continue
            low, high = (bound + sign * 2 * error_of(bound, n) for bound, sign in zip(COVERAGE, (-1, 1)))
            if not low <= line["share"] <= high:
                missed.append(f"{name}: {line['metric']}, {line['pairs']} pairs: intervals hold the truth in {line['share']:.4f}")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    if not missed:
        print("all bounds are kept")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main(sys.argv[1])
