#!/usr/bin/env bash
# The error rates of the regression gate: on recorded noise (seconds), and with --live on this machine (minutes; do not use
# the machine meanwhile). Fails if an error rate exceeds the bounds of docs/measurements/statistics.md.
#
#   scripts/selftest.sh [--live] [--designs] [--resamples N] [--out DIR]
#
# --designs also replays rejected designs, whose error rates are in docs/measurements/statistics.md.
set -euo pipefail
cd "$(dirname "$0")/.."
actbench=${ACTBENCH:-target/release/actbench}
live=
designs=
resamples=2000
out=
while [ $# -gt 0 ]; do
  case $1 in
    --live) live=1 ;;
    --designs) designs=1 ;;
    --resamples) resamples=$2; shift ;;
    --out) out=$2; shift ;;
    *) echo "error: unknown argument '$1'" >&2; exit 2 ;;
  esac
  shift
done
if [ -z "$out" ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
mkdir -p "$out"

noise=harness/pairgate/tests/data/noise
"$actbench" selftest --resamples "$resamples" --output "$out/replay.json" \
  --replay $noise/quiet_cpu.jsonl $noise/quiet_mem.jsonl $noise/noisy_cpu.jsonl $noise/noisy_mem.jsonl
python3 scripts/check_replay.py "$out/replay.json"
if [ -n "$designs" ]; then
  for design in '--confirm-pairs 30' '--memory-margin 0.005'; do
    printf '\n== %s\n\n' "$design"
    # shellcheck disable=SC2086 # A flag and its value.
    "$actbench" selftest --resamples "$resamples" $design --output "$out/replay${design// /-}.json" \
      --replay $noise/quiet_cpu.jsonl $noise/quiet_mem.jsonl $noise/noisy_cpu.jsonl $noise/noisy_mem.jsonl
  done
fi
if [ -n "$live" ]; then
  "$actbench" selftest --unchanged 40 --changed 20 --output "$out/live.json"
fi
