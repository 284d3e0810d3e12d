#!/usr/bin/env bash
# Builds a directory for a machine with a GPU and no Rust: binaries, machine code, reference values and scripts.
#
#   scripts/build_gpu_folder.sh [--profile dev] [DIR]      (target/gpu-folder)
#
# The directory contains `scripts/gpu_check.sh`, which checks and measures everything in eight minutes, and what it runs:
# `kernels-check`, `actbench` and `gpu-bench` (criterion's benchmarks of the device), all built with the emulator, for
# comparisons with a GPU and for dry runs; `cubins/` for sm_80, sm_86, sm_89, sm_90a, sm_100 and sm_120 with their manifest;
# the goldens and the tokenizer; the comparison with transformers; a README and SHA256SUMS. It needs Linux on x86-64 with a
# C library no older than this machine's, and a driver of CUDA 12.8 or later.
#
# Needs what scripts/check_cuda_kernels.sh needs, a C++ compiler and binutils; no GPU. The directory is checked before it
# gets its name: all kernels in the emulator, and the machine code of each architecture by the fake driver, which looks up
# every kernel in it. This does not show that it runs on a GPU.
#
# --profile dev uses the build of the tests, without machine code and size limit: a directory for dry runs only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=release binaries=release
if [ "${1:-}" = --profile ]; then
    [ "${2:-}" = dev ] || { echo "--profile accepts only dev; the default is a release build" >&2; exit 2; }
    profile=dev binaries=debug
    shift 2
fi
directory=${1:-target/gpu-folder}
target=${CARGO_TARGET_DIR:-target}
partial=$directory.partial
limit_mb=60
rm -rf "$partial"
mkdir -p "$partial/scripts" "$partial/fixtures/data"

[ $profile = dev ] || scripts/check_cuda_kernels.sh --out "$partial/cubins"
# A release is built binary by binary, because the features of one build are unified. The dev profile uses the binaries and
# the features of the tests' build.
bench_selection=(--package actbench-benches --features emulator)
[ $profile = release ] || bench_selection=(--workspace --features testing)
build() { [ $profile = dev ] || cargo build --locked --quiet --release --package "$1" --features emulator; }
build actbench
strip -o "$partial/actbench" "$target/$binaries/actbench"
build actbench-kernels-check
strip -o "$partial/kernels-check" "$target/$binaries/kernels-check"
bench=$(cargo bench --locked --quiet --no-run --profile $profile "${bench_selection[@]}" --bench gpu \
    --message-format=json | sed -n 's/.*"executable":"\([^"]*\/gpu-[0-9a-f]*\)".*/\1/p' | tail -n 1)
[ -n "$bench" ] || { echo "the benchmark gpu was not built" >&2; exit 1; }
strip -o "$partial/gpu-bench" "$bench"

cp -r fixtures/data/goldens fixtures/data/tokenizer "$partial/fixtures/data/"
cp scripts/gpu_check.sh scripts/ncu.sh scripts/{peer_hf,peer_bench,peer_checks,peer_variants,hf_model,features_file,random_model}.py \
    scripts/requirements.txt "$partial/scripts/"

cat >"$partial/README" <<TEXT
actbench $("$partial/actbench" --version | cut -d' ' -f2) with its checks and measurements for a GPU.

  scripts/gpu_check.sh                   everything, in eight minutes: a table at the end, files in gpu-check/
  scripts/gpu_check.sh --emulator        a dry run on the CPU, without a GPU
  ./kernels-check                        every kernel on the GPU: against the CPU, the plain kernel and the emulator; throughput
  ./actbench check --device-map cuda     reference values, and bit-identical features by every method
  ./actbench run --device-map cuda       lazy and eager extraction
  ./actbench profile --device-map cuda --trace trace.json
  ./gpu-bench --bench                    criterion with the device's clock
  scripts/ncu.sh linear_mma_bf16         one kernel under Nsight Compute

The binaries load the machine code from cubins/ next to them; a GPU of another architecture needs NVRTC 13 on
LD_LIBRARY_PATH. The comparison with transformers needs Python with torch and transformers.

Built on a machine without a GPU: kernels and binaries were tested in the emulator. docs/measurements/gpu.md of the
sources lists the measurements on GPUs.
TEXT

if [ $profile = release ]; then
    # The build of the tests contains the fake driver; a release does not.
    cargo build --locked --quiet --package actbench-kernels --features testing
    fake_driver=$(find "$target/debug/build" -path '*/out/fake_driver/libcuda.so' -printf '%T@ %h\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
    for architecture in 80 86 89 90 100 120; do
        printf 'sm_%s: ' "$architecture"
        LD_LIBRARY_PATH=$fake_driver FAKE_DRIVER="architecture=$architecture" XDG_CACHE_HOME=/nonexistent \
            "$partial/kernels-check" --quick --shapes 0 | tail -n 1
    done
    "$partial/kernels-check" --emulator --quick | tail -n 1
fi

(cd "$partial" && find . -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)
size_mb=$(du -sm --apparent-size "$partial" | cut -f1)
binary_kb=$(du -k --apparent-size "$partial/kernels-check" | cut -f1)
if [ $profile = release ] && [ "$size_mb" -gt "$limit_mb" ]; then
    echo "$partial has $size_mb MB, more than $limit_mb" >&2
    exit 1
fi
if [ $profile = release ] && [ "$binary_kb" -gt 10240 ]; then
    echo "kernels-check has $binary_kb kB, more than 10 MB" >&2
    exit 1
fi
rm -rf "$directory"
mv "$partial" "$directory"
echo "$directory: $size_mb MB, kernels-check $binary_kb kB"
