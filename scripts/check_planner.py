#!/usr/bin/env python3
"""Compares the planner's predictions for the cells of a matrix with their measurements, as a Markdown table.

usage: actbench matrix FILE.toml --dry-run --json > predicted.json
       scripts/check_planner.py predicted.json MATRIX_DIR [--head FILE] > planner.md

Fails when fewer than --at-least cases are within the bounds: peak memory within 5 % + 20 MiB, time within 30 %.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

MIB = 1 << 20
MEMORY_FRACTION, MEMORY_SLACK_MIB, TIME_FRACTION = 0.05, 20.0, 0.30


def measured(directory, cell, task, method):
    """Medians of a case's peak memory in MiB and time in s, and the status of its rows."""
    path = Path(directory) / "cells" / f"{cell}.json"
    if not path.exists():
        return None
    rows = [row for row in json.loads(path.read_text())["rows"] if (row["task"], row["method"]) == (task, method)]
    completed = [row for row in rows if row["status"] == "ok"]
    if not completed:
        return (None, None, rows[0]["status"] if rows else "not run")
    median = lambda name: statistics.median(row[name] for row in completed)
    return (median("cpu_peak_rss_mb"), median("elapsed_s"), "ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predicted")
    parser.add_argument("matrix")
    parser.add_argument("--at-least", type=int, default=12, help="cases that must be within both bounds")
    arguments = parser.parse_args()
    lines, n_both, n_memory, n_time, n = [], 0, 0, 0, 0
    for cell in json.loads(Path(arguments.predicted).read_text())["cells"]:
        limit = cell["room"]["memory"]
        for case in cell["predictions"]:
            found = measured(arguments.matrix, cell["cell"], case["task"], case["method"])
            if found is None:
                continue
            rss, seconds, status = found
            predicted_rss, predicted_s = case["rss_bytes"] / MIB, case["elapsed_s"]
            name = f"| {cell['cell']} | {case['task']} | {case['method']} "
            if status != "ok":
                agrees = "yes" if limit is not None and case["rss_bytes"] > limit else "**no**"
                lines.append(f"{name}| {predicted_rss:.0f} | {status} | | {predicted_s:.2f} | {status} | | {agrees} |")
                continue
            n += 1
            memory_ok = abs(predicted_rss - rss) <= MEMORY_FRACTION * rss + MEMORY_SLACK_MIB
            time_ok = abs(predicted_s - seconds) <= TIME_FRACTION * seconds
            n_memory, n_time, n_both = n_memory + memory_ok, n_time + time_ok, n_both + (memory_ok and time_ok)
            lines.append(
                f"{name}| {predicted_rss:.0f} | {rss:.0f} | {predicted_rss / rss - 1:+.0%} | {predicted_s:.2f} | {seconds:.2f} "
                f"| {predicted_s / seconds - 1:+.0%} | {'yes' if memory_ok and time_ok else '**no**'} |"
            )
    print(f"{n} cases completed. Of these, {n_memory} are within the bounds for peak memory, {n_time} for time, and {n_both} "
          "for both.\n")
    print("| cell | task | method | RSS MiB predicted | measured | error | time s predicted | measured | error | within |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---|")
    print("\n".join(lines))
    if n_both < arguments.at_least:
        print(f"error: {n_both} cases are within the bounds, {arguments.at_least} must be", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
