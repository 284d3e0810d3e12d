#!/usr/bin/env bash
# Runs the matrix `small` on this machine, and regenerates its pages under docs/measurements/ and the README's picture.
#
# usage: scripts/small_matrix.sh [MODEL_DIR]   (default: target/smollm2, fetched once)
#
# Needs a release build (or ACTBENCH), python3, and Chromium or Chrome for the picture. OUT names another output directory, for a
# review; the README's picture then stays unchanged. MATRIX names a file to use instead of the preset.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
actbench=$(realpath "${ACTBENCH:-target/release/actbench}")
model=${1:-target/smollm2}
ACTBENCH=$actbench scripts/get_smollm2.sh "$model"
model=$(realpath "$model")
[ -z "${MATRIX:-}" ] || MATRIX=$(realpath "$MATRIX")
out=$(realpath -m "${OUT:-docs/measurements/small-matrix}")

# Results record commands and names, so these are the ones a reader would type: relative, and from one directory.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/bin"
ln -s "$actbench" "$work/bin/actbench"
export PATH="$work/bin:$PATH"
cd "$work"
ln -s "$model" smollm2

which=(--preset small)
[ -z "${MATRIX:-}" ] || { cp "$MATRIX" matrix.toml && which=(matrix.toml); }
matrix=(matrix "${which[@]}" --model-at synthetic:smollm2-135m=smollm2)
start=$SECONDS
actbench "${matrix[@]}" --dry-run --json --quiet >predicted.json
actbench "${matrix[@]}" --out small-matrix | tee sentences.txt
actbench report small-matrix --out report >/dev/null
actbench recommend small-matrix >recommendation.txt
echo "measured in $((SECONDS - start)) s"

rm -rf "$out"
mkdir -p "$out/results"
cp small-matrix/cells/*.json "$out/results/"
cp small-matrix/matrix.toml predicted.json recommendation.txt "$out/"
cp -r report "$out/report"

environment() {
  python3 - small-matrix <<'PYTHON'
import json
import sys
from pathlib import Path

facts = json.loads(sorted(Path(sys.argv[1], "cells").glob("*.json"))[0].read_text())["environment"]
print(f"Machine: {facts['cpu_model']}, {facts['cores_logical']} processors, {facts['ram_mb'] / 1024:.0f} GiB, {facts['kernel']}; "
      f"actbench {facts['version']} ({facts['profile']}), {facts['date'][:10]}.")
PYTHON
}
{
  cat <<'MARKDOWN'
# The matrix `small`

SmolLM2-135M-Instruct, and the first layers of the shape of Llama-3.2-1B with synthetic weights, by three methods at several sizes;
and one cell whose full tensors exceed the memory of the machine. `scripts/small_matrix.sh` regenerates this page and the files it
links to.

MARKDOWN
  environment
  printf '\n```sh\nactbench %s --out small-matrix\n```\n\n```text\n' "${matrix[*]}"
  cat sentences.txt
  printf '```\n\n## Recommended mode\n\n```text\n'
  cat recommendation.txt
  printf '```\n\n## Further files\n\n'
  printf -- '- [the report](small-matrix/report/REPORT.md), with charts; [report.html](small-matrix/report/report.html) is the same report as one page\n'
  printf -- '- [every observation](small-matrix/results/), one file per cell, and [the matrix](small-matrix/matrix.toml)\n'
  printf -- '- [predictions](planner.md) compared with these measurements\n'
} >"$out.md"
checked=0
{
  cat <<'MARKDOWN'
# Predicted and measured

Predictions of `actbench plan` and `actbench matrix --dry-run`, compared with measurements of the matrix `small`. No cell was used for
calibration: rates come from a few seconds of measurement before the run. "Within" means an error of at most 5 % + 20 MiB in peak
memory and at most 30 % in time. `scripts/small_matrix.sh` regenerates this page.

MARKDOWN
  environment
  printf '\n```sh\nactbench %s --dry-run --json >predicted.json\nactbench %s --out small-matrix\n' "${matrix[*]}" "${matrix[*]}"
  printf 'scripts/check_planner.py predicted.json small-matrix\n```\n\n'
  "$root/scripts/check_planner.py" predicted.json small-matrix || checked=$?
} >"$(dirname "$out")/planner.md"
if [ -z "${OUT:-}" ]; then
  # Three sizes of the real model and the cell that does not fit; the table of all cells would fill the picture.
  cd "$root/docs/measurements/small-matrix/results"
  SCREENSHOT_HEIGHT=2500 ACTBENCH=$actbench "$root/scripts/check_report.sh" --screenshot "$root/docs/report.png" \
    "$PWD"/00[123]-*.json "$PWD"/009-*.json
fi
exit "$checked"
