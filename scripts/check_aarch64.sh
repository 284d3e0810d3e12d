#!/usr/bin/env bash
# Compiles actbench for 64-bit Arm, and runs the CPU backend's tests there, under QEMU: the portable kernels, and the
# architecture's own floating point and memory order.
#
#   scripts/check_aarch64.sh
#
# Needs rustup, and apt for a cross compiler and QEMU where they are missing. An emulated CPU says nothing about speed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-unknown-linux-gnu
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    root=
    [ "$(id -u)" = 0 ] || root=sudo
    $root apt-get update -qq
    $root apt-get install -qq -y --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static >/dev/null
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64-static -L /usr/aarch64-linux-gnu'
# The lints hold for code that other architectures do not compile.
cargo check --locked --quiet --target "$target" -p actbench
# Without CUDA, whose drivers and tests are those of the build for this machine.
cargo test --locked --quiet --target "$target" -p actbench-kernels --no-default-features --lib --test cpu
