#!/usr/bin/env bash
# Gates a change on this machine: the merge base of BASE and HEAD against HEAD, in pairs. Writes the outcome to the folder
# OUT in every form that `actbench gate` has, and annotations to standard output.
#
# usage: scripts/ci_gate.sh BASE HEAD OUT [ARGUMENTS OF actbench gate...]
#
# ACTBENCH       the program that gates; built from the working tree where it is not set
# GATE_BASE_BIN  programs that were built before; without them both commits are built
# GATE_HEAD_BIN
# GATE_STRICT    1: an inconclusive gate fails as well; without it that is a warning
#
# Exit status: 0 passed (or inconclusive), 1 regressed, 2 broken, 3 inconclusive and strict.
set -euo pipefail
base=${1:?usage: ci_gate.sh BASE HEAD OUT}
head=${2:?usage: ci_gate.sh BASE HEAD OUT}
out=${3:?usage: ci_gate.sh BASE HEAD OUT}
shift 3

# What the branch was cut from: changes that came to BASE since are not the branch's.
if ! merge_base=$(git merge-base "$base" "$head"); then
  echo "error: $base and $head have no commit in common; fetch the whole history (fetch-depth: 0)" >&2
  exit 2
fi
head=$(git rev-parse --verify "$head^{commit}")
mkdir -p "$out"

if [ -z "${ACTBENCH:-}" ]; then
  cargo build --locked --quiet --release -p actbench
  ACTBENCH=target/release/actbench
fi
if [ -n "${GATE_BASE_BIN:-}" ] || [ -n "${GATE_HEAD_BIN:-}" ]; then
  programs=(--base-bin "${GATE_BASE_BIN:?is needed beside GATE_HEAD_BIN}" --head-bin "${GATE_HEAD_BIN:?is needed beside GATE_BASE_BIN}")
else
  programs=(--base-rev "$merge_base" --head-rev "$head")
fi

echo "gating $head against $merge_base"
status=0
"$ACTBENCH" gate "${programs[@]}" --output "$out/gate.json" \
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
# A gate that said nothing did not pass, whatever its exit status is.
if [ ! -s "$out/gate.md" ]; then
  outcome=broken
  [ "$status" = 0 ] && status=2
  printf '## actbench gate: broken\n\nThe gate did not come to an end (exit status %s); see the log of its job.\n' \
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
