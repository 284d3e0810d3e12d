#!/usr/bin/env bash
# Divides one extraction among the tasks of a real Slurm on this machine, loses some of them, runs those again, and compares the
# joined file with that of one process.
#
#   scripts/check_slurm.sh
#
# Slurm's daemons run in the foreground of this script with four virtual nodes and files in a temporary directory; nothing of
# a Slurm that is installed here is read or changed. ACTBENCH names the binary (default: target/release/actbench). Needs root,
# because slurmd does, and Debian's packages slurm-wlm and munge.
set -euo pipefail
cd "$(dirname "$0")/.."
actbench=${ACTBENCH:-$PWD/target/release/actbench}
for program in munged slurmctld slurmd sbatch "$actbench"; do
  command -v "$program" >/dev/null || { echo "error: $program is missing; install slurm-wlm and munge" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "error: slurmd needs root" >&2; exit 2; }

nodes='n1 n2 n3 n4'
work=$(mktemp -d)
export SLURM_CONF=$work/slurm.conf
daemons=()
cleanup() {
  scancel --user=root --signal=KILL 2>/dev/null || true
  kill "${daemons[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
  echo "error: $1" >&2
  tail -n 20 "$work"/*.log "$work"/*.out >&2 || true
  exit 1
}

# until SECONDS COMMAND...: waits for the command to succeed.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || fail "waited in vain for: $*"
    sleep 0.2
  done
}

start_daemon() {
  "$@" >>"$work/daemons.log" 2>&1 &
  daemons+=($!)
}

host=$(hostname -s)
mkdir "$work/state" $(printf "$work/%s " $nodes)
head -c 1024 /dev/urandom >"$work/munge.key"
chmod 400 "$work/munge.key"
# A directory below /tmp is writable by others for munged, hence --force.
start_daemon munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" \
  --pid-file="$work/munge.pid" --log-file="$work/munge.log" --seed-file="$work/munge.seed"
cat >"$SLURM_CONF" <<CONF
ClusterName=actbench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=17817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=2
JobRequeue=1
AccountingStorageType=accounting_storage/none
NodeName=n[1-4] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17901-17904] CPUs=1
PartitionName=main Nodes=n[1-4] Default=YES State=UP
CONF
until_true 10 test -S "$work/munge.socket"
start_daemon slurmctld -D -c
declare -A slurmd
for node in $nodes; do
  start_daemon slurmd -D -N "$node"
  slurmd[$node]=${daemons[-1]}
done
all_idle() { [ "$(sinfo --noheader --Node --format=%T 2>/dev/null | grep -c '^idle$')" = 4 ]; }
until_true 30 all_idle

# Many small batches, so that a task can be met in the middle of its work.
flags=(--samples 2400 --sweep-layers 4 --batch-size 1 --threads 1 --quiet)
cat >"$work/task.sh" <<TASK
#!/bin/bash
exec "$actbench" cache ${flags[@]} --shard auto/8 --out "$work/shards"
TASK
shard() { printf '%s' "$work/shards/shard-$(($1 + 1))-of-8.safetensors"; }
queue_is_empty() { [ -z "$(squeue --noheader)" ]; }
state_of() { squeue --noheader --array --format='%i %T %N' --job "$1" 2>/dev/null; }
submit() { sbatch --parsable --output="$work/task-%a.out" "$@" "$work/task.sh"; }

job=$(submit --array=0-7)
is_running() { state_of "${job}_$1" | grep -q RUNNING; }
# Task 2 is killed in the middle, as by an operator or a time limit.
until_true 60 is_running 2
until_true 60 test -e "$work/shards/.shard-3-of-8.safetensors.partial"
scancel --signal=KILL --full "${job}_2"
# The daemon of a running task's node is lost. The task may end by itself, or Slurm runs it again on another node.
until_true 60 is_running 3
lost=$(state_of "${job}_3" | awk '{print $3}')
kill -KILL "${slurmd[$lost]}"
pkill -KILL -f "slurmstepd: \[${job}\..*" || true
echo "the daemon of node $lost is lost"
until_true 180 queue_is_empty

missing=()
for task in 0 1 2 3 4 5 6 7; do
  [ -e "$(shard $task)" ] || missing+=("$task")
done
echo "shards missing after the first array: ${missing[*]:-none}"
[ ${#missing[@]} -gt 0 ] || fail 'the killed task is not missing'
if "$actbench" cache --merge "$work/shards" --out "$work/early" --quiet 2>"$work/early.out"; then
  fail 'an incomplete set was joined'
fi
cat "$work/early.out"
submit --array="$(IFS=,; echo "${missing[*]}")" >/dev/null
until_true 120 queue_is_empty
"$actbench" cache --merge "$work/shards" --out "$work/joined" --quiet || fail 'the shards cannot be joined'
"$actbench" cache "${flags[@]}" --out "$work/whole"
cmp "$work/joined" "$work/whole" || fail 'the joined file has other bytes'
echo "8 shards of a Slurm array, joined, are the file of one process"
