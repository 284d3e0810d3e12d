#!/usr/bin/env bash
# Executes the CUDA kernels on the CPU in a build with AddressSanitizer and the checks for misaligned addresses: every
# access of every kernel to device memory, to shared memory and to its own arrays.
#
#   scripts/check_kernels_sanitized.sh
#
# Without this build the emulator sees what goes beyond a buffer by the page behind it, by bytes that changed, and by
# asynchronous copies that are compared with the buffers; a read beyond a shared array it does not see.
# Needs g++ with its sanitizers and x86-64 Linux. The build has a folder of its own, target/sanitized.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export ACTBENCH_EMULATOR_SANITIZED=1
# The sanitizer names lines, whatever the profile keeps otherwise.
export CARGO_PROFILE_DEV_DEBUG=line-tables-only
# The emulator's threads have stacks of their own, which the sanitizer must not move; Rust's objects are not checked.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:handle_segv=1
runtime=$(${CXX:-g++} -print-file-name=libasan.so)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="env LD_PRELOAD=$(realpath "$runtime")"
test_kernels() {
    cargo test --locked --quiet --target-dir target/sanitized -p actbench-kernels --no-default-features --features emulator "$@"
}

test_kernels --test emulator -- plain_kernels::
# The shapes drawn at random are left to the build without checks, which takes a third of the time.
test_kernels --test emulator -- in_every_mode unsupported_shapes_use_plain_kernels

# That the checks are there: a kernel of the emulator's own tests reads beyond its input.
if told=$(test_kernels --test emulator -- --exact device::access_beyond_buffer_is_error 2>&1); then
    echo 'a read beyond the end of a buffer was not seen' >&2
    exit 1
fi
for words in AddressSanitizer read_beyond self_test.cu:; do
    if ! grep -q "$words" <<<"$told"; then
        printf '%s\n' "$told" >&2
        echo "a read beyond the end of a buffer was not told with $words" >&2
        exit 1
    fi
done
echo 'every access of every kernel is inside its memory'
