"""Times actbench and transformers alternately: `peer_hf.py --bench`.

A block contains every measurement once, in an order drawn from the seed. Ratios (theirs / ours) are taken within
blocks, so that a slow minute of the machine affects both sides. The logarithms of the ratios give the Hodges-Lehmann
estimate (median of all pairwise means) and the exact signed-rank interval (Hollander, Wolfe and Chicken 2014, section
3.2). With few blocks the interval has less than 95 % confidence; the table states the confidence.

Ours: one process per measurement, `actbench run --repetitions 1 --warmup 0`, which excludes loading from its times.
Theirs: this process, after one warm-up batch. Both use the same token ids, mask and split.

- raw: pooled features of one layer without the optimizer rules that the peer lacks: identical padded batches in the same
  order. Both sides stop at the deepest layer, keep only that layer, and pool where the activations are. Measured at
  --batch-size and at the peer's best of --bench-batch-sizes.
- the variants of scripts/peer_variants.py, their compiled and packed runs, against the same runs of ours at their best batch size.
- the share of a sustained matmul of torch on the same device that the forward passes reach, on both sides. Theirs do the work of
  our padded batches; packed, in proportion to the tokens without padding.
- train, sweep: actbench with all rules. `extract` is everything before the probes. `probes` are scikit-learn's on their
  side, one after another, and for the sweep also torch's L-BFGS. `whole` is extraction plus scikit-learn's probes.
  Without scikit-learn only `extract` is compared.
- `--bench-probes`: the probes of the sweep alone, both sides on actbench's features, without a forward pass of the peer.
"""

import itertools
import json
import math
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hf_model import UsageError
from peer_checks import HAS_PROBES, probe_task, torch_probe_auroc
from peer_variants import SUSTAINED_S, Variants, sustained_flops

RULES_OFF_IN_RAW = ("packing", "mask", "tail", "prefix", "batch")
CONFIDENCE = 0.95


def ratio_interval(ratios):
    """`(estimate, low, high, confidence)` of ratios: Hodges-Lehmann and the signed-rank interval of their logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    means = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(logs, 2))
    # How many sign assignments give each rank sum: the null distribution of the signed-rank statistic.
    counts = [1]
    for rank in range(1, len(logs) + 1):
        wider = counts + [0] * rank
        for total, count in enumerate(counts):
            wider[total + rank] += count
        counts = wider
    everything, tail, cut = 2 ** len(logs), 0, 0
    while cut < len(counts) and 2 * (tail + counts[cut]) <= (1 - CONFIDENCE) * everything:
        tail += counts[cut]
        cut += 1
    # With too few blocks for the confidence wanted, the widest interval there is.
    cut = max(cut, 1)
    confidence = 1 - 2 * sum(counts[:cut]) / everything
    low, high = means[cut - 1], means[len(means) - cut]
    return math.exp(statistics.median(means)), math.exp(low), math.exp(high), confidence


class Bench:
    """All measurements of one dtype."""

    def __init__(self, arguments, peer, features, run_flags, binary):
        self.arguments, self.peer, self.features = arguments, peer, features
        self.run_flags, self.binary = run_flags, binary
        # Without a peer its probes are trained on our features.
        self.probes_only = peer is None
        self.observations = {}
        self.variants = None

    def ours(self, task, method, batch_size, *flags):
        """One process of actbench: its row of the result file."""
        with tempfile.TemporaryDirectory() as directory:
            output = Path(directory) / "results.json"
            command = [self.binary, "run", *self.run_flags, "--tasks", task, "--methods", method]
            command += ["--batch-size", str(batch_size), "--repetitions", "1", "--warmup", "0", "--quiet"]
            command += ["--output", str(output), *flags]
            if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
                raise UsageError(f"`{' '.join(command)}` failed")
            return json.loads(output.read_text())["rows"][0]

    def theirs(self, task, batch_size, with_probes=False):
        """Seconds of extraction, and of probes where wanted."""
        layers = [self.arguments.layer] if task == "train" else list(range(self.arguments.sweep_layers))
        if self.probes_only:
            pooled, extract_s = self.features.layers(layers), 0.0
        else:
            self.peer.batch_size = batch_size
            pooled, extract_s = self.peer.extract(self.features, layers)
        probes = with_probes and HAS_PROBES
        probes_s = probe_task(task, pooled, self.features, self.arguments)[1] if probes else 0.0
        times = {"extract_s": extract_s, "train_eval_s": probes_s, "elapsed_s": extract_s + probes_s}
        if probes and task == "sweep":
            times["torch_probes_s"] = probe_task(task, pooled, self.features, self.arguments, torch_probe_auroc)[1]
        return times

    def theirs_as(self, variant, batch_size):
        """Seconds of extraction of the layer of train by a variant of the peer."""
        self.peer.batch_size = batch_size
        return {"extract_s": self.variants.extract(variant, [self.arguments.layer])[1]}

    def find_variants(self, best):
        """Tries the variants at the peer's best batch size, which warms them up, and prints which of them are timed."""
        self.peer.batch_size = best
        layers, wanted = [self.arguments.layer], self.arguments.bench_variants
        self.variants = Variants(self.peer, self.features, layers, self.arguments.dtype, wanted)
        for note in self.variants.notes:
            print(f"variant of the peer: {note}", flush=True)

    def measurements(self, best):
        """Name of each measurement of a block, and how it is made."""
        raw = [flag for rule in RULES_OFF_IN_RAW for flag in ("--no-opt", rule)]
        batch = self.arguments.batch_size
        if self.probes_only:
            return {
                "ours sweep lazy-disk": lambda: self.ours("sweep", "lazy-disk", batch),
                "theirs sweep": lambda: self.theirs("sweep", batch, with_probes=True),
            }
        named = {
            "ours raw": lambda: self.ours("train", "lazy", batch, *raw),
            "ours raw, best": lambda: self.ours("train", "lazy", best, *raw),
            "theirs train": lambda: self.theirs("train", batch, with_probes=True),
            "theirs train, best": lambda: self.theirs("train", best),
        }
        methods = {"train": ("lazy", "eager"), "sweep": ("lazy-disk", "eager")}
        for task in self.arguments.tasks:
            for method in methods[task]:
                named[f"ours {task} {method}"] = lambda task=task, method=method: self.ours(task, method, batch)
        if "sweep" in self.arguments.tasks:
            named["theirs sweep"] = lambda: self.theirs("sweep", batch, with_probes=True)
        if best == batch:
            del named["ours raw, best"], named["theirs train, best"]
        for variant in self.variants.working if self.variants else []:
            named[f"theirs {variant}"] = lambda variant=variant: self.theirs_as(variant, best)
        return named

    def comparisons(self, best):
        """`(label, ours, theirs, field, their field)` of each line of the table; their field is ours where it is left out."""
        label = f"raw forward, batch {self.arguments.batch_size}"
        label += ", their best" if best == self.arguments.batch_size else ""
        lines = [(label, "ours raw", "theirs train", "extract_s")]
        if best != self.arguments.batch_size:
            lines += [(f"raw forward, batch {best}, their best", "ours raw, best", "theirs train, best", "extract_s")]
        raw = "ours raw" if best == self.arguments.batch_size else "ours raw, best"
        for variant in self.variants.working if self.variants else []:
            lines.append((f"raw forward, batch {best}, {variant}", raw, f"theirs {variant}", "extract_s"))
            if "train" in self.arguments.tasks:
                lines.append((f"train, lazy: extract, {variant}", "ours train lazy", f"theirs {variant}", "extract_s"))
        if "train" in self.arguments.tasks:
            lines += [
                ("train, lazy: extract", "ours train lazy", "theirs train", "extract_s"),
                ("train, eager: whole", "ours train eager", "theirs train", "elapsed_s"),
            ]
        if "sweep" in self.arguments.tasks:
            lines += [
                ("sweep, lazy-disk: whole", "ours sweep lazy-disk", "theirs sweep", "elapsed_s"),
                ("sweep, lazy-disk: extract", "ours sweep lazy-disk", "theirs sweep", "extract_s"),
                ("sweep, lazy-disk: probes, by scikit-learn", "ours sweep lazy-disk", "theirs sweep", "train_eval_s"),
                (
                    "sweep, lazy-disk: probes, by torch",
                    "ours sweep lazy-disk",
                    "theirs sweep",
                    "train_eval_s",
                    "torch_probes_s",
                ),
                ("sweep, eager: whole", "ours sweep eager", "theirs sweep", "elapsed_s"),
            ]
        if self.probes_only:
            return [line for line in lines if line[3] == "train_eval_s"]
        return [line for line in lines if HAS_PROBES or line[3] == "extract_s"]

    def run(self):
        """Measures all blocks and prints the table."""
        best = self.arguments.batch_size if self.probes_only else self.best_batch_size()
        if not self.probes_only:
            self.find_variants(best)
        named = self.measurements(best)
        order = random.Random(self.arguments.seed)
        for block in range(self.arguments.bench):
            names = list(named)
            order.shuffle(names)
            for name in names:
                self.observations.setdefault(name, []).append(named[name]())
            print(f"block {block + 1} of {self.arguments.bench} done: {self.last_ratios(best)}", file=sys.stderr, flush=True)
        self.print_table(best)
        if not self.probes_only:
            self.print_shares(best)

    def print_shares(self, best):
        """The rate of each forward pass of the layer of train as a share of the sustained matmul."""
        device, batch = self.peer.device, self.arguments.batch_size
        ceiling, state = sustained_flops(device, self.arguments.dtype)
        seconds = SUSTAINED_S[device.type]
        at = f" at {state}" if state else ""
        print(f"sustained matmul of torch: {ceiling / 1e12:.3g} TFLOP/s over {seconds} s{at}")
        shares = [
            f"{name} {100 * work / statistics.median(row['extract_s'] for row in rows) / ceiling:.0f} %"
            for name, rows in self.observations.items()
            if (work := self.work_of(name, batch, best)) is not None
        ]
        print(f"share of it: {'; '.join(shares)}", flush=True)

    def work_of(self, name, batch, best):
        """Floating-point operations of a measurement of the layer of train; none of the others."""
        if name.startswith("ours"):
            return self.observations[name][0]["extra"]["flops"] if "sweep" not in name else None
        is_best = best != batch and name != "theirs train"
        if name == "theirs sweep":
            return None
        padded = self.observations["ours raw, best" if is_best else "ours raw"][0]["extra"]["flops"]
        if "packed" not in name:
            return padded
        lengths = [len(self.features.row(row)) for row in range(len(self.features))]
        batches = [lengths[first : first + best] for first in range(0, len(lengths), best)]
        return padded * sum(lengths) / sum(max(rows) * len(rows) for rows in batches)

    def last_ratios(self, best):
        """The ratios of the last block, for who looks on; and for a log that ends here because the time was up."""
        ratios = []
        for label, ours, theirs, field, *their_field in self.comparisons(best):
            ours_s, theirs_s = self.observations[ours][-1][field], self.observations[theirs][-1][(their_field or [field])[0]]
            ratios.append(f"{label} {theirs_s / ours_s:.2f}x")
        return "; ".join(ratios)

    def best_batch_size(self):
        """The peer's fastest of the batch sizes asked for, each timed once."""
        times = {size: self.theirs("train", size)["extract_s"] for size in self.arguments.bench_batch_sizes}
        text = ", ".join(f"{size}: {seconds:.2f} s" for size, seconds in times.items())
        print(f"the peer's batch sizes, once each: {text}", flush=True)
        return min(times, key=times.get)

    def print_table(self, best):
        rows = [["measurement", "ours s", "theirs s", "theirs / ours", "interval"]]
        confidence = 0.0
        for label, ours, theirs, field, *their_field in self.comparisons(best):
            other = their_field[0] if their_field else field
            pairs = [
                (a[field], b[other]) for a, b in zip(self.observations[ours], self.observations[theirs], strict=True)
            ]
            estimate, low, high, confidence = ratio_interval([b / a for a, b in pairs])
            medians = [f"{statistics.median(side):.3f}" for side in zip(*pairs, strict=True)]
            rows.append([label, *medians, f"{estimate:.2f}x", f"{low:.2f} to {high:.2f}"])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{self.arguments.bench} blocks, {100 * confidence:.1f} % intervals")
        print(f"peak memory: their process {peak:.0f} MB", end="")
        for name, rows_of in self.observations.items():
            if name.startswith("ours"):
                print(f"; {name} {statistics.median(row['cpu_peak_rss_mb'] for row in rows_of):.0f} MB", end="")
        print(flush=True)
