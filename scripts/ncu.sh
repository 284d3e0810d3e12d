#!/usr/bin/env bash
# One kernel under Nsight Compute, with its source beside the machine code.
#
#   scripts/ncu.sh KERNEL [--out DIR] [--launches N] [-- PROGRAM ARGUMENTS...]
#
# KERNEL is a kernel's name, such as linear_mma_bf16, or a regular expression of names. Without a program it is launched
# by `actbench profile` on the embedded model; other work follows `--`, for example
#
#   scripts/ncu.sh attention_mma_bf16_64 -- ./actbench profile --device-map cuda --model synthetic:llama-3.2-1b \
#       --tasks train --methods lazy --samples 64
#
# Writes DIR/KERNEL.ncu-rep (DIR is `ncu` by default), which Nsight Compute opens, and prints the sections that say what
# the kernel is limited by. The machine code has line numbers (-lineinfo), and --import-source takes the sources along:
# on a machine without them the page Source shows the machine code alone.
#
# Needs `ncu` and a GPU, and the right to read its counters (as root, or with NVreg_RestrictProfilingToAdminUsers=0).
# Exit status: that of ncu; 2 where something is missing.
set -euo pipefail

fail() {
    echo "ncu.sh: $1" >&2
    exit 2
}

[ $# -ge 1 ] || fail "which kernel? For example: $0 linear_mma_bf16"
case $1 in
-h | --help)
    sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "$0"
    exit 0
    ;;
-*) fail "the first argument is a kernel's name, not $1" ;;
esac
kernel=$1
shift
out=ncu launches=3 program=()
while [ $# -gt 0 ]; do
    case $1 in
    --out | --launches)
        [ $# -ge 2 ] || fail "$1 needs a value"
        if [ "$1" = --out ]; then out=$2; else launches=$2; fi
        shift 2
        ;;
    --)
        shift
        program=("$@")
        break
        ;;
    *) fail "unknown argument $1; a program goes behind --" ;;
    esac
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ${#program[@]} -eq 0 ]; then
    # Beside this script in a folder of programs, or in the sources' release build.
    for actbench in "$here/../actbench" "$here/../target/release/actbench"; do
        [ -x "$actbench" ] && break
    done
    [ -x "$actbench" ] || fail "there is no actbench: build it with cargo build --release, or name a program behind --"
    program=("$actbench" profile --device-map cuda --tasks train --methods lazy --samples 64 --quiet)
fi
command -v ncu >/dev/null || fail "ncu was not found: it comes with CUDA's toolkit or as Nsight Compute, and belongs on the PATH"

mkdir -p "$out"
report=$out/$(printf '%s' "$kernel" | tr -c 'A-Za-z0-9_-' _).ncu-rep
sources=()
[ -d "$here/../kernels/cuda" ] && sources=(--source-folders "$here/../kernels/cuda")
# The first launches meet cold instruction caches and clocks that still rise.
ncu --force-overwrite --export "$report" --set full --import-source on "${sources[@]}" \
    --kernel-name-base function --kernel-name "regex:^($kernel)\$" --launch-skip 2 --launch-count "$launches" \
    "${program[@]}"
ncu --import "$report" --page details --print-details header \
    --section SpeedOfLight --section Occupancy --section MemoryWorkloadAnalysis --section WarpStateStats
echo "$report: ncu-ui opens it; the page Source has the lines of the kernel"
