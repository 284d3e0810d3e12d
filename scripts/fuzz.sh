#!/usr/bin/env bash
# fuzz.sh [--seconds N] [--sanitize] [--jobs N] [--list] [TARGET...]
#
# Runs the fuzz targets in fuzz/, each for N seconds (default 5), on their corpus. A finding is a panic, an abort, an
# input that takes over 10 s, or one that takes over 2 GiB; it ends the script with status 1 and stays in
# fuzz/artifacts/TARGET. What the fuzzer learns is not added to the corpus.
#
# --sanitize adds AddressSanitizer, which needs a nightly compiler; without it a stable one serves.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=5 sanitizer=none toolchain=() jobs=1 targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift ;;
    --sanitize) sanitizer=address toolchain=(+nightly) ;;
    --list) sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2; exit 0 ;;
    -*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <("$0" --list)

# Lints and the test profile of the workspace do not apply to instrumented builds.
unset RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS CARGO_PROFILE_DEV_DEBUG
if ! command -v cargo-fuzz >/dev/null; then
  cargo install --quiet --locked --debug cargo-fuzz --version 0.13.2 --root target/tools
  export PATH="$PWD/target/tools/bin:$PATH"
fi
cargo "${toolchain[@]}" fuzz build --sanitizer "$sanitizer" --target-dir target/fuzz

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
host=$(rustc -vV | sed -n 's/^host: //p')

run_target() {
  local target=$1 learned=$scratch/$1 log=$scratch/$1.log
  mkdir -p "$learned" "fuzz/artifacts/$target"
  # The program is run without cargo, which would print a command with paths of this machine.
  if TMPDIR=$scratch "target/fuzz/$host/release/$target" "$learned" "fuzz/corpus/$target" \
    -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
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
