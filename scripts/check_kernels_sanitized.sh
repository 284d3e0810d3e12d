#!/usr/bin/env bash
# Executes the CUDA kernels on the CPU in a build with AddressSanitizer and checks for misaligned addresses: every access
# of every kernel to device memory, to shared memory and to local arrays.
#
#   scripts/check_kernels_sanitized.sh
#
# Without this build the emulator detects accesses beyond a buffer by the page after it, by changed guard bytes, and by the
# bounds of asynchronous copies; it does not detect a read beyond a shared array.
# Needs g++ with its sanitizers and x86-64 Linux. Builds in a separate directory, target/sanitized.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export ACTBENCH_EMULATOR_SANITIZED=1
# The sanitizer reports lines, so it needs line tables in any profile.
export CARGO_PROFILE_DEV_DEBUG=line-tables-only
# Fibers have their own stacks, which the sanitizer must not move; Rust's objects are not checked.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:handle_segv=1
runtime=$(${CXX:-g++} -print-file-name=libasan.so)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="env LD_PRELOAD=$(realpath "$runtime")"
test_kernels() {
    cargo test --locked --quiet --target-dir target/sanitized -p actbench-kernels --no-default-features --features testing "$@"
}

# Random shapes are tested in the build without AddressSanitizer, which takes a third of the time.
test_kernels --test emulator -- plain_kernels:: in_every_mode unsupported_shapes_use_plain_kernels

# Verifies the checks: a kernel of the emulator's own tests reads beyond its input.
if report=$(test_kernels --test emulator -- --exact device::access_beyond_buffer_is_error 2>&1); then
    echo 'a read beyond the end of a buffer was not detected' >&2
    exit 1
fi
for words in AddressSanitizer read_beyond self_test.cu:; do
    if ! grep -q "$words" <<<"$report"; then
        printf '%s\n' "$report" >&2
        echo "the report of a read beyond the end of a buffer lacks $words" >&2
        exit 1
    fi
done
echo 'every access of every kernel is within bounds'
