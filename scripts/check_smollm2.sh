#!/usr/bin/env bash
# Runs the main job on a real model, SmolLM2-135M-Instruct: the methods agree, and lazy needs less memory than eager.
#
# Usage: scripts/check_smollm2.sh [MODEL_DIR]   (default: target/smollm2, fetched once)
set -euo pipefail
cd "$(dirname "$0")/.."
export ACTBENCH=${ACTBENCH:-$PWD/target/release/actbench}
model=${1:-target/smollm2}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

scripts/get_smollm2.sh "$model"
"$ACTBENCH" run --model "$model" --samples 120 --layer 12 --sweep-layers 16 --methods eager,lazy,lazy-disk \
  --repetitions 1 --warmup 0 --output "$directory/results.json"
python3 - "$directory/results.json" <<'PYTHON'
import json
import sys

result = json.load(open(sys.argv[1]))
rows = result["rows"]
assert len(rows) == 6 and all(row["status"] == "ok" for row in rows), rows
for task in ["train", "sweep"]:
    assert len({row["extra"]["feature_digest"] for row in rows if row["task"] == task}) == 1, f"{task}: digests differ"
peak = {row["method"]: row["cpu_peak_rss_mb"] for row in rows if row["task"] == "sweep"}
assert peak["lazy"] < peak["eager"] and peak["lazy-disk"] < peak["eager"], peak
print(f"digests agree; peak RSS of the sweep in MB: {peak}")
PYTHON
