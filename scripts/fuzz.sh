#!/usr/bin/env bash
# fuzz.sh [--seconds N] [--seed N] [--profile release|dev] [--sanitize] [--jobs N] [--list] [TARGET...]
#
# Runs the fuzz targets in fuzz/, each for N seconds (default 5), on their corpus. A finding is a panic, an abort, an
# input that takes over 10 s, or one that takes over 2 GiB; it ends the script with status 1 and stays in
# fuzz/artifacts/TARGET. What the fuzzer learns is not added to the corpus.
#
# --profile dev builds in half the time and runs fewer inputs a second. --seed makes two runs try the same inputs in the
# same order. --sanitize adds AddressSanitizer, which needs a nightly compiler and cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=5 seed=0 profile=release sanitize=0 jobs=1 targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift ;;
    --seed) seed=${2:?--seed needs a number}; shift ;;
    --profile) profile=${2:?--profile needs release or dev}; shift ;;
    --sanitize) sanitize=1 ;;
    --list) sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2; exit 0 ;;
    -*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <("$0" --list)

# Lints and the test profile of the workspace do not apply to instrumented builds.
unset RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS CARGO_PROFILE_DEV_DEBUG
host=$(rustc -vV | sed -n 's/^host: //p')
build=target/fuzz/$host/${profile/dev/debug}
if [ $sanitize = 1 ]; then
  if ! command -v cargo-fuzz >/dev/null; then
    cargo install --quiet --locked --debug cargo-fuzz --version 0.13.2 --root target/tools
    export PATH="$PWD/target/tools/bin:$PATH"
  fi
  [ "$profile" = release ] || set -- --dev
  cargo +nightly fuzz build --sanitizer address --target-dir target/fuzz "$@"
else
  # The flags of `cargo fuzz build --sanitizer none`, but for its single code generation unit, which makes the build longer.
  RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-stack-depth \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Cdebug-assertions" \
    cargo build --locked --quiet --manifest-path fuzz/Cargo.toml --bins --profile "$profile" --target "$host" --target-dir target/fuzz
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

run_target() {
  local target=$1 learned=$scratch/$1 log=$scratch/$1.log
  mkdir -p "$learned" "fuzz/artifacts/$target"
  # The program is run without cargo, which would print a command with paths of this machine.
  if TMPDIR=$scratch "$build/$target" "$learned" "fuzz/corpus/$target" \
    -artifact_prefix="fuzz/artifacts/$target/" -seed="$seed" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -malloc_limit_mb=2048 -max_len=65536 -print_final_stats=1 >"$log" 2>&1; then
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
