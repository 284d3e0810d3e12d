#!/usr/bin/env python3
"""Times other CPU engines on actbench's work, in shuffled blocks with actbench itself, after checking their features.

The work is that of `actbench run --tasks train`: the residual after one block, averaged over the masked tokens of each
row. Engines, each with and without prefix reuse:

- openvino: a plain forward pass (scripts/engine_decoder.py) converted for OpenVINO, with two streams and with one;
- compiled: the same forward pass by torch.compile, warm;
- sorted: transformers on rows sorted by length; the shared prefix is a DynamicCache, expanded to each batch;
- llama.cpp: scripts/engine_llama.cpp against a build of llama.cpp (--llama-cpp).

Rows, token ids and mask are those of `actbench features`. Before anything is timed, each variant runs the whole work
once per batch size, and its features are compared with transformers in float32 on the same weights: at most 2e-2 of the
layer in bf16 and 1e-3 in fp32, three times that of a row, never NaN. actbench's features are compared alike. A variant
that fails is not timed, and the exit status is 1. An engine that cannot run is skipped, and the reason is printed.

The time runs from token ids in memory to pooled features in memory, on both sides. It includes sorting, padding and
the pass over each prefix. It excludes loading, converting, compiling and tokenizing. Engines run warm, in one process.
actbench starts a new process for each observation, and `extract_s` of its result file is taken. A ratio is time of the
engine / time of actbench within one block: above 1, actbench is faster. The interval is that of scripts/peer_bench.py.

Tokenizing is timed apart, once a block on both sides: transformers' fast tokenizer on the texts of the rows in one
call; and the phase `prepare_s` of actbench with all rows minus that with few rows. actbench's also renders the chat
template, makes the masks and splits the rows.

Run this alone on the machine; the load average of every block is printed.

Examples:
    python scripts/peer_engines.py --model smollm2 --dataset repe --data-dir data --bench 7
    python scripts/peer_engines.py --model smollm2 --dataset repe --data-dir data --dtype fp32 --bench 7
    python scripts/peer_engines.py --model smollm2 --dataset repe --data-dir data --bench 7 --llama-cpp ~/llama.cpp

Exit status: 0 all that ran agree, 1 some features differ, 2 bad usage or input. requirements-engines.txt lists the
packages in addition to those of requirements.txt.
"""

import argparse
import contextlib
import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import engine_llama
import engine_runs
import torch
import transformers
from engine_bench import EngineBench
from engine_rows import Rows
from features_file import FeaturesError
from hf_model import Peer, UsageError
from peer_checks import ROW_FACTOR, relative_errors
from peer_hf import DTYPE_NAMES, find_actbench, run_actbench_features, settings_flags

# Of `||a - b|| / ||b||` over the layer, to transformers in float32. Looser in fp32 than peer_hf.py: attention of
# llama.cpp rounds to 16 bits there.
TOLERANCE = {"bf16": 2e-2, "fp32": 1e-3}
ENGINES = {
    "openvino": engine_runs.start_openvino,
    "compiled": engine_runs.start_compiled,
    "sorted": engine_runs.start_sorted,
    "llama.cpp": engine_llama.start,
}


def parse_arguments():
    """The command line; names and defaults are those of `actbench run`."""
    parser = argparse.ArgumentParser(
        description="Time other CPU engines on actbench's work, after checking their features.",
        epilog="Exit status: 0 all that ran agree, 1 some features differ, 2 bad usage. See the head of the script.",
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="a Hugging Face model directory")
    parser.add_argument("--dataset", default="repe", help="passed to actbench (default: repe)")
    parser.add_argument("--data-dir", metavar="DIR", help="directory with local copies of data sets")
    parser.add_argument("--samples", type=int, default=600, help="default: 600")
    parser.add_argument("--train-frac", type=float, default=0.8, help="default: 0.8")
    parser.add_argument("--seed", type=int, default=0, help="also of the order within blocks (default: 0)")
    parser.add_argument("--batch-size", type=int, default=8, help="of actbench (default: 8)")
    parser.add_argument("--layer", type=int, default=12, help="default: 12")
    parser.add_argument("--dtype", default="bf16", help="bf16 or fp32, of both sides (default: bf16)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of both sides (default: all cores)")
    parser.add_argument("--bench", type=int, metavar="BLOCKS", help="time in so many blocks (default: check only)")
    parser.add_argument(
        "--engines", default=",".join(ENGINES), metavar="NAME,...", help=f"default: {','.join(ENGINES)}"
    )
    parser.add_argument(
        "--engine-batch-sizes",
        default="32,64",
        metavar="N,N,...",
        help="each variant runs with the fastest of these (default: 32,64)",
    )
    parser.add_argument("--llama-cpp", metavar="DIR", help="llama.cpp's source directory, built into DIR/build")
    parser.add_argument("--actbench", metavar="BINARY", help="default: target/release/actbench, then the PATH")
    parser.add_argument(
        "--actbench-flags", default="", metavar="'FLAGS'", help="more flags, as in --actbench-flags='--mask content'"
    )
    arguments = parser.parse_args()

    arguments.dtype = DTYPE_NAMES.get(arguments.dtype)
    if arguments.dtype not in TOLERANCE:
        parser.error("--dtype: there are bf16 and fp32")
    arguments.engines = list(dict.fromkeys(name.strip() for name in arguments.engines.split(",")))
    unknown = [name for name in arguments.engines if name not in ENGINES]
    if unknown:
        parser.error(f"--engines: unknown engine `{unknown[0]}`; there are {', '.join(ENGINES)}")
    sizes = arguments.engine_batch_sizes.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        parser.error(f"--engine-batch-sizes: `{arguments.engine_batch_sizes}` is not a list of numbers above 0")
    arguments.engine_batch_sizes = [int(size) for size in sizes]
    for name in ("samples", "batch_size", "threads", "bench"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    # Of the functions shared with peer_hf.py. One layer is kept as a mean over the masked tokens.
    arguments.pool, arguments.device, arguments.attention = "mean", "cpu", "sdpa"
    arguments.threads = arguments.threads or len(os.sched_getaffinity(0))
    return arguments


def first_line(error):
    """A reason in one line: the kind of the error and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def complaint_of(pooled, reference, dtype):
    """What is wrong with features `[n, 1, h]`, or None, and their errors of the layer and of the worst row."""
    if pooled.shape != reference.shape:
        return f"features have shape {pooled.shape}, not {reference.shape}", ""
    layer, row = relative_errors(pooled, reference)
    errors = f"{layer:.2e} of the layer, {row:.2e} of a row"
    # Written so that NaN is a failure.
    if layer <= TOLERANCE[dtype] and row <= ROW_FACTOR * TOLERANCE[dtype]:
        return None, errors
    return f"differs from transformers in float32: {errors} (at most {TOLERANCE[dtype]:.0e})", errors


def started(arguments, setting, directory):
    """Variants of the engines that can run; the others are printed with the reason."""
    variants = []
    for name in arguments.engines:
        try:
            start = ENGINES[name]
            extra = (arguments, directory) if name == "llama.cpp" else ()
            variants += start(setting, *extra)
        # An engine may fail in any way, and the others are measured all the same.
        except Exception as error:  # noqa: BLE001
            print(f"{name}: SKIPPED: {first_line(error)}", flush=True)
    return variants


def checked(variants, reference, dtype):
    """`(working, wrong)`: right variants, each with its fastest batch size, and names of the wrong ones."""
    working, wrong = [], []
    for variant in variants:
        times = {}
        try:
            for size in variant.batch_sizes:
                # The first run compiles; its features are checked, the next one's time counts.
                pooled, first_s = variant.extract(size)
                complaint, errors = complaint_of(pooled, reference, dtype)
                if complaint:
                    raise engine_runs.UnsupportedError(complaint)
                times[size] = variant.extract(size)[1]
                print(
                    f"{variant.name}, batch {size}: {errors}; first run {first_s:.2f} s, second {times[size]:.2f} s",
                    flush=True,
                )
        except Exception as error:  # noqa: BLE001
            print(f"{variant.name}: FAILED: {first_line(error)}", flush=True)
            wrong.append(variant.name)
            continue
        working.append((variant, min(times, key=times.get)))
    return working, wrong


def versions():
    """Packages that compute, with their versions."""
    found = []
    for package in ("torch", "transformers", "openvino", "numpy", "tokenizers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return ", ".join(found)


def run(arguments):
    """Checks, times and prints; returns the exit status."""
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as directory:
        features = run_actbench_features("train", arguments, Path(directory) / "train.safetensors")
        rows = Rows(features)
        peer = Peer(arguments, arguments.layer)
        reference_peer = Peer(arguments, arguments.layer, is_reference=True)
        print(
            f"{arguments.model}, {arguments.dtype}, layer {arguments.layer}, {len(features)} rows, "
            f"{len(features.tokens)} tokens; {arguments.threads} threads; Python {platform.python_version()}, "
            f"{versions()}",
            flush=True,
        )
        reference = reference_peer.extract(features, [arguments.layer])[0]
        complaint, errors = complaint_of(features.layers([arguments.layer]), reference, arguments.dtype)
        print(f"actbench: {complaint or errors}", flush=True)
        setting = engine_runs.Setting(
            peer.model, reference_peer.model, rows, arguments.dtype, arguments.threads, arguments.engine_batch_sizes
        )
        working, wrong = checked(started(arguments, setting, Path(directory)), reference, arguments.dtype)
        wrong += ["actbench"] if complaint else []
        if arguments.bench and not complaint:
            program = find_actbench(arguments)
            # The flag of the sweep's layers selects nothing here.
            flags = settings_flags(arguments, layers=("layer",))
            EngineBench(arguments, working, features, flags, program).run()
    for name in wrong:
        print(f"peer_engines: {name} does not compute actbench's work and was not timed", file=sys.stderr)
    return 1 if wrong else 0


def main():
    """Runs the command; returns the exit status."""
    arguments = parse_arguments()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return run(arguments)
    except (UsageError, FeaturesError) as error:
        print(f"peer_engines: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
