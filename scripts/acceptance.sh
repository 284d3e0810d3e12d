#!/usr/bin/env bash
# Holds what README and docs promise: one command and one bound for each promise.
#
#   scripts/acceptance.sh [--untimed | --timed | --list] [NAME...]
#
# Without arguments all promises are checked. --untimed leaves out every promise about time, so that a loaded machine cannot
# fail it: that is what .ci/run calls. --timed checks only those; run it on a quiet machine before a release. NAME selects
# promises. ACTBENCH names the binary (default: target/release/actbench). Needs python3 with pip.
#
# A change that adds a promise to README or docs adds it here, or in scripts/acceptance/ where there are several of a kind.
# Each function untimed_NAME or timed_NAME is one promise: its first line states it, and it fails (returns nonzero) if the
# promise does not hold.
set -euo pipefail
cd "$(dirname "$0")/.."
export ACTBENCH=${ACTBENCH:-$PWD/target/release/actbench}

mode=all
names=()
while [ $# -gt 0 ]; do
  case $1 in
    --untimed) mode=untimed ;;
    --timed) mode=timed ;;
    --list) mode=list ;;
    -*) echo "error: unknown argument '$1'; see the head of $0" >&2; exit 2 ;;
    *) names+=("$1") ;;
  esac
  shift
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# The small real model, downloaded once.
model() {
  scripts/get_smollm2.sh target/smollm2 >&2
  echo target/smollm2
}

# A JSON file's value: value FILE EXPRESSION, where `d` is the document.
value() {
  python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"
}

# Fails unless the Python expression is true: holds FILE EXPRESSION.
holds() {
  python3 - "$1" "$2" <<'PYTHON'
import json
import sys

d = json.load(open(sys.argv[1]))
rows = d.get("rows", [])


def of(task, method):
    found = [row for row in rows if row["task"] == task and row["method"] == method]
    assert found, f"no row {task} {method}"
    return found


if not eval(sys.argv[2]):
    for row in rows:
        print(row["task"], row["method"], row["status"], row["elapsed_s"], row["cpu_peak_rss_mb"], row["extra"].get("feature_digest"))
    sys.exit(f"does not hold: {sys.argv[2]}")
PYTHON
}

# Fails unless a command ends with the status: status EXPECTED COMMAND... Its output goes to $work/out and $work/err.
status() {
  local expected=$1 got=0
  shift
  "$@" >"$work/out" 2>"$work/err" || got=$?
  [ $got = "$expected" ] || { echo "status $got instead of $expected: $*"; tail -5 "$work/err"; return 1; }
}

# One repetition of every method on the real model and 120 dialogues, shared by several promises.
real_run() {
  if [ ! -f "$work/real.json" ]; then
    "$ACTBENCH" run --model "$(model)" --samples 120 --layer 12 --sweep-layers 16 --methods eager,lazy,lazy-disk \
      --repetitions 1 --warmup 0 --output "$work/real.json" >&2
  fi
  echo "$work/real.json"
}

# ---- promises that time nothing ------------------------------------------------------------------------------------------

untimed_embedded_run() { : "'actbench run' without arguments completes offline: every column, equal digests, AUROC above 0.8"
  HF_HUB_OFFLINE=1 scripts/check_embedded.sh
}

untimed_equal_digests() { : "eager, lazy and lazy-disk give bit-identical features on a real model"
  holds "$(real_run)" 'all(len({row["extra"]["feature_digest"] for row in rows if row["task"] == task}) == 1 for task in ["train", "sweep"]) and len(rows) == 6 and all(row["status"] == "ok" for row in rows)'
}

untimed_rules_keep_bits() { : "no optimizer rule changes a bit of the features"
  local rule
  for rule in depth packing mask tail pooling prefix layers batch all; do
    "$ACTBENCH" run --samples 60 --tasks train --methods lazy --no-opt $rule --repetitions 1 --warmup 0 --quiet \
      --output "$work/rule-$rule.json" >"$work/rule.log" 2>&1 || { cat "$work/rule.log"; return 1; }
    value "$work/rule-$rule.json" 'd["rows"][0]["extra"]["feature_digest"]' >>"$work/rule-digests"
  done
  [ "$(sort -u "$work/rule-digests" | wc -l)" = 1 ]
}

untimed_computed_tokens() { : "prefix sharing and packing: lazy computes at most 62 % of the embedded data's tokens, and no padding"
  "$ACTBENCH" run --tasks train --methods eager,lazy --repetitions 1 --warmup 0 --output "$work/tokens.json" >"$work/tokens.log" 2>&1
  holds "$work/tokens.json" 'of("train", "lazy")[0]["extra"]["tokens_computed"] <= 0.62 * of("train", "lazy")[0]["extra"]["tokens_total"] and of("train", "eager")[0]["extra"]["tokens_computed"] > of("train", "eager")[0]["extra"]["tokens_total"]'
}

untimed_memory() { : "lazy's peak RSS in a sweep of 120 samples is at most 70 % of eager's on a real model (README's example of 600: a quarter)"
  holds "$(real_run)" 'of("sweep", "lazy")[0]["cpu_peak_rss_mb"] <= 0.7 * of("sweep", "eager")[0]["cpu_peak_rss_mb"] and of("sweep", "lazy-disk")[0]["cpu_peak_rss_mb"] <= 0.7 * of("sweep", "eager")[0]["cpu_peak_rss_mb"]'
}

untimed_memory_limit() { : "a case over --memory-limit becomes an oom row, and the run continues with the other methods"
  status 1 "$ACTBENCH" run --tasks sweep --methods eager,lazy --samples 4000 --memory-limit 400MiB --repetitions 1 --warmup 0 \
    --output "$work/limit.json"
  holds "$work/limit.json" 'of("sweep", "eager")[0]["status"] == "oom" and of("sweep", "lazy")[0]["status"] == "ok"'
}

untimed_plan_without_weights() { : "'plan' and 'explain' need no weights and no network"
  HF_HUB_OFFLINE=1 "$ACTBENCH" plan --model Llama-3.1-8B-Instruct --samples 100 --layers 24 --seq-len 256 --json >"$work/plan.json"
  HF_HUB_OFFLINE=1 "$ACTBENCH" explain >"$work/explain.txt"
  [ -s "$work/plan.json" ]
  [ -s "$work/explain.txt" ]
}

untimed_families() { : "a model of each published shape of README's families is explained without weights"
  local name
  for name in $("$ACTBENCH" models --json | grep -oP '"name": "\Ksynthetic:[^"]+'); do
    "$ACTBENCH" explain --model "$name" --samples 20 --layer 1 --quiet >"$work/explain.txt"
    [ -s "$work/explain.txt" ]
  done
  [ "$("$ACTBENCH" models --json | grep -oP '"family": "\K[^"]+' | sort -u | wc -l)" -ge 14 ]
}

untimed_less_work() { : "the rule 'tail' leaves out tokens behind the last pooled one, and both sides of the split are one pass"
  "$ACTBENCH" explain --mask content --tasks train --layer 1 --quiet >"$work/explain.txt"
  grep -q 'both sides in one pass' "$work/explain.txt"
  awk '/^with these rules/ { gsub(",", ""); with = $4 } /^without tail/ { gsub(",", ""); without = $3 } END { exit !(with > 0 && with < without) }' \
    "$work/explain.txt"
}

untimed_shards() { : "shards of one extraction, joined, are byte for byte the file of one process"
  local flags=(--model "$(model)" --samples 24 --layer 1 --quiet) task
  "$ACTBENCH" cache "${flags[@]}" --out "$work/whole.safetensors" >/dev/null
  for task in 2 0 1; do
    SLURM_ARRAY_TASK_ID=$task "$ACTBENCH" cache "${flags[@]}" --shard auto/3 --out "$work/shards" >/dev/null
  done
  "$ACTBENCH" cache --merge "$work/shards" --out "$work/joined.safetensors" --quiet >/dev/null
  cmp "$work/whole.safetensors" "$work/joined.safetensors"
}

untimed_phases() { : "a result file and the report say where the time of a case's process went, the release of the model included"
  "$ACTBENCH" run --samples 40 --repetitions 1 --tasks train --methods lazy --quiet --output "$work/phases.json" >"$work/phases.txt"
  grep -q '"release_s"' "$work/phases.json"
  grep -q '"warm_up_s"' "$work/phases.json"
  "$ACTBENCH" report "$work/phases.json" --out "$work/phases" >/dev/null 2>&1
  grep -rqi 'warm-up' "$work/phases"
}

untimed_exit_statuses() { : "exit status 2 for bad usage and for bad input, with one line that names the cause"
  status 2 "$ACTBENCH" run --samples banana
  grep -q banana "$work/err"
  status 2 "$ACTBENCH" run --dataset no-such-file.jsonl
  grep -q no-such-file.jsonl "$work/err"
}

untimed_documented_commands() { : "every actbench command that README or docs name exists, and README has at most 150 lines"
  [ "$(wc -l <README.md)" -le 150 ]
  local name
  for name in $(grep -hoP '(?<![/\w-])actbench \K[a-z]+\b' README.md docs/*.md CONTRIBUTING.md METHODOLOGY.md | sort -u); do
    case $name in
      # Words that follow the product's name in a sentence.
      runs | is | reads | answers | with | and | on | alone | in | to | measures | has | names | was | gives | does | slower | faster) ;;
      *) "$ACTBENCH" "$name" --help >/dev/null 2>&1 || { echo "documented, but not a command: actbench $name"; return 1; } ;;
    esac
  done
}

untimed_report() { : "a report is a function of its result files, and its page works in a browser without any request"
  local run
  for run in 1 2; do "$ACTBENCH" report "$(real_run)" --out "$work/report-$run" >/dev/null 2>&1; done
  diff -r "$work/report-1" "$work/report-2"
  scripts/check_report.sh
}

untimed_cache_in_python() { : "Python reads files of cache and features bit by bit, each sample leads back to its row, and layer N is the one that the docs name (where torch is installed)"
  scripts/check_cache.sh
}

untimed_gate_error_rates() { : "the gate's false-alarm rate and power on recorded noise are within the documented bounds"
  scripts/selftest.sh
}

untimed_gate_against_a_copy() { : "a binary and a fresh copy of it, cached or evicted, allocate the same memory in the gate"
  local state base head
  printf 'args = ["--samples", "60", "--threads", "1"]\n[[case]]\nname = "a"\ntask = "train"\nmethod = "lazy"\n' >"$work/copy.toml"
  for state in cached evicted; do
    cp "$ACTBENCH" "$work/copy-$state"
    sync "$work/copy-$state"
    [ $state = cached ] || dd if="$work/copy-$state" iflag=nocache count=0 status=none
    for base in "$ACTBENCH" "$work/copy-$state"; do
      head=$ACTBENCH
      [ "$base" != "$ACTBENCH" ] || head=$work/copy-$state
      "$ACTBENCH" gate --base-bin "$base" --head-bin "$head" --suite "$work/copy.toml" --quiet --output "$work/copy.json" \
        --metrics peak-anonymous,peak-heap,auroc,feature-digest
    done
  done
}

# ---- promises about time -------------------------------------------------------------------------------------------------

timed_first_command() { : "'actbench run' without arguments ends within 60 s on two cores, and states its precision"
  local start=$SECONDS
  "$ACTBENCH" run --output "$work/first.json" >"$work/first.log" 2>&1
  echo "took $((SECONDS - start)) s"
  grep -E "precision of the time ratios" "$work/first.log"
  [ $((SECONDS - start)) -le 60 ]
}

timed_lazy_is_faster() { : "on data of the shape of repe lazy is at least 2x faster than eager with SmolLM2 (README's example: 3.5x)"
  # Each statement appears under two system prompts, which is what prefix sharing gains from; the statements are synthetic.
  mkdir -p "$work/data/repe"
  python3 - >"$work/data/repe/true_false_facts.csv" <<'PYTHON'
places = ["Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Turin", "Perth", "Kyoto", "Dakar", "Sofia", "Malmo", "Davao"]
facts = ["lies on a river", "has a harbor", "was founded long ago", "is larger than a village", "has a railway station"]
years = [1850, 1900, 1950]
print("statement,label")
for place in places:
    for fact in facts:
        for year in years:
            print(f"The city of {place} {fact} and was already known in the year {year}.,1")
PYTHON
  "$ACTBENCH" run --model "$(model)" --dataset repe --data-dir "$work/data" --samples 300 --layer 12 --sweep-layers 16 \
    --methods eager,lazy --repetitions 6 --output "$work/faster.json" >"$work/faster.log" 2>&1
  tail -4 "$work/faster.log"
  holds "$work/faster.json" 'min(d["summary"][task]["speedup_lazy_vs_eager"] for task in ["train", "sweep"]) >= 2.0'
}

timed_gate_against_itself() { : "the gate never reports a regression of a binary against itself"
  local status=0
  "$ACTBENCH" gate --base-bin "$ACTBENCH" --head-bin "$ACTBENCH" --output "$work/gate.json" >"$work/gate.log" 2>&1 || status=$?
  tail -5 "$work/gate.log"
  # 3 is "inconclusive": a noisy machine may give it, a regression may not be reported.
  [ $status = 0 ] || [ $status = 3 ]
}

timed_interrupt() { : "a run ends within a second of Ctrl-C and of SIGTERM, and leaves no child process behind"
  local signal process worker workers got start took
  for signal in INT TERM; do
    got=0
    "$ACTBENCH" run --output "$work/interrupt-$signal.json" >"$work/interrupt.log" 2>&1 &
    process=$!
    sleep 5
    # Fails if there is no worker: then nothing would be interrupted.
    workers=$(pgrep -P "$process")
    start=$(date +%s%N)
    kill -"$signal" "$process"
    wait "$process" || got=$?
    took=$((($(date +%s%N) - start) / 1000000))
    echo "$signal: status $got after $took ms"
    [ $took -le 1000 ]
    [ "$got" = 130 ]
    for worker in $workers; do
      if kill -0 "$worker" 2>/dev/null; then
        echo "left behind: process $worker"
        return 1
      fi
    done
  done
}

# --------------------------------------------------------------------------------------------------------------------------

source scripts/acceptance/untrusted.sh

all=$(declare -F | awk '{print $3}' | grep -E '^(untimed|timed)_')
statement() { declare -f "$1" | sed -n 's/^ *: "\(.*\)";\{0,1\}$/\1/p' | head -1; }

failed=0 passed=0
for promise in $all; do
  kind=${promise%%_*} name=${promise#*_}
  if [ $mode = list ]; then
    printf '%-24s %-8s %s\n' "$name" "$kind" "$(statement "$promise")"
    continue
  fi
  [ $mode = all ] || [ $mode = "$kind" ] || continue
  [ ${#names[@]} = 0 ] || [[ " ${names[*]} " == *" $name "* ]] || continue
  start=$SECONDS
  # In a subshell with `set -e` on, so that any failing command fails the promise.
  set +e
  (set -e; "$promise") >"$work/log" 2>&1
  status=$?
  set -e
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    printf 'holds   %-24s %4ss  %s\n' "$name" $((SECONDS - start)) "$(statement "$promise")"
  else
    failed=$((failed + 1))
    printf 'BROKEN  %-24s %4ss  %s\n' "$name" $((SECONDS - start)) "$(statement "$promise")"
    sed 's/^/        /' "$work/log" | tail -30
  fi
done
[ $mode = list ] && exit 0
printf '%s promises hold, %s broken\n' "$passed" "$failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
