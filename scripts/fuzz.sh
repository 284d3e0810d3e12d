#!/usr/bin/env bash
# fuzz.sh [--seconds N] [--seed N] [--tests-build] [--sanitize] [--jobs N] [--list] [TARGET...]
#
# Runs the fuzz targets in fuzz/, each for N seconds (default 5), on their corpus. A finding is a panic, an abort, an
# input that takes over 10 s (60 s with --tests-build), or one that takes over 2 GiB; it ends the script with status 1
# and stays in fuzz/artifacts/TARGET. What the fuzzer learns is not added to the corpus.
#
# --tests-build takes the dependencies of the tests' build as they are, so that the fuzzer follows this workspace's code
# alone, and builds in a fraction of the time. --seed makes two runs try the same inputs in the same order. --sanitize
# adds AddressSanitizer, which needs a nightly compiler and cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=5 seed=0 tests_build=0 sanitize=0 jobs=1 slow=10 targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift ;;
    --seed) seed=${2:?--seed needs a number}; shift ;;
    --tests-build) tests_build=1 slow=60 ;;
    --sanitize) sanitize=1 ;;
    --list) sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml; exit 0 ;;
    -*) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <("$0" --list)

counters=$PWD/scripts/rustc_for_fuzzing.sh
host=$(rustc -vV | sed -n 's/^host: //p')
if [ $sanitize = 1 ]; then
  if ! command -v cargo-fuzz >/dev/null; then
    cargo install --quiet --locked --debug cargo-fuzz --version 0.13.2 --root target/tools
    export PATH="$PWD/target/tools/bin:$PATH"
  fi
  build=target/fuzz/$host/release
  # With lints in the compiler's place nothing would be instrumented.
  env -u RUSTC_WORKSPACE_WRAPPER \
    cargo +nightly fuzz build --sanitizer address --debug-assertions --target-dir target/fuzz
elif [ $tests_build = 1 ]; then
  build=target/debug
  # The workspace's features, so that the dependencies are those of the tests. Without optimization, which would be most
  # of the time: no target computes.
  unoptimized=()
  for package in actbench-kernels actbench-fixtures actbench-activations pairgate; do
    unoptimized+=(--config "profile.dev.package.$package.opt-level=0")
  done
  RUSTC_WORKSPACE_WRAPPER=$counters cargo build --locked --quiet --workspace --features testing "${unoptimized[@]}" \
    "${targets[@]/#/--bin=}"
else
  build=target/fuzz/$host/fuzz
  env -u RUSTC_WORKSPACE_WRAPPER RUSTFLAGS="$("$counters" echo | tr -d '\n')" \
    cargo build --locked --quiet --manifest-path fuzz/Cargo.toml --bins --profile fuzz --target "$host" \
    --target-dir target/fuzz
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

run_target() {
  local target=$1 learned=$scratch/$1 log=$scratch/$1.log
  mkdir -p "$learned" "fuzz/artifacts/$target"
  # The program is run without cargo, which would print a command with paths of this machine.
  if TMPDIR=$scratch "$build/$target" "$learned" "fuzz/corpus/$target" \
    -artifact_prefix="fuzz/artifacts/$target/" -seed="$seed" -max_total_time="$seconds" -timeout=$slow \
    -rss_limit_mb=2048 -malloc_limit_mb=2048 -max_len=65536 -print_final_stats=1 >"$log" 2>&1; then
    # Findings of an earlier run stay.
    rmdir --ignore-fail-on-non-empty "fuzz/artifacts/$target"
    printf '%-20s %9s inputs, no finding\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  else
    tail -n 40 "$log"
    printf '%-20s FOUND: %s\n' "$target" "$(sed -n 's/^.*Test unit written to //p' "$log" | tail -n 1)"
    return 1
  fi
}

# All targets run even if one has a finding, so that one scheduled run shows all of them.
failed=0 running=0
for target in "${targets[@]}"; do
  run_target "$target" &
  running=$((running + 1))
  if [ "$running" -ge "$jobs" ]; then
    wait -n || failed=1
    running=$((running - 1))
  fi
done
while [ "$running" -gt 0 ]; do
  wait -n || failed=1
  running=$((running - 1))
done
exit "$failed"
