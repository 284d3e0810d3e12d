#!/usr/bin/env bash
# Makes a folder to carry to a machine that has a GPU and no Rust: programs, machine code and how to use them.
#
#   scripts/build_gpu_folder.sh [DIR]      (target/gpu-folder)
#
# The folder holds `kernels-check` (with the emulator in it, to compare a GPU with), `actbench`, `cubins/` for sm_80,
# sm_86, sm_89, sm_90a, sm_100 and sm_120 with their manifest, a README and SHA256SUMS. There it needs Linux on x86-64 with
# a C library no older than this machine's, and a driver of CUDA 12.8 or later for kernels-check.
#
# Needs what scripts/check_cuda_kernels.sh needs, a C++ compiler and binutils; no GPU. The folder is checked before it gets
# its name: all kernels in the emulator, and the machine code of each architecture by the stand-in for a driver, which
# looks up every kernel in it. That says nothing of what a GPU makes of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=${1:-target/gpu-folder}
partial=$folder.partial
limit_mb=60
rm -rf "$partial"
mkdir -p "$partial"

scripts/check_cuda_kernels.sh --out "$partial/cubins"
cargo build --locked --quiet --release -p actbench
strip -o "$partial/actbench" target/release/actbench
# In a build of its own: features of one build are shared, and actbench has no use for the emulator.
cargo build --locked --quiet --release -p actbench-kernels-check --features emulator
strip -o "$partial/kernels-check" target/release/kernels-check

cat >"$partial/README" <<TEXT
actbench $("$partial/actbench" --version | cut -d' ' -f2) and the check of its CUDA kernels.

  ./kernels-check                        every kernel on the GPU: against the CPU, its plain version and the emulator; speed
  ./kernels-check --quick                the same with few shapes and no timing
  ./kernels-check --json found.json      everything found, to a file
  ./kernels-check --emulator             on the CPU; no GPU is touched
  ./actbench run                         lazy against eager, on the CPU

kernels-check ends with 0 if every kernel passed, 1 if one failed, 2 if nothing could be checked, and says why. It takes
the machine code from cubins/ beside it; a GPU of another kind than those there needs NVRTC 13 on LD_LIBRARY_PATH.

Made on a machine without a GPU. Unless docs/measurements/ of the sources says otherwise, none of these kernels has ever
run on a GPU, and nothing is known of their speed.
TEXT

stand_in=$(find target/release/build -path '*/out/stand_in/libcuda.so' -printf '%T@ %h\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
for architecture in 80 86 89 90 100 120; do
    printf 'sm_%s: ' "$architecture"
    LD_LIBRARY_PATH=$stand_in STAND_IN_DRIVER="architecture=$architecture" XDG_CACHE_HOME=/nonexistent \
        "$partial/kernels-check" --quick --shapes 0 | tail -n 1
done
"$partial/kernels-check" --emulator --quick | tail -n 1

(cd "$partial" && find . -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)
size_mb=$(du -sm --apparent-size "$partial" | cut -f1)
if [ "$size_mb" -gt "$limit_mb" ]; then
    echo "$partial has $size_mb MB, more than $limit_mb" >&2
    exit 1
fi
program_kb=$(du -k --apparent-size "$partial/kernels-check" | cut -f1)
if [ "$program_kb" -gt 10240 ]; then
    echo "kernels-check has $program_kb kB, more than 10 MB" >&2
    exit 1
fi
rm -rf "$folder"
mv "$partial" "$folder"
echo "$folder: $size_mb MB, kernels-check $program_kb kB"
