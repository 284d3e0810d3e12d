"""The blocks of peer_engines.py: every variant, actbench and both tokenizers once a block, in random order."""

import os
import random
import statistics
import sys
import time

import transformers
from hf_model import model_source
from peer_bench import Bench, ratio_interval

# Methods and flags of actbench. Without the rule `prefix` it does the work of the variants that run rows whole.
OURS = {
    "actbench lazy": ("lazy",),
    "actbench --no-opt prefix": ("lazy", "--no-opt", "prefix"),
    "actbench eager": ("eager",),
}
# Rows of the run whose data phase is subtracted; both classes are on both sides of the split.
FEW_ROWS = 16
FEW, TOKENIZER = "actbench, few rows", "tokenizer"


class EngineBench:
    """All measurements of one run of peer_engines.py."""

    def __init__(self, arguments, working, features, run_flags, binary):
        self.blocks, self.seed = arguments.bench, arguments.seed
        self.features = features
        self.batch_size = arguments.batch_size
        self.program = Bench(arguments, None, features, run_flags, binary)
        few = list(run_flags)
        few[few.index("--samples") + 1] = str(FEW_ROWS)
        self.program_of_few = Bench(arguments, None, features, few, binary)
        self.seconds = {}
        self.data_phases = {}
        self.measurements = {}
        for name, (method, *flags) in OURS.items():
            self.measurements[name] = lambda name=name, method=method, flags=flags: self._ours(name, method, flags)
        self.variants = {}
        for variant, size in working:
            name = f"{variant.name}, batch {size}"
            self.variants[name] = variant
            self.measurements[name] = lambda variant=variant, size=size: variant.extract(size)[1]
        self.tokenizer_note = self._prepare_tokenizer(arguments.model)

    def _ours(self, name, method, flags):
        program = self.program_of_few if name == FEW else self.program
        row = program.ours("train", method, self.batch_size, *flags)
        # Builds before phases were recorded do not have it.
        data_s = (row.get("extra", {}).get("phases") or {}).get("prepare_s")
        if data_s is not None:
            self.data_phases.setdefault(name, []).append(data_s)
        return row["extract_s"]

    def _prepare_tokenizer(self, model):
        """Adds transformers' tokenizer to the blocks, where the model has one; returns a note for the table."""
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(**model_source(model))
        # A tokenizer of any damage is no reason to leave engines out.
        except Exception as error:  # noqa: BLE001
            return f"tokenizing: SKIPPED: transformers cannot load a tokenizer ({type(error).__name__})"
        ids = [self.features.row(row).tolist() for row in range(len(self.features))]
        texts = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        same = sum(a == b for a, b in zip(tokenizer(texts, add_special_tokens=False)["input_ids"], ids, strict=True))

        def tokenize():
            start = time.perf_counter()
            tokenizer(texts, add_special_tokens=False)
            return time.perf_counter() - start

        self.measurements[TOKENIZER] = tokenize
        if len(ids) > 2 * FEW_ROWS:
            self.measurements[FEW] = lambda: self._ours(FEW, "lazy", [])
        return f"transformers' {type(tokenizer).__name__} gives actbench's ids for {same} of {len(ids)} rows"

    def run(self):
        """Measures all blocks and prints the table."""
        order = random.Random(self.seed)
        for block in range(self.blocks):
            names = list(self.measurements)
            order.shuffle(names)
            for name in names:
                self.seconds.setdefault(name, []).append(self.measurements[name]())
            load = os.getloadavg()[0]
            print(f"block {block + 1} of {self.blocks} done, load average {load:.1f}", file=sys.stderr, flush=True)
        self._print_table()
        self._print_tokenizing()

    def _print_table(self):
        bases = list(OURS)
        rows = [["", "s", *(f"/ {base.removeprefix('actbench ')}" for base in bases)]]
        confidence = 0.0
        shown = [*bases, *self.variants]
        for name in sorted(shown, key=lambda name: statistics.median(self.seconds[name])):
            cells = [name, f"{statistics.median(self.seconds[name]):.3f}"]
            for base in bases:
                pairs = zip(self.seconds[name], self.seconds[base], strict=True)
                estimate, low, high, confidence = ratio_interval([a / b for a, b in pairs])
                cells.append("1" if name == base else f"{estimate:.3f} ({low:.3f} to {high:.3f})")
            rows.append(cells)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print(f"{self.blocks} blocks, {100 * confidence:.1f} % intervals; above 1, actbench is faster")

    def _print_tokenizing(self):
        print("tokenizing is in none of these times")
        print(self.tokenizer_note)
        if TOKENIZER not in self.seconds:
            return
        theirs = statistics.median(self.seconds[TOKENIZER])
        print(f"tokenizing, transformers: {theirs:.3f} s for the texts of {len(self.features)} rows")
        whole, few = self.data_phases.get("actbench lazy"), self.data_phases.get(FEW)
        if not whole or not few:
            print("tokenizing, actbench: not measured: no extra.phases in its result files, or too few rows")
            return
        ours = statistics.median(a - b for a, b in zip(whole, few, strict=True))
        print(
            f"tokenizing, actbench: {ours:.3f} s for {len(self.features) - FEW_ROWS} more rows, with the chat "
            f"template, masks and split; the whole data phase, with opening the model, {statistics.median(whole):.3f} s"
        )
