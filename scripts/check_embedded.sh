#!/usr/bin/env bash
# Runs the main job on the embedded model and checks the result file: every name, AUROC above 0.8, equal digests.
set -euo pipefail
cd "$(dirname "$0")/.."
actbench=${ACTBENCH:-target/release/actbench}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

"$actbench" run --budget 30s --output "$directory/results.json"
python3 - "$directory/results.json" <<'PYTHON'
import json
import sys

result = json.load(open(sys.argv[1]))
for name in ["schema", "config", "environment", "rows", "summary"]:
    assert name in result, f"no {name}"
columns = """task method status elapsed_s extract_s train_eval_s cpu_peak_rss_mb cpu_peak_heap_mb gpu_peak_alloc_mb
gpu_peak_reserved_mb metric_name metric_value extra""".split()
for row in result["rows"]:
    for name in columns:
        assert name in row, f"no {name} in a row"
    assert row["status"] == "ok", row
for task in ["train", "sweep"]:
    digests = {row["extra"]["feature_digest"] for row in result["rows"] if row["task"] == task}
    assert len(digests) == 1, f"{task}: digests differ: {digests}"
    for name in ["speedup_lazy_vs_eager", "cpu_mem_reduction_x", "gpu_alloc_reduction_x", "gpu_reserved_reduction_x",
                 "intervals", "metric_delta"]:
        assert name in result["summary"][task], f"no {name} in summary.{task}"
auroc = min(row["metric_value"] for row in result["rows"] if row["task"] == "train")
assert auroc > 0.8, f"train AUROC {auroc}"
print(f"{len(result['rows'])} rows, train AUROC {auroc:.3f}, digests agree")
PYTHON
