#!/usr/bin/env bash
# Compiles the CUDA kernels with NVRTC for every architecture and checks the committed table of what they take.
#
#   scripts/check_cuda_kernels.sh [--tests-build] [--update] [--out DIR]
#
# --tests-build takes the build of the workspace's tests, which must come first, for a build of its own.
# --out writes the machine code and a manifest to DIR, for machines that have a GPU and no NVRTC (--cubins DIR there).
# It is of these sources alone: a program built from others refuses it.
#
# Needs cargo and python3 with pip: compiler and disassembler come as Python packages of pinned versions (95 MB), kept
# under target/tools/. No GPU and no CUDA toolkit is needed, and nothing runs on a GPU.
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
# cudarc asks for libnvrtc.so among other names, which the package does not have: it has libnvrtc.so.13.
export LD_LIBRARY_PATH=$tools/complete/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export NVDISASM=$tools/complete/bin/nvdisasm
selection=(-p actbench-kernels)
if [ "${1:-}" = --tests-build ]; then
    selection=(--workspace --features emulator)
    shift
fi
cargo build --locked --quiet "${selection[@]}" --example check_cuda_kernels
"${CARGO_TARGET_DIR:-target}/debug/examples/check_cuda_kernels" "$@"
# The run-time path with the same compiler: what is compiled is kept, and folders of cubins are what they say.
ACTBENCH_REQUIRE_NVRTC=1 cargo test --locked --quiet "${selection[@]}" --test nvrtc
