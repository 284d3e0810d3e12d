#!/usr/bin/env bash
# Loads a report in a headless browser and checks: no console messages, no network requests, sortable tables, nothing cut
# or outside of the screen at 390 and at 1280 pixels. Without RESULTS it measures some: three sizes, an ablation, and one case
# out of memory.
#
# usage: scripts/check_report.sh [--screenshot FILE] [RESULTS...]
#
# Needs python3 and Chromium or Chrome. Without a browser it prints SKIPPED and passes, unless CI or REQUIRE_BROWSER is set.
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
    echo 'error: no browser found to check the report: install chromium' >&2
    exit 1
  fi
  echo 'SKIPPED: no browser found, the report was not loaded; install chromium to check it'
  exit 0
fi

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if [ $# -eq 0 ]; then
  mkdir "$directory/results"
  for samples in 40 120 360; do
    "$actbench" run --quiet --samples "$samples" --repetitions 3 --output "$directory/results/$samples.json" >/dev/null
  done
  "$actbench" run --quiet --samples 120 --methods lazy --tasks sweep --ablate --repetitions 3 \
    --output "$directory/results/rules.json" >/dev/null
  # The limit is deliberately too low for the full activations of these samples, so the exit status is 1.
  "$actbench" run --quiet --samples 1500 --tasks sweep --repetitions 1 --warmup 0 --memory-limit 120MiB \
    --output "$directory/results/1500.json" >/dev/null 2>&1 || [ $? -eq 1 ]
  set -- "$directory/results"
fi
"$actbench" report "$@" --out "$directory/report" >/dev/null
for file in REPORT.md report.html summary.csv crossover.csv observations.csv; do
  [ -s "$directory/report/$file" ] || { echo "error: the report has no $file" >&2; exit 1; }
done
python3 - "$directory/report/charts" <<'PYTHON'
import sys
from pathlib import Path
from xml.dom.minidom import parse

charts = sorted(Path(sys.argv[1]).glob("*.svg"))
assert charts, "no charts"
for chart in charts:
    parse(str(chart))
print(f"{len(charts)} charts are well-formed")
PYTHON
REPORT="$directory/report/report.html" BROWSER="$browser" SCREENSHOT="$screenshot" python3 scripts/check_report.py
