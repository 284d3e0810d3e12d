#!/usr/bin/env bash
# Counts the instructions of the gated primitives twice and checks that the counts agree to 0.1 %, the margin of the gate.
# Installs gungraun's runner into target/tools if it is missing.
#
# usage: scripts/count_instructions.sh
#
# Without Valgrind it is skipped with a message, unless REQUIRE_VALGRIND is set.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v valgrind >/dev/null; then
  if [ -n "${REQUIRE_VALGRIND:-}" ]; then
    echo 'error: valgrind not found; install valgrind' >&2
    exit 1
  fi
  echo 'SKIPPED: valgrind not found, no instructions were counted; install valgrind'
  exit 0
fi
export PATH="$PWD/target/tools/bin:$PATH"
if ! command -v gungraun-runner >/dev/null; then
  cargo install --quiet --locked gungraun-runner --version 0.20.0 --root target/tools
fi
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
for run in first second; do
  cargo bench --locked --quiet -p actbench-benches --features instructions --bench instructions -- \
    --home="$directory/$run" --save-summary=json --nosummary
done
python3 - "$directory" <<'PYTHON'
import json
import pathlib
import sys


def count(summary):
    """Callgrind's instructions of all threads and parts together."""
    return summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"]


def counts(run):
    files = sorted((pathlib.Path(sys.argv[1]) / run).rglob("summary.json"))
    summaries = [json.loads(file.read_text()) for file in files]
    return {summary["id"]: count(summary) for summary in summaries}


first, second = counts("first"), counts("second")
assert len(first) == 5 and first.keys() == second.keys(), (first, second)
for name in first:
    change = second[name] / first[name] - 1
    print(f"{name:<12} {first[name]:>12,} {second[name]:>12,} {change:+.4%}")
    assert abs(change) <= 0.001, f"{name}: instructions differ from run to run"
PYTHON
