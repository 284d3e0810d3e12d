#!/usr/bin/env bash
# Makes a folder for a machine with a GPU and no Rust: programs, machine code, reference values, and what runs them all.
#
#   scripts/build_gpu_folder.sh [--profile dev] [DIR]      (target/gpu-folder)
#
# The folder holds `scripts/gpu_check.sh`, which checks and measures everything in seven minutes, and what it runs:
# `kernels-check`, `actbench` and `gpu-bench` (criterion's benchmarks of the device), all with the emulator in them, to
# compare a GPU with and for dry runs; `cubins/` for sm_80, sm_86, sm_89, sm_90a, sm_100 and sm_120 with their manifest;
# the goldens and the tokenizer; the comparison with transformers; a README and SHA256SUMS. There it needs Linux on x86-64
# with a C library no older than this machine's, and a driver of CUDA 12.8 or later.
#
# Needs what scripts/check_cuda_kernels.sh needs, a C++ compiler and binutils; no GPU. The folder is checked before it gets
# its name: all kernels in the emulator, and the machine code of each architecture by the stand-in for a driver, which
# looks up every kernel in it. That says nothing of what a GPU makes of it.
#
# --profile dev takes the build of the tests, without machine code: a folder for dry runs alone, of any size.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=release programs=release
if [ "${1:-}" = --profile ]; then
    [ "${2:-}" = dev ] || { echo "--profile takes dev alone; without it the build is a release" >&2; exit 2; }
    profile=dev programs=debug
    shift 2
fi
folder=${1:-target/gpu-folder}
target=${CARGO_TARGET_DIR:-target}
partial=$folder.partial
limit_mb=60
rm -rf "$partial"
mkdir -p "$partial/scripts" "$partial/fixtures/data"

[ $profile = dev ] || scripts/check_cuda_kernels.sh --out "$partial/cubins"
# A release is built program by program: features of one build are shared. The tests leave their programs behind, and what
# they depend on has other features than in a build without them.
bench_of=--package=actbench-benches
[ $profile = release ] || bench_of=--workspace
build() { [ $profile = dev ] || cargo build --locked --quiet --release --package "$1" --features emulator; }
build actbench
strip -o "$partial/actbench" "$target/$programs/actbench"
build actbench-kernels-check
strip -o "$partial/kernels-check" "$target/$programs/kernels-check"
bench=$(cargo bench --locked --quiet --no-run --profile $profile "$bench_of" --features emulator --bench gpu \
    --message-format=json | sed -n 's/.*"executable":"\([^"]*\/gpu-[0-9a-f]*\)".*/\1/p' | tail -n 1)
[ -n "$bench" ] || { echo "the benchmark gpu was not built" >&2; exit 1; }
strip -o "$partial/gpu-bench" "$bench"

cp -r fixtures/data/goldens fixtures/data/tokenizer "$partial/fixtures/data/"
cp scripts/gpu_check.sh scripts/ncu.sh scripts/{peer_hf,peer_bench,peer_checks,hf_model,features_file,random_model}.py \
    scripts/requirements.txt "$partial/scripts/"

cat >"$partial/README" <<TEXT
actbench $("$partial/actbench" --version | cut -d' ' -f2), and everything that checks and measures it on a GPU.

  scripts/gpu_check.sh                   all of it, in seven minutes: a table at the end, files in gpu-check/
  scripts/gpu_check.sh --emulator        a dry run on the CPU; no GPU is touched
  ./kernels-check                        every kernel on the GPU: against the CPU, its plain version and the emulator; speed
  ./actbench check --device-map cuda     reference values, and the same bits by every way to the features
  ./actbench run --device-map cuda       lazy against eager
  ./actbench profile --device-map cuda --trace trace.json
  ./gpu-bench --bench                    criterion by the device's clock
  scripts/ncu.sh linear_mma_bf16         one kernel under Nsight Compute

The programs take the machine code from cubins/ beside them; a GPU of another kind than those there needs NVRTC 13 on
LD_LIBRARY_PATH. The comparison with transformers needs Python with torch and transformers.

Made on a machine without a GPU: kernels and programs were tried in the emulator. docs/measurements/gpu.md of the sources
says what has run on which GPU.
TEXT

if [ $profile = release ]; then
    stand_in=$(find "$target/release/build" -path '*/out/stand_in/libcuda.so' -printf '%T@ %h\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
    for architecture in 80 86 89 90 100 120; do
        printf 'sm_%s: ' "$architecture"
        LD_LIBRARY_PATH=$stand_in STAND_IN_DRIVER="architecture=$architecture" XDG_CACHE_HOME=/nonexistent \
            "$partial/kernels-check" --quick --shapes 0 | tail -n 1
    done
    "$partial/kernels-check" --emulator --quick | tail -n 1
fi

(cd "$partial" && find . -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)
size_mb=$(du -sm --apparent-size "$partial" | cut -f1)
program_kb=$(du -k --apparent-size "$partial/kernels-check" | cut -f1)
if [ $profile = release ] && [ "$size_mb" -gt "$limit_mb" ]; then
    echo "$partial has $size_mb MB, more than $limit_mb" >&2
    exit 1
fi
if [ $profile = release ] && [ "$program_kb" -gt 10240 ]; then
    echo "kernels-check has $program_kb kB, more than 10 MB" >&2
    exit 1
fi
rm -rf "$folder"
mv "$partial" "$folder"
echo "$folder: $size_mb MB, kernels-check $program_kb kB"
