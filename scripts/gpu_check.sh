#!/usr/bin/env bash
# Runs all checks and measurements on a machine with a GPU, with prebuilt binaries: needs no cargo and no compiler.
#
#   scripts/gpu_check.sh [--emulator] [--out DIR] [--only STEP,...]     (DIR is gpu-check)
#
# Part of the directory that scripts/build_gpu_folder.sh builds, with the binaries that it runs. Steps:
#
#   machine      the environment record, and nvidia-smi if available
#   kernels      kernels-check: every kernel against the CPU and the plain kernel, differences from the emulator, times
#   check        goldens of transformers in float64, and bit-identical features in all modes, batch sizes and rules
#   peer         transformers and torch on the same weights and tokens: compares hidden states, times both interleaved, the peer
#                also compiled and packed, and prints which share of a sustained matmul each side reaches
#   run          both tasks by all methods on the 1B model, with the phases of each process
#   short        lazy on short dialogues, in batches that fill the GPU and in batches of at most 8 dialogues
#   bench        criterion with the device's clock: every kernel, and forward passes of 128 to 32,768 tokens; copies by size
#   profile      the sustained ceilings with clock and power, where the time goes on the 1B model, and a trace
#   memcheck     compute-sanitizer on small shapes of every kernel, if available
#   racecheck    compute-sanitizer for races, at the same time: neither step measures anything
#
# The most important steps come first. Each step has its own time limit and runs even if an earlier step failed; all steps
# take less than eight minutes. Their output and files are in DIR; a table of the results is printed at the end and written
# to summary.txt and summary.md. PYTHON is the interpreter of the step `peer`, which is skipped if it lacks torch.
#
# --emulator is a dry run without a GPU: the kernels run on the CPU with tiny shapes. It tests the script, and its times are
# meaningless.
#
# Exit status: 0 if no step failed, 1 if a step failed, 2 if no step could run, 130 if interrupted.
set -uo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
here=$(dirname "$(dirname "$self")")
arguments=("$@")
out=gpu-check emulator=no only=
python=${PYTHON:-python3}

fail() {
    echo "gpu_check: $1" >&2
    exit 2
}

from=$PWD
while [ $# -gt 0 ]; do
    case $1 in
    --emulator) emulator=yes ;;
    --out | --only)
        [ $# -ge 2 ] || fail "$1 needs a value"
        if [ "$1" = --out ]; then out=$2; else only=$2; fi
        shift
        ;;
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    *) fail "unknown argument $1; see --help" ;;
    esac
    shift
done
for binary in actbench kernels-check gpu-bench; do
    [ -x "$here/$binary" ] || fail "$here/$binary is missing: build the directory with scripts/build_gpu_folder.sh and run the script in it"
done
mkdir -p "$out" || fail "cannot create $out"
cd "$out" || exit 2
out=$PWD

# The time limit of all steps in seconds; a step gets the remaining time if that is less than its own limit. A dry run has
# three times the limits, as its machine may be small and busy.
time_factor=1
[ "$emulator" = no ] || time_factor=3
readonly total=$((480 * time_factor))
readonly names=(machine kernels check peer run short bench profile memcheck racecheck)
for name in ${only//,/ }; do
    [[ " ${names[*]} " == *" $name "* ]] || fail "unknown step $name; the steps are ${names[*]}"
done

if [ "$emulator" = yes ]; then
    export ACTBENCH_CUDA=emulator:1
    model=(--dataset embedded:short --samples 8 --layer 0 --sweep-layers 1 --sweep-cs 1.0)
    batch=4 repetitions=1
else
    unset ACTBENCH_CUDA
    model=(--model synthetic:llama-3.2-1b --samples 200)
    batch=32 repetitions=2
fi

machine() {
    "$here/actbench" env || return
    uname -srm
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi
        nvidia-smi -q -d CLOCK,PERFORMANCE,POWER,TEMPERATURE
    else
        echo 'nvidia-smi was not found'
    fi
}

kernels() {
    if [ "$emulator" = yes ]; then
        "$here/kernels-check" --emulator --quick --shapes 0 --json kernels.json
    else
        "$here/kernels-check" --json kernels.json
    fi
}

check() {
    local quick=()
    [ "$emulator" = no ] || quick=(--quick)
    "$here/actbench" check --device-map cuda --goldens "$here/fixtures/data/goldens" --json check.json "${quick[@]}"
}

# The exit status of a skipped step, whose last line is the reason.
readonly skipped=77

sanitize() {
    if [ "$emulator" = yes ]; then
        echo 'the emulator is not a GPU'
        return $skipped
    fi
    if ! command -v compute-sanitizer >/dev/null; then
        echo 'compute-sanitizer was not found'
        return $skipped
    fi
    # A status that kernels-check does not use.
    # Failed API calls are expected: kernels-check queries the driver's capabilities.
    compute-sanitizer --tool "$1" --report-api-errors no --error-exitcode 9 "$here/kernels-check" --quick --shapes 0 --times none
    local status=$?
    if [ $status -ne 0 ] && grep -qiE 'not supported|unable to (attach|inject)|insufficient permission' "$1.log"; then
        echo 'compute-sanitizer does not work on this machine'
        return $skipped
    fi
    return $status
}

memcheck() { sanitize memcheck; }

racecheck() { sanitize racecheck; }

bench() {
    local arguments=(--bench)
    # Once each: the emulator's times are meaningless.
    [ "$emulator" = no ] || arguments=(--test)
    CRITERION_HOME=$out/criterion "$here/gpu-bench" "${arguments[@]}"
}

run() {
    "$here/actbench" run --device-map cuda "${model[@]}" --batch-size $batch --tasks train,sweep --methods eager,lazy,lazy-disk \
        --repetitions $repetitions --warmup 0 --timeout 60s --cache-dir "$out" --output results.json --quiet
}

short() {
    local limit
    # A given batch size is a limit.
    for limit in '' '--batch-size 8'; do
        # shellcheck disable=SC2086
        "$here/actbench" run --device-map cuda "${model[@]}" $limit --tasks train --methods lazy \
            --repetitions $((repetitions + 1)) --warmup 0 --timeout 60s --output "short${limit:+-8}.json" --quiet || return
    done
}

profile() {
    "$here/actbench" profile --device-map cuda "${model[@]}" --batch-size $batch --tasks train --methods eager,lazy --trace trace.json --quiet
}

peer() {
    local why
    if ! why=$("$python" -c 'import numpy, safetensors, tokenizers, torch, transformers' 2>&1); then
        echo "$why" | tail -n 1
        echo "$python lacks a module: $(echo "$why" | tail -n 1)"
        return $skipped
    fi
    local device=cuda preset=(--preset llama-3.2-1b --rows 128 --tokens 256) layers=16 rows=128 batch=64 blocks=3 sizes=16,64,128
    local variants=compiled,packed,compiled+packed
    if [ "$emulator" = yes ]; then
        device=cpu preset=(--preset smollm2-135m --layers 1 --rows 8 --tokens 24) layers=1 rows=8 batch=4 blocks=1 sizes=4,8
        # Compiling on a few cores takes minutes.
        variants=packed
    elif ! why=$("$python" -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU"' 2>&1); then
        echo "$why" | tail -n 1
        return $skipped
    fi
    rm -rf random-model
    "$python" "$here/scripts/random_model.py" "${preset[@]}" --out random-model || return
    echo "the model was written after $SECONDS s"
    local work=(--model random-model --dataset random-model/rows.jsonl --samples "$rows" --dtype bf16 --batch-size $batch
        --layer $((layers - 1)) --sweep-layers "$layers" --device $device --actbench "$here/actbench"
        "--actbench-flags=--device-map cuda")
    local status=0
    # The hidden state of the last token in every layer.
    "$python" "$here/scripts/peer_hf.py" "${work[@]}" --tasks sweep --sweep-cs 1.0 --pool last || status=$?
    echo "compared after $SECONDS s"
    "$python" "$here/scripts/peer_hf.py" "${work[@]}" --tasks train --bench $blocks --bench-batch-sizes $sizes \
        --bench-variants $variants || status=$?
    # 2.5 GB, which the next run generates again.
    rm -rf random-model random-model.unfinished
    return $status
}

# Joins the lines of standard input with semicolons.
joined() { paste -sd ';' | sed 's/;/; /g'; }

# The value of $1 in the output of `actbench env` in the log of the step `machine`.
fact() { sed -n "s/^  $1  *//p" machine.log 2>/dev/null | head -n 1; }

# The phases of lazy's train in the output $1 of `actbench run`: medians in seconds.
phases_of() {
    awk '$1 == "task" && / release / { for (i = 3; i <= NF; i++) name[i] = $i; found = 1; next }
        found && $1 == "train" && $2 == "lazy" {
            for (i = 3; i <= NF; i++) text = text " " name[i] " " $i
            print "phases of train, lazy, in s:" text
            exit
        }' "$1"
}

# The key figure of a step, from its output.
figure() {
    local log=$1.log
    case $1 in
    machine) { fact GPUs; fact 'GPU driver' | sed 's/^/driver /'; fact processor; } | joined ;;
    kernels)
        {
            sed -n 's/^cases  *\([0-9]*\),.*/\1 cases/p' "$log"
            sed -n 's/^Device-to-device copy: \(.*\) GB\/s; best GEMM: \(.*\) TFLOP.*/copy \1 GB\/s, GEMM \2 TFLOP\/s/p' "$log"
        } | joined
        ;;
    check) tail -n 1 "$log" ;;
    peer)
        {
            sed -nE 's/^.*against float32: actbench ([^,]*), .*, ([0-9.]+ times theirs);.*/error \1, \2/p' "$log"
            sed -nE 's/^(raw forward, batch [0-9]+(, [a-z+]+( [a-z]+)*)?)  +[^ ]+  +[^ ]+  +([^ ]+x)  .*/\1: \4/p' "$log"
            grep -E '^variant of the peer: .*SKIPPED' "$log" | sed 's/^variant of the peer: //;s/|/,/g' | cut -c 1-120
            grep -E '^(sustained matmul of torch|share of it): ' "$log"
        } | joined
        ;;
    run)
        {
            sed -nE 's/^((train|sweep): [^;]*);.*/\1/p' "$log"
            phases_of "$log"
        } | joined
        ;;
    short) phases_of "$log" ;;
    bench)
        {
            echo "$(grep -cE 'time:|Success' "$log") measured"
            grep -q 'clocks after' "$log" && grep -c 'slowed down by' "$log" | sed 's/^/slowed down in /'
            # The name of a benchmark is alone on its line where it is long.
            awk '/^[a-z]/ { name = /^forward\// ? $0 : "" } name && /thrpt:/ {
                    split(name, words, ", "); sub(/ +time:.*/, "", words[2]); print "forward of " words[2] " " $4 " " $5; name = ""
                }' "$log"
        } | joined
        ;;
    profile)
        {
            sed -nE 's/^.*; (ceilings, .*)$/\1/p' "$log" | head -n 1
            grep -E '^device 0: ' "$log" | tail -n 1 | sed 's/^device 0: //;s/;.*//'
        } | joined
        ;;
    memcheck | racecheck) grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$log" | tail -n 1 | sed 's/^=* *//' ;;
    esac
}

# This script runs each step in a separate process, named by this variable.
if [ -n "${GPU_CHECK_STEP:-}" ]; then
    "$GPU_CHECK_STEP"
    exit
fi

if [ "$emulator" = no ] && ! why=$("$here/actbench" check --device-map cuda --list 2>&1); then
    fail "$(tail -n 1 <<<"$why" | sed 's/^error: //'); $0 --emulator is a dry run without a GPU"
fi

rows=()
failed=0
declare -A pids starts limits

readonly dry='A dry run in the emulator: nothing ran on a GPU, and the times are meaningless.'

table() {
    {
        printf '%-10s %-8s %8s  %s\n' step result seconds 'key figure'
        for row in "${rows[@]}"; do
            IFS=$'\t' read -r name result seconds what <<<"$row"
            printf '%-10s %-8s %8s  %s\n' "$name" "$result" "$seconds" "$what"
        done
        [ "$emulator" = no ] || echo "$dry"
        echo "$SECONDS s in total; files in $out"
    } | tee summary.txt
    {
        echo '# GPU check and measurements'
        echo
        local gpu driver
        gpu=$(fact GPUs) driver=$(fact 'GPU driver')
        echo "GPU: ${gpu:-none}, driver ${driver:-none}. CPU: $(fact processor), $(fact threads) threads, $(fact memory)."
        [ "$emulator" = no ] || printf '\n%s\n' "$dry"
        printf '\n```sh\nscripts/gpu_check.sh%s\n```\n\n' "$(printf ' %s' "${arguments[@]}" | sed -E 's/ --out [^ ]+//;s/^ $//')"
        echo '| step | result | seconds | key figure |'
        echo '|---|---|---:|---|'
        for row in "${rows[@]}"; do
            IFS=$'\t' read -r name result seconds what <<<"$row"
            echo "| $name | $result | $seconds | ${what//|/\\|} |"
        done
        printf '\n%s s in total.\n' "$SECONDS"
    } >summary.md
}

interrupted() {
    [ ${#pids[@]} -eq 0 ] || kill -TERM "${pids[@]}" 2>/dev/null
    wait
    rm -rf random-model random-model.unfinished
    echo 'interrupted' >&2
    table
    exit 130
}
trap interrupted INT TERM

# Starts the step $1, with a limit of $2 seconds on a GPU, if it is selected.
start() {
    local name=$1 limit=$(($2 * time_factor)) left=$((total - SECONDS))
    if [ -n "$only" ] && [[ ",$only," != *",$name,"* ]]; then
        return
    fi
    if [ $left -lt 10 ]; then
        rows+=("$name"$'\t'skipped$'\t'0$'\t'"no time remaining")
        return
    fi
    [ $left -ge "$limit" ] || limit=$left
    printf '%s ...\n' "$name" >&2
    # `timeout` creates a process group, so that the limit ends all processes of the step.
    (cd "$from" && GPU_CHECK_STEP=$name exec timeout --kill-after=5 "$limit" "$BASH" "$self" "${arguments[@]}") \
        >"$name.log" 2>&1 </dev/null &
    pids[$name]=$! starts[$name]=$SECONDS limits[$name]=$limit
}

# Waits for the step $1, if it was started, and records its result.
finish() {
    local name=$1 status result what
    [ -n "${pids[$name]:-}" ] || return
    wait "${pids[$name]}"
    status=$?
    unset "pids[$name]"
    case $status in
    0) result=ok what=$(figure "$name") ;;
    "$skipped") result=skipped what=$(tail -n 1 "$name.log") ;;
    124 | 137)
        result=FAILED what="took longer than ${limits[$name]} s; see $name.log"
        # The partial results are valid.
        local found
        found=$(figure "$name")
        [ -z "$found" ] || what+=": $found"
        ;;
    *)
        what=$(grep -m 1 -E '^(FAILED |error|peer_hf: )' "$name.log" || grep -v '^ *$' "$name.log" | tail -n 1)
        result=FAILED what="status $status: ${what:0:160}"
        ;;
    esac
    [ $result != FAILED ] || failed=1
    # Removes the files of a step that was killed.
    rm -rf random-model random-model.unfinished
    rows+=("$name"$'\t'$result$'\t'$((SECONDS - starts[$name]))$'\t'"$what")
}

step() {
    start "$1" "$2"
    finish "$1"
}

step machine 20
step kernels 60
step check 45
step peer 180
step run 90
step short 30
step bench 140
step profile 40
start memcheck 80
start racecheck 80
finish memcheck
finish racecheck
echo
table
exit $failed
