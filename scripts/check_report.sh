#!/usr/bin/env bash
# Loads a report in a browser without a window: no word on its console, no request, tables that sort, and no part that a
# narrow screen cuts off. Without RESULTS it makes some: three sizes, rules left out, and one case out of memory.
#
# usage: scripts/check_report.sh [--screenshot FILE] [RESULTS...]
#
# Needs python3 and Chromium or Chrome. Without a browser it says so and passes, unless CI or REQUIRE_BROWSER is set.
set -euo pipefail
cd "$(dirname "$0")/.."
actbench=${ACTBENCH:-target/release/actbench}
screenshot=
if [ "${1:-}" = --screenshot ]; then
  screenshot=$2
  shift 2
fi

browser=
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  browser=${browser:-$(command -v "$name" || true)}
done
if [ -z "$browser" ]; then
  if [ -n "${CI:-}${REQUIRE_BROWSER:-}" ]; then
    echo 'error: no browser to check the report in: install chromium' >&2
    exit 1
  fi
  echo 'SKIPPED: no browser, so the report was not loaded; install chromium to check it'
  exit 0
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $# -eq 0 ]; then
  mkdir "$folder/results"
  for samples in 40 120 360; do
    "$actbench" run --quiet --samples "$samples" --repetitions 3 --output "$folder/results/$samples.json" >/dev/null
  done
  "$actbench" run --quiet --samples 120 --methods lazy --tasks sweep --ablate --repetitions 3 \
    --output "$folder/results/rules.json" >/dev/null
  # Too little for the full activations of these samples, which is what it is for; the exit status says so.
  "$actbench" run --quiet --samples 1500 --tasks sweep --repetitions 1 --warmup 0 --memory-limit 120MiB \
    --output "$folder/results/1500.json" >/dev/null 2>&1 || [ $? -eq 1 ]
  set -- "$folder/results"
fi
"$actbench" report "$@" --out "$folder/report" >/dev/null
for file in REPORT.md report.html summary.csv crossover.csv observations.csv; do
  [ -s "$folder/report/$file" ] || { echo "error: no $file" >&2; exit 1; }
done
python3 - "$folder/report/charts" <<'PYTHON'
import sys
from pathlib import Path
from xml.dom.minidom import parse

charts = sorted(Path(sys.argv[1]).glob("*.svg"))
assert charts, "no charts"
for chart in charts:
    parse(str(chart))
print(f"{len(charts)} charts are well-formed")
PYTHON
REPORT="$folder/report/report.html" BROWSER="$browser" SCREENSHOT="$screenshot" python3 scripts/check_report.py
