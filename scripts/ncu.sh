#!/usr/bin/env bash
# Profiles one kernel with Nsight Compute, with its source next to the machine code.
#
#   scripts/ncu.sh KERNEL [--out DIR] [--launches N] [-- COMMAND ARGUMENTS...]
#
# KERNEL is a kernel's name, such as linear_mma_bf16, or a regular expression of names. Without a command it is launched
# by `actbench profile` on the embedded model; another command follows `--`, for example
#
#   scripts/ncu.sh attention_mma_bf16_64 -- ./actbench profile --device-map cuda --model synthetic:llama-3.2-1b \
#       --tasks train --methods lazy --samples 64
#
# Writes DIR/KERNEL.ncu-rep (DIR is `ncu` by default), which Nsight Compute opens, and prints the sections on the
# limits of the kernel. The machine code has line numbers (-lineinfo), and --import-source includes the sources: without
# them the page Source shows the machine code alone.
#
# Needs `ncu`, a GPU, and permission to read its counters (as root, or with NVreg_RestrictProfilingToAdminUsers=0).
# Exit status: that of ncu; 2 if something is missing.
set -euo pipefail

fail() {
    echo "ncu.sh: $1" >&2
    exit 2
}

[ $# -ge 1 ] || fail "missing KERNEL, for example: $0 linear_mma_bf16"
case $1 in
-h | --help)
    sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "$0"
    exit 0
    ;;
-*) fail "the first argument is a kernel's name, not $1" ;;
esac
kernel=$1
shift
out=ncu launches=3 command=()
while [ $# -gt 0 ]; do
    case $1 in
    --out | --launches)
        [ $# -ge 2 ] || fail "$1 needs a value"
        if [ "$1" = --out ]; then out=$2; else launches=$2; fi
        shift 2
        ;;
    --)
        shift
        command=("$@")
        break
        ;;
    *) fail "unknown argument $1; a command follows --" ;;
    esac
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ${#command[@]} -eq 0 ]; then
    # Next to this script in a directory of binaries, or in the release build of the sources.
    for actbench in "$here/../actbench" "$here/../target/release/actbench"; do
        [ -x "$actbench" ] && break
    done
    [ -x "$actbench" ] || fail "actbench was not found: build it with cargo build --release, or give a command after --"
    command=("$actbench" profile --device-map cuda --tasks train --methods lazy --samples 64 --quiet)
fi
command -v ncu >/dev/null || fail "ncu is not on the PATH: install Nsight Compute or the CUDA toolkit"

mkdir -p "$out"
report=$out/$(printf '%s' "$kernel" | tr -c 'A-Za-z0-9_-' _).ncu-rep
sources=()
[ -d "$here/../kernels/cuda" ] && sources=(--source-folders "$here/../kernels/cuda")
# The first launches have cold instruction caches and rising clocks.
ncu --force-overwrite --export "$report" --set full --import-source on "${sources[@]}" \
    --kernel-name-base function --kernel-name "regex:^($kernel)\$" --launch-skip 2 --launch-count "$launches" \
    "${command[@]}"
ncu --import "$report" --page details --print-details header \
    --section SpeedOfLight --section Occupancy --section MemoryWorkloadAnalysis --section WarpStateStats
echo "$report: open it with ncu-ui; the page Source shows the lines of the kernel"
