#!/usr/bin/env bash
# Gates a change on this machine: the merge base of BASE and HEAD against HEAD, in pairs. Writes the report to the directory
# OUT in every format of `actbench gate`, and annotations to standard output.
#
# usage: scripts/ci_gate.sh BASE HEAD OUT [ARGUMENTS OF actbench gate...]
#
# ACTBENCH       the binary that gates [default: GATE_HEAD_BIN, else it is built from the working tree]
# GATE_BASE_BIN  executables to gate [default: both commits are built]
# GATE_HEAD_BIN
# GATE_STRICT    1: an inconclusive gate fails; otherwise it is a warning
#
# Exit status: 0 passed (or inconclusive), 1 regressed, 2 broken, 3 inconclusive and strict.
set -euo pipefail
base=${1:?usage: ci_gate.sh BASE HEAD OUT}
head=${2:?usage: ci_gate.sh BASE HEAD OUT}
out=${3:?usage: ci_gate.sh BASE HEAD OUT}
shift 3

# The merge base: later changes of BASE are not part of the branch.
if ! merge_base=$(git merge-base "$base" "$head"); then
  echo "error: $base and $head have no common ancestor; fetch the whole history (fetch-depth: 0)" >&2
  exit 2
fi
head=$(git rev-parse --verify "$head^{commit}")
mkdir -p "$out"

if [ -z "${ACTBENCH:-}" ] && [ -n "${GATE_BASE_BIN:-}" ] && [ -n "${GATE_HEAD_BIN:-}" ]; then
  # With its directory, so that no program of that name in PATH runs in its place.
  ACTBENCH=$(realpath "$GATE_HEAD_BIN")
elif [ -z "${ACTBENCH:-}" ]; then
  cargo build --locked --quiet --release -p actbench
  ACTBENCH=target/release/actbench
fi
if [ -n "${GATE_BASE_BIN:-}" ] || [ -n "${GATE_HEAD_BIN:-}" ]; then
  sides=(--base-bin "${GATE_BASE_BIN:?must be set together with GATE_HEAD_BIN}" --head-bin "${GATE_HEAD_BIN:?must be set together with GATE_BASE_BIN}")
else
  sides=(--base-rev "$merge_base" --head-rev "$head")
fi

echo "gating $head against $merge_base"
status=0
"$ACTBENCH" gate "${sides[@]}" --output "$out/gate.json" \
  --export github=- \
  --export "markdown=$out/gate.md" \
  --export "junit=$out/gate.xml" \
  --export "bencher=$out/bencher.json" \
  --export "benchmark-action=$out/benchmark-action.json" \
  "$@" || status=$?

case $status in
  0) outcome=pass ;;
  1) outcome=regressed ;;
  3) outcome=inconclusive ;;
  *) outcome=broken ;;
esac
# A gate without a report did not pass, whatever its exit status is.
if [ ! -s "$out/gate.md" ]; then
  outcome=broken
  [ "$status" = 0 ] && status=2
  printf '## actbench gate: broken\n\nThe gate did not complete (exit status %s); see the log of its job.\n' \
    "$status" >"$out/gate.md"
fi
echo "$outcome" >"$out/outcome"
if [ -n "${GITHUB_OUTPUT:-}" ]; then
  echo "outcome=$outcome" >>"$GITHUB_OUTPUT"
fi
if [ "$outcome" = inconclusive ] && [ "${GATE_STRICT:-0}" != 1 ]; then
  status=0
fi
exit "$status"
