#!/usr/bin/env bash
# Everything there is to check and to measure on a machine with a GPU, from programs built before: no cargo, no compiler.
#
#   scripts/gpu_check.sh [--emulator] [--out DIR] [--only STEP,...]     (DIR is gpu-check)
#
# Lies in the folder that scripts/build_gpu_folder.sh makes, beside the programs that it runs. Steps:
#
#   machine      what this machine is; nvidia-smi, if it is there
#   kernels      kernels-check: every kernel against the CPU and its plain version, differences from the emulator, times
#   check        goldens of transformers in float64, and the same bits in all modes, batch sizes and rules
#   memcheck     compute-sanitizer over small shapes of every kernel, where there is one
#   racecheck    the same for races
#   bench        criterion by the device's clock: every kernel and the forward pass
#   run          both tasks by all methods on the 1B model
#   profile      where the time goes on the 1B model, with a trace
#   peer         transformers and torch on the same weights and tokens: hidden states compared, both timed in turns
#
# Each step has a time limit of its own and is run whatever became of those before it; all together take less than nine
# minutes. What they print, and their files, are in DIR; a table at the end says what became of each. PYTHON names the
# interpreter of the last step, which is left out where it has no torch.
#
# --emulator is a dry run without a GPU: the kernels are executed on the CPU, at shapes of a moment. It shows that all of
# this works, and no speed.
#
# Exit status: 0 if no step failed, 1 if one did, 2 if nothing could be run, 130 if interrupted.
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
    *) fail "unknown argument $1; --help says what there is" ;;
    esac
    shift
done
for program in actbench kernels-check gpu-bench; do
    [ -x "$here/$program" ] || fail "there is no $here/$program: make a folder with scripts/build_gpu_folder.sh and run the script there"
done
mkdir -p "$out" || fail "$out cannot be made"
cd "$out" || exit 2
out=$PWD

# Seconds for everything; a step gets what is left where that is less than its own limit.
readonly total=525
readonly names=(machine kernels check memcheck racecheck bench run profile peer)
for name in ${only//,/ }; do
    [[ " ${names[*]} " == *" $name "* ]] || fail "there is no step $name; there are ${names[*]}"
done

if [ "$emulator" = yes ]; then
    export ACTBENCH_CUDA=emulator:1
    model=(--dataset embedded:short --samples 8 --batch-size 4 --layer 0 --sweep-layers 1 --sweep-cs 1.0)
    repetitions=1
else
    unset ACTBENCH_CUDA
    model=(--model synthetic:llama-3.2-1b --samples 200 --batch-size 32)
    repetitions=2
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

# A step that ends with this was left out, and its last line says why.
readonly skipped=77

sanitize() {
    if [ "$emulator" = yes ]; then
        echo 'the emulator is no GPU'
        return $skipped
    fi
    if ! command -v compute-sanitizer >/dev/null; then
        echo 'compute-sanitizer was not found'
        return $skipped
    fi
    # Another status than those of kernels-check, so that it is seen who complains.
    compute-sanitizer --tool "$1" --error-exitcode 9 "$here/kernels-check" --quick --shapes 0 --times none
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
    # Once each: the emulator's times are nobody's.
    [ "$emulator" = no ] || arguments=(--test)
    CRITERION_HOME=$out/criterion "$here/gpu-bench" "${arguments[@]}"
}

run() {
    "$here/actbench" run --device-map cuda "${model[@]}" --tasks train,sweep --methods eager,lazy,lazy-disk \
        --repetitions $repetitions --warmup 0 --timeout 60s --cache-dir "$out" --output results.json --quiet
}

profile() {
    "$here/actbench" profile --device-map cuda "${model[@]}" --tasks train --methods eager,lazy --trace trace.json --quiet
}

peer() {
    local why
    if ! why=$("$python" -c 'import numpy, safetensors, tokenizers, torch, transformers' 2>&1); then
        echo "$why" | tail -n 1
        echo "$python has not what it needs: $(echo "$why" | tail -n 1)"
        return $skipped
    fi
    local device=cuda preset=(--preset llama-3.2-1b --rows 128 --tokens 256) layers=16 rows=128 batch=32 blocks=3 sizes=8,32,64,128
    if [ "$emulator" = yes ]; then
        device=cpu preset=(--preset smollm2-135m --layers 1 --rows 8 --tokens 24) layers=1 rows=8 batch=4 blocks=1 sizes=4,8
    elif ! why=$("$python" -c 'import torch; assert torch.cuda.is_available(), "torch sees no GPU"' 2>&1); then
        echo "$why" | tail -n 1
        return $skipped
    fi
    rm -rf random-model
    "$python" "$here/scripts/random_model.py" "${preset[@]}" --out random-model || return
    local work=(--model random-model --dataset random-model/rows.jsonl --samples "$rows" --dtype bf16 --batch-size $batch
        --layer $((layers - 1)) --sweep-layers "$layers" --device $device --actbench "$here/actbench"
        "--actbench-flags=--device-map cuda")
    local status=0
    # The last token's own hidden state, in every layer.
    "$python" "$here/scripts/peer_hf.py" "${work[@]}" --tasks sweep --sweep-cs 1.0 --pool last || status=$?
    "$python" "$here/scripts/peer_hf.py" "${work[@]}" --tasks train --bench $blocks --bench-batch-sizes $sizes || status=$?
    # 2.5 GB that the next run makes anew.
    rm -rf random-model random-model.unfinished
    return $status
}

# The figure of a step that matters, from what it printed.
figure() {
    local log=$1.log
    case $1 in
    machine) sed -n 's/.*"gpus": *\[* *"\(.*\)".*/\1/p;s/^ *"\(.*cuda.*\)",*$/\1/p' "$log" | head -n 1 ;;
    kernels) sed -n 's/^A copy on the device moves \(.*\) GB\/s; the best product did \(.*\) TFLOP.*/copy \1 GB\/s, product \2 TFLOP\/s/p;s/^cases  *\(.*\)/\1/p' "$log" | tail -n 1 ;;
    check) tail -n 1 "$log" ;;
    memcheck | racecheck) grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$log" | tail -n 1 | sed 's/^=* *//' ;;
    bench) echo "$(grep -cE 'time:|Success' "$log") measured$(grep -m 1 'clocks after' "$log" >/dev/null && grep -c 'slowed down by' "$log" | sed 's/^/, slowed down in /')" ;;
    run) grep -E '^train: ' "$log" | tail -n 1 | sed 's/^train: //;s/;.*//' ;;
    profile) grep -E '^device 0: ' "$log" | tail -n 1 | sed 's/^device 0: //;s/;.*//' ;;
    peer) grep -E '^raw forward' "$log" | tail -n 1 | sed 's/  */ /g' ;;
    esac
}

# This script runs each step in a process of its own, which it names here.
if [ -n "${GPU_CHECK_STEP:-}" ]; then
    "$GPU_CHECK_STEP"
    exit
fi

if [ "$emulator" = no ] && ! why=$("$here/actbench" check --device-map cuda --list 2>&1); then
    fail "$(tail -n 1 <<<"$why" | sed 's/^error: //'); $0 --emulator is a dry run without a GPU"
fi

pid=
rows=()
failed=0

table() {
    {
        printf '%-10s %-8s %8s  %s\n' step result seconds 'the figure that matters'
        for row in "${rows[@]}"; do
            IFS=$'\t' read -r name result seconds what <<<"$row"
            printf '%-10s %-8s %8s  %s\n' "$name" "$result" "$seconds" "$what"
        done
        [ "$emulator" = no ] || echo 'A dry run in the emulator: nothing ran on a GPU, and no figure is one of speed.'
        echo "$SECONDS s in all; files in $out"
    } | tee summary.txt
}

interrupted() {
    [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null
    wait
    rm -rf random-model random-model.unfinished
    echo 'interrupted' >&2
    table
    exit 130
}
trap interrupted INT TERM

# Runs the step $1, for $2 seconds at most.
step() {
    local name=$1 limit=$2 left=$((total - SECONDS)) start=$SECONDS status result what
    if [ -n "$only" ] && [[ ",$only," != *",$name,"* ]]; then
        return
    fi
    if [ $left -lt 10 ]; then
        rows+=("$name"$'\t'skipped$'\t'0$'\t'"no time was left")
        return
    fi
    [ $left -ge "$limit" ] || limit=$left
    printf '%s ...\n' "$name" >&2
    # `timeout` makes a process group of it, so that the limit ends everything that the step started.
    (cd "$from" && GPU_CHECK_STEP=$name exec timeout --kill-after=5 "$limit" "$BASH" "$self" "${arguments[@]}") \
        >"$name.log" 2>&1 </dev/null &
    pid=$!
    wait $pid
    status=$?
    pid=
    case $status in
    0) result=ok what=$(figure "$name") ;;
    "$skipped") result=skipped what=$(tail -n 1 "$name.log") ;;
    124 | 137) result=FAILED what="took longer than $limit s; see $name.log" ;;
    *)
        what=$(grep -m 1 -E '^(FAILED |error)' "$name.log" || grep -v '^ *$' "$name.log" | tail -n 1)
        result=FAILED what="status $status: ${what:0:160}"
        ;;
    esac
    [ $result != FAILED ] || failed=1
    # A step that was ended leaves what it would have removed.
    rm -rf random-model random-model.unfinished
    rows+=("$name"$'\t'$result$'\t'$((SECONDS - start))$'\t'"$what")
}

step machine 20
step kernels 120
step check 90
step memcheck 60
step racecheck 60
step bench 100
step run 150
step profile 60
step peer 120
echo
table
exit $failed
