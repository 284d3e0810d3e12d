#!/usr/bin/env python3
"""Runs actbench's work with transformers and torch, compares the features, and prints both times.

The peer is the code that a careful user of transformers would write: the base model without its LM head and without
the blocks after the deepest requested layer, right-padded batches with an attention mask, forward hooks on the requested
blocks, pooling of each batch in float32, and scikit-learn's logistic regression as the probe.

Samples, token ids, mask and split are not derived again. They come from `actbench features` (scripts/features_file.py
defines its file), together with actbench's pooled features and their extraction time. This script runs that command once
per task with its own flags, or reads existing files (--features).

The comparison works layer by layer on `a`, our features, and `b`, the reference, both `[n, h]`:
- `||a - b|| / ||b||` over the whole layer is at most 2e-2 in bf16 and fp16 and 1e-4 in fp32 (the worst layer counts);
- the same for every sample alone is at most 3 times that. The first number would hide one entirely wrong sample of 600,
  for example one swapped with its neighbor;
- neither may be NaN.

In fp32 `b` is the peer. In 16-bit types the peer rounds as often as actbench, and two such results differ by about
sqrt(2) times the error of either one, which does not measure our error. There `b` is a reference: the peer in float32
(TF32 off) on the same 16-bit weights. The peer's 16-bit features are compared with it as well, and our error over a
layer may be at most 1.1 times theirs. The difference between the two sides is printed and not judged.

The time runs from token ids in memory to pooled features in memory, on both sides; theirs after one warm-up batch.
Loading, tokenizing and transfer between the processes are excluded. Run this alone on the machine. One run of each side
is not a measurement, because times vary between runs. `--bench 5` measures in five blocks (scripts/peer_bench.py), and also
measures compiled and packed variants of the peer (scripts/peer_variants.py).

Examples:
    python scripts/peer_hf.py --model smollm2 --dataset repe --data-dir data --tasks train,sweep
    python scripts/peer_hf.py --model smollm2 --dataset repe --data-dir data --check-tokens
    python scripts/peer_hf.py --model smollm2 --dataset repe --data-dir data --bench 5 --dtype fp32
    actbench features --tasks train --model smollm2 --dataset repe --data-dir data --out train.safetensors
    python scripts/peer_hf.py --model smollm2 --tasks train --features train.safetensors

Exit status: 0 the features agree, 1 they or the tokens differ, 2 bad usage or input. requirements.txt lists the needed
packages. Without scikit-learn, probes are left out and the rest works.
"""

import argparse
import contextlib
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from features_file import POOLS, FeaturesError, load_features
from hf_model import Peer, UsageError
from peer_bench import Bench
from peer_checks import HAS_PROBES, TOLERANCE, check_tokens, judge, probe_or_not, relative_errors
from peer_variants import VARIANTS

try:
    from threadpoolctl import threadpool_limits
except ImportError:
    # Comes with scikit-learn and limits what that would use.
    def threadpool_limits(limits=None):
        return contextlib.nullcontext()


REPOSITORY = Path(__file__).resolve().parent.parent
MOST_COMPLAINTS = 10
DTYPE_NAMES = {name: name for name in TOLERANCE} | {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
COLUMNS = ["task", "side", "extract s", "ratio", "probe s", "AUROC", "AUROC by sklearn"]
COLUMNS += ["layer error", "row error", "verdict"]


def parse_arguments():
    """The command line; names and defaults are those of `actbench run`."""
    parser = argparse.ArgumentParser(
        description="Run actbench's work with transformers and torch, compare the features, print both times.",
        epilog="Exit status: 0 the features agree, 1 they do not, 2 bad usage or input. See the head of the script.",
    )
    work = parser.add_argument_group("the work (as in actbench run)")
    work.add_argument("--model", required=True, metavar="DIR", help="a Hugging Face model directory, or a .gguf file")
    work.add_argument("--dataset", default="repe", help="handed to actbench (default: repe)")
    work.add_argument(
        "--data-dir", metavar="DIR", help="where local copies of data sets are; --check-tokens reads it too"
    )
    work.add_argument("--samples", type=int, default=600, help="default: 600")
    work.add_argument("--train-frac", type=float, default=0.8, help="default: 0.8")
    work.add_argument("--seed", type=int, default=0, help="default: 0")
    work.add_argument("--batch-size", type=int, default=8, help="rows in a padded batch of the peer (default: 8)")
    work.add_argument("--pool", default="mean", choices=POOLS, help="default: mean")
    work.add_argument("--layer", type=int, default=12, help="layer of the train task (default: 12)")
    work.add_argument("--sweep-layers", type=int, default=16, metavar="N", help="sweep layers 0 to N-1 (default: 16)")
    work.add_argument("--sweep-cs", default="0.1,1.0,10.0", metavar="C,C,...", help="default: 0.1,1.0,10.0")
    work.add_argument("--train-c", type=float, default=1.0, metavar="C", help="default: 1.0")
    work.add_argument("--train-max-iter", type=int, default=100, metavar="N", help="default: 100")
    work.add_argument("--sweep-max-iter", type=int, default=60, metavar="N", help="default: 60")
    work.add_argument("--dtype", default="bf16", choices=sorted(DTYPE_NAMES), help="default: bf16")
    work.add_argument("--tasks", default="train,sweep", help="train, sweep or both (default: train,sweep)")
    work.add_argument("--threads", type=int, metavar="N", help="threads of both sides (default: all cores)")

    ours = parser.add_argument_group("actbench's side")
    ours.add_argument("--actbench", metavar="BINARY", help="default: target/release/actbench, then the PATH")
    ours.add_argument(
        "--actbench-flags",
        default="",
        metavar="'FLAGS'",
        help="more flags for actbench features, as in --actbench-flags='--no-opt all'",
    )
    ours.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of actbench features made before, instead of running it; repeat it for another task",
    )
    ours.add_argument(
        "--results",
        metavar="FILE",
        help="a results.json of actbench run with the same flags: its probe times and AUROCs join the table",
    )

    peer = parser.add_argument_group("the peer")
    peer.add_argument("--device", default="cpu", help="torch device of the peer, such as cpu or cuda (default: cpu)")
    peer.add_argument(
        "--attention", default="sdpa", choices=["sdpa", "eager"], help="attention of transformers (default: sdpa)"
    )
    peer.add_argument(
        "--check-tokens",
        action="store_true",
        help="also render and tokenize the repe rows with transformers' own template and tokenizer, and "
        "require that our token ids, labels and masks are among theirs; needs --data-dir",
    )
    peer.add_argument(
        "--bench",
        type=int,
        metavar="BLOCKS",
        help="time both sides alternately in so many blocks, with intervals, instead of comparing features",
    )
    peer.add_argument(
        "--bench-batch-sizes",
        default="8,32,64",
        metavar="N,N,...",
        help="batch sizes of which the peer's best is looked for (default: 8,32,64)",
    )
    peer.add_argument(
        "--bench-variants",
        default=",".join(VARIANTS),
        metavar="NAME,...",
        help=f"with --bench: faster variants of the peer to time as well, or none (default: {','.join(VARIANTS)})",
    )
    peer.add_argument(
        "--bench-probes",
        action="store_true",
        help="with --bench: time the probes of the sweep alone, both sides on actbench's features",
    )
    arguments = parser.parse_args()

    arguments.dtype = DTYPE_NAMES[arguments.dtype]
    arguments.tasks = list(dict.fromkeys(task.strip() for task in arguments.tasks.split(",")))
    unknown = [task for task in arguments.tasks if task not in ("train", "sweep")]
    if unknown:
        parser.error(f"--tasks: unknown task `{unknown[0]}`; there are train and sweep")
    try:
        arguments.sweep_cs = [float(c) for c in arguments.sweep_cs.split(",")]
    except ValueError:
        parser.error(f"--sweep-cs: `{arguments.sweep_cs}` is not a list of numbers")
    sizes = arguments.bench_batch_sizes.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        parser.error(f"--bench-batch-sizes: `{arguments.bench_batch_sizes}` is not a list of numbers above 0")
    arguments.bench_batch_sizes = [int(size) for size in sizes]
    arguments.bench_variants = [name for name in arguments.bench_variants.split(",") if name != "none"]
    unknown = [name for name in arguments.bench_variants if name not in VARIANTS]
    if unknown:
        parser.error(f"--bench-variants: unknown variant `{unknown[0]}`; there are {', '.join(VARIANTS)} and none")
    if arguments.bench_probes and not (arguments.bench and "sweep" in arguments.tasks and HAS_PROBES):
        parser.error("--bench-probes needs --bench, the task sweep and scikit-learn")
    for name in ("samples", "batch_size", "sweep_layers"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if arguments.layer < 0:
        parser.error("--layer must be at least 0")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error("--threads must be at least 1")
    if arguments.check_tokens and arguments.data_dir is None:
        parser.error("--check-tokens needs --data-dir, the directory that holds repe/true_false_facts.csv")
    return arguments


def layers_of_task(task, arguments):
    """Layer ids that a task needs, increasing."""
    return [arguments.layer] if task == "train" else list(range(arguments.sweep_layers))


def find_actbench(arguments):
    """Path of the binary: as given, the workspace's release build, or the one on the PATH."""
    if arguments.actbench:
        if not Path(arguments.actbench).is_file():
            raise UsageError(f"--actbench {arguments.actbench}: no such file")
        return arguments.actbench
    built = REPOSITORY / "target" / "release" / "actbench"
    found = str(built) if built.is_file() else shutil.which("actbench")
    if found is None:
        raise UsageError(
            "there is no actbench: build it with `cargo build --release`, or give --actbench or --features"
        )
    return found


def settings_flags(arguments, layers=("layer", "sweep_layers")):
    """What is run, as flags of actbench; the batch size apart. `layers` are the flags of the layers to pass."""
    flags = []
    for name in ("model", "dataset", "samples", "train_frac", "seed", "pool", *layers, "dtype"):
        flags += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
    for name in ("data_dir", "threads"):
        if getattr(arguments, name) is not None:
            flags += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
    return flags + arguments.actbench_flags.split()


def run_actbench_features(task, arguments, out):
    """Runs `actbench features` for one task and reads its file."""
    command = [find_actbench(arguments), "features", "--out", str(out), "--tasks", task]
    # One flag for the layers: `features` refuses two that select different ones.
    layers = ("layer",) if task == "train" else ("sweep_layers",)
    command += [*settings_flags(arguments, layers), "--batch-size", str(arguments.batch_size)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        raise UsageError(f"`{' '.join(command)}` ended with status {status}")
    return load_features(out)


def features_for(task, arguments, given, directory):
    """The features file of a task: one of those given, or a new one."""
    wanted = layers_of_task(task, arguments)
    if not given:
        features = run_actbench_features(task, arguments, Path(directory) / f"{task}.safetensors")
        given = [features]
    fitting = [features for features in given if set(wanted) <= set(features.layer_ids.tolist())]
    if not fitting:
        raise UsageError(f"no features file has layer(s) {wanted[0]} to {wanted[-1]}, which {task} needs")
    # The one with the fewest layers besides: its extract_s is closest to the task's own.
    features = min(fitting, key=lambda features: len(features.layer_ids))
    if len(features.layer_ids) > len(wanted):
        extra = len(features.layer_ids) - len(wanted)
        print(
            f"note: our extract time for {task} includes {extra} layer(s) that the task does not need", file=sys.stderr
        )
    for name in ("pool", "dtype"):
        if getattr(features, name) != getattr(arguments, name):
            raise UsageError(
                f"the features file was made with --{name} {getattr(features, name)}, not {getattr(arguments, name)}"
            )
    return features


def results_of(arguments):
    """`{task: {train_eval_s, metric_value}}` from a results.json: medians over the repetitions of the lazy method."""
    if arguments.results is None:
        return {}
    try:
        rows = json.loads(Path(arguments.results).read_text())["rows"]
        found = {}
        for task in arguments.tasks:
            ok = [row for row in rows if (row["task"], row["method"], row["status"]) == (task, "lazy", "ok")]
            if not ok:
                raise UsageError(f"{arguments.results}: no row of {task} with method lazy is ok")
            found[task] = {
                name: statistics.median(row[name] for row in ok) for name in ("train_eval_s", "metric_value")
            }
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{arguments.results}: not a result file of actbench run ({error!r})") from None


def table(rows):
    """Rows of strings as aligned text; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        # The first two columns are names, the others numbers.
        cells = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def compare_task(task, features, peer, reference, arguments, result):
    """One task on both sides: `(rows of the table, lines below it, complaint or None)`."""
    layer_ids = layers_of_task(task, arguments)
    ours = features.layers(layer_ids)
    theirs, seconds = peer.extract(features, layer_ids)
    if ours.shape != theirs.shape:
        raise UsageError(f"our features are {ours.shape}, theirs {theirs.shape}: not the same model")
    exact, exact_seconds = reference.extract(features, layer_ids) if reference else (None, 0.0)

    errors, their_errors, complaint = judge(ours, theirs, exact, arguments.dtype)
    their_auroc, their_probe_s = probe_or_not(task, theirs, features, arguments)
    our_auroc, _ = probe_or_not(task, ours, features, arguments)
    our_row = [task, "actbench", f"{features.extract_s:.3f}", f"{seconds / max(features.extract_s, 1e-9):.2f}x"]
    our_row += [f"{result['train_eval_s']:.3f}", f"{result['metric_value']:.4f}"] if result else ["-", "-"]
    our_row += [our_auroc, f"{errors[0]:.1e}", f"{errors[1]:.1e}", "DIFFER" if complaint else "agree"]
    their_row = ["", "transformers", f"{seconds:.3f}", "1", their_probe_s, "", their_auroc]
    rows, lines = [our_row, [*their_row, "", "", ""]], []
    if reference:
        rows[1] = [*their_row, f"{their_errors[0]:.1e}", f"{their_errors[1]:.1e}", ""]
        rows.append(["", "the same in fp32", f"{exact_seconds:.3f}", "", "-", "", "-", "reference", "", ""])
        apart = relative_errors(ours, theirs)
        lines.append(
            f"{task}: relative error of a layer against float32: actbench {errors[0]:.3e}, transformers "
            f"{their_errors[0]:.3e}, {errors[0] / max(their_errors[0], 1e-30):.3f} times theirs; the two are apart by "
            f"{apart[0]:.3e} of a layer and {apart[1]:.3e} of a row (not judged)"
        )
    return rows, lines, f"{task}: {complaint}" if complaint else None


def run(arguments):
    """Runs everything and returns the exit status."""
    given = [load_features(path) for path in arguments.features]
    results = results_of(arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    if arguments.bench:
        return run_bench(arguments)
    # Float32 is to be float32 on any device, above all where it is the reference.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    rows, lines, complaints, peer, reference = [COLUMNS], [], [], None, None
    with tempfile.TemporaryDirectory() as directory:
        for task in arguments.tasks:
            features = features_for(task, arguments, given, directory)
            if peer is None:
                if arguments.check_tokens:
                    complaints += check_tokens(features, arguments)
                deepest = max(layers_of_task(each, arguments)[-1] for each in arguments.tasks)
                peer = Peer(arguments, deepest)
                reference = Peer(arguments, deepest, is_reference=True) if arguments.dtype != "fp32" else None
            more_rows, more_lines, complaint = compare_task(
                task, features, peer, reference, arguments, results.get(task)
            )
            rows += more_rows
            lines += more_lines
            complaints += [complaint] if complaint else []

    print(
        f"{arguments.model}, {arguments.dtype}, {len(features)} rows, {len(features.tokens)} tokens, "
        f"pool {arguments.pool}; peer: transformers {transformers.__version__}, torch {torch.__version__}, "
        f"{arguments.device}, {torch.get_num_threads()} threads, batch size {arguments.batch_size}, "
        f"{arguments.attention}"
    )
    print("\n".join([table(rows), *lines]))
    if arguments.check_tokens:
        n_wrong = sum(complaint.startswith("row ") for complaint in complaints)
        print(f"tokens, labels and masks: {len(features) - n_wrong} of {len(features)} rows are those of transformers")
    # Linux counts in KiB. One process does all tasks, so this is the peak of the hungriest.
    print(f"peak memory of the peer's process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    sys.stdout.flush()
    for complaint in complaints[:MOST_COMPLAINTS]:
        print(f"peer_hf: {complaint}", file=sys.stderr)
    if len(complaints) > MOST_COMPLAINTS:
        print(f"peer_hf: and {len(complaints) - MOST_COMPLAINTS} more", file=sys.stderr)
    return 1 if complaints else 0


def run_bench(arguments):
    """Times both sides alternately; the tokens are those of a run of actbench."""
    with tempfile.TemporaryDirectory() as directory:
        task = "sweep" if arguments.bench_probes else "train"
        features = run_actbench_features(task, arguments, Path(directory) / f"{task}.safetensors")
    deepest = max(layers_of_task(each, arguments)[-1] for each in arguments.tasks)
    peer = None if arguments.bench_probes else Peer(arguments, deepest)
    print(
        f"{arguments.model}, {arguments.dtype}, {len(features)} rows, {len(features.tokens)} tokens; peer: transformers "
        f"{transformers.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{arguments.attention}",
        flush=True,
    )
    program = find_actbench(arguments)
    cs = ",".join(str(c) for c in arguments.sweep_cs)
    probes = ["--train-c", str(arguments.train_c), "--train-max-iter", str(arguments.train_max_iter)]
    probes += ["--sweep-cs", cs, "--sweep-max-iter", str(arguments.sweep_max_iter)]
    Bench(arguments, peer, features, settings_flags(arguments) + probes, program).run()
    return 0


def main():
    arguments = parse_arguments()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        with threadpool_limits(limits=arguments.threads):
            return run(arguments)
    except (UsageError, FeaturesError) as error:
        print(f"peer_hf: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
