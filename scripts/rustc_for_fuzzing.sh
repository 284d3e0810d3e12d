#!/usr/bin/env bash
# For RUSTC_WORKSPACE_WRAPPER: compiles the crates of this workspace with the coverage counters of libFuzzer, and leaves
# dependencies as the tests' build has them.
set -euo pipefail
# Build scripts run without the fuzzer's library, which has the counters' functions.
case " $* " in
  *' --crate-name build_script_'* | *' --print='* | *' -vV '*) exec "$@" ;;
esac
# The flags of `cargo fuzz build --sanitizer none`.
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-stack-depth \
  -Cllvm-args=-simplifycfg-branch-fold-threshold=0
