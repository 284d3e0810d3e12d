#!/usr/bin/env python3
"""Compares what the planner predicted for the cells of a matrix with what they took, as a table in Markdown.

usage: actbench matrix FILE.toml --dry-run --json > predicted.json
       scripts/check_planner.py predicted.json MATRIX_DIR [--head FILE] > planner.md

Fails when fewer than --at-least cases are within the bounds: peak memory within 10 % + 32 MiB, time within 30 %.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

MEGABYTE = 1 << 20
MEMORY_SHARE, MEMORY_SLACK_MB, TIME_SHARE = 0.10, 32.0, 0.30


def measured(folder, cell, task, method):
    """Medians of a case's peak memory in MB and time in s, and how its rows ended."""
    path = Path(folder) / "cells" / f"{cell}.json"
    if not path.exists():
        return None
    rows = [row for row in json.loads(path.read_text())["rows"] if (row["task"], row["method"]) == (task, method)]
    well = [row for row in rows if row["status"] == "ok"]
    if not well:
        return (None, None, rows[0]["status"] if rows else "not run")
    median = lambda name: statistics.median(row[name] for row in well)
    return (median("cpu_peak_rss_mb"), median("elapsed_s"), "ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predicted")
    parser.add_argument("matrix")
    parser.add_argument("--at-least", type=int, default=12, help="cases that must be within both bounds")
    arguments = parser.parse_args()
    lines, both, memory_well, time_well, n = [], 0, 0, 0, 0
    for cell in json.loads(Path(arguments.predicted).read_text())["cells"]:
        limit = cell["room"]["memory"]
        for case in cell["predictions"]:
            found = measured(arguments.matrix, cell["cell"], case["task"], case["method"])
            if found is None:
                continue
            rss, seconds, status = found
            predicted_rss, predicted_s = case["rss_bytes"] / MEGABYTE, case["elapsed_s"]
            name = f"| {cell['cell']} | {case['task']} | {case['method']} "
            if status != "ok":
                agrees = "yes" if limit is not None and case["rss_bytes"] > limit else "**no**"
                lines.append(f"{name}| {predicted_rss:.0f} | {status} | | {predicted_s:.2f} | {status} | | {agrees} |")
                continue
            n += 1
            memory_ok = abs(predicted_rss - rss) <= MEMORY_SHARE * rss + MEMORY_SLACK_MB
            time_ok = abs(predicted_s - seconds) <= TIME_SHARE * seconds
            memory_well, time_well, both = memory_well + memory_ok, time_well + time_ok, both + (memory_ok and time_ok)
            lines.append(
                f"{name}| {predicted_rss:.0f} | {rss:.0f} | {predicted_rss / rss - 1:+.0%} | {predicted_s:.2f} | {seconds:.2f} "
                f"| {predicted_s / seconds - 1:+.0%} | {'yes' if memory_ok and time_ok else '**no**'} |"
            )
    print(f"Of {n} cases that came through, {memory_well} have their peak memory and {time_well} their time within the "
          f"bounds, {both} both.\n")
    print("| cell | task | method | RSS MB predicted | measured | off | time s predicted | measured | off | within |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---|")
    print("\n".join(lines))
    if both < arguments.at_least:
        print(f"error: {both} cases are within the bounds, {arguments.at_least} must be", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
