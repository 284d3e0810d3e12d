#!/usr/bin/env bash
# Compiles the CUDA kernels with NVRTC for every architecture and checks the committed table of their resources.
#
#   scripts/check_cuda_kernels.sh [--tests-build] [--update] [--out DIR]
#
# --tests-build shares the build of the workspace's tests.
# --update rewrites the table.
# --out writes the machine code and a manifest to DIR, for machines that have a GPU and no NVRTC (--cubins DIR there).
# A binary accepts only machine code of its own sources.
#
# Needs cargo and python3 with pip: compiler and disassembler are Python packages of pinned versions (95 MB), installed
# under target/tools/. Needs no GPU and no CUDA toolkit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$PWD/target/tools/nvrtc-13.0.88
if [ ! -x "$tools/complete/bin/nvdisasm" ]; then
    rm -rf "$tools"
    mkdir -p "$tools"
    "${PYTHON:-python3}" -m pip install --quiet --no-deps --disable-pip-version-check --target "$tools/partial" \
        nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-nvdisasm==13.5.37
    mv "$tools/partial/nvidia/cu13" "$tools/complete"
    chmod +x "$tools/complete/bin/nvdisasm"
fi
# cudarc looks for several names, among them libnvrtc.so.13, the one of the package.
export LD_LIBRARY_PATH=$tools/complete/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export NVDISASM=$tools/complete/bin/nvdisasm
selection=(-p actbench-kernels)
if [ "${1:-}" = --tests-build ]; then
    selection=(--workspace --features testing)
    shift
fi
cargo build --locked --quiet "${selection[@]}" --example check_cuda_kernels
"${CARGO_TARGET_DIR:-target}/debug/examples/check_cuda_kernels" "$@"
# The run-time path with the same compiler: the cache and prebuilt directories.
ACTBENCH_REQUIRE_NVRTC=1 cargo test --locked --quiet "${selection[@]}" --test nvrtc
