"""Tests of peer_engines.py on golden models: `python -m unittest discover scripts`, or this file alone.

Every installed engine runs the goldens; an engine that is missing, wrong or NaN is reported and not timed.
"""

import contextlib
import functools
import importlib.util
import io
import json
import os
import shlex
import stat
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))

import engine_bench
import engine_decoder
import engine_llama
import engine_runs
import numpy as np
import peer_engines
import tokenizers
import torch
import transformers
from engine_rows import Rows
from features_file import Features
from safetensors.numpy import load_file

GOLDENS = Path(__file__).resolve().parent.parent / "fixtures" / "data" / "goldens"
CASE = GOLDENS / "gqa3-f32-head-dim-64"
LAYER = 1
# Five rows share their first three tokens, one starts its mask at its first token, one has no masked token.
CUTS = [0, 1, 2, 3, 4, 5, 6]
FIRST_MASKED = [3, 3, 3, 3, 3, 0, None]


def golden_rows(case=CASE, dtype="fp32"):
    """Features of prefixes of a golden's longest sequence: what comes later changes nothing before it."""
    golden = load_file(case / "golden.safetensors")
    longest = max((name for name in golden if name.startswith("tokens.")), key=lambda name: len(golden[name]))
    all_ids, hidden = golden[longest], golden[longest.replace("tokens", "hidden")][LAYER]
    tokens, masks, pooled = [], [], []
    for cut, first in zip(CUTS, FIRST_MASKED, strict=True):
        ids = all_ids[: len(all_ids) - cut]
        mask = np.zeros(len(ids), np.uint8)
        if first is not None:
            # The last tokens of some rows are not pooled.
            mask[first : len(ids) - cut % 2] = 1
        tokens.append(ids)
        masks.append(mask)
        chosen = hidden[: len(ids)][mask.astype(bool)].astype(np.float64)
        pooled.append(chosen.mean(axis=0) if len(chosen) else np.zeros(hidden.shape[1]))
    return Features(
        tokens=np.concatenate(tokens),
        offsets=np.cumsum([0, *map(len, tokens)]),
        mask=np.concatenate(masks),
        rows=np.arange(len(CUTS)),
        labels=np.arange(len(CUTS)) % 2,
        is_train=np.arange(len(CUTS)) < len(CUTS) // 2,
        layer_ids=np.array([LAYER]),
        pooled=np.stack(pooled)[:, None].astype(np.float32),
        model=str(case),
        pool="mean",
        dtype=dtype,
        extract_s=0.25,
    )


def uncompiled():
    """Torch traces the graph as for inductor and runs it as it is: compiling takes half a minute."""
    return mock.patch.object(torch, "compile", functools.partial(torch.compile, backend="eager"))


class RowsTest(unittest.TestCase):
    def test_rows_that_share_a_prefix_start_behind_it(self):
        features = golden_rows()
        rows = Rows(features)
        (prefix, batches), (whole, rest) = rows.plan(3, share_prefix=True)
        self.assertEqual(prefix, tuple(features.row(0)[:3].tolist()))
        self.assertEqual([batch.rows for batch in batches], [[3, 4, 1], [2, 0]])
        self.assertEqual(whole, ())
        self.assertEqual([batch.rows for batch in rest], [[5]])
        # The last tokens of rows 1 and 3 are not pooled; the longest row of the batch is longer by two.
        self.assertEqual(batches[0].ids[0].tolist(), [*features.row(3)[3:-1].tolist(), 0, 0])
        self.assertEqual(batches[0].ids[1].tolist(), [*features.row(4)[3:].tolist(), 0, 0])
        self.assertEqual(batches[0].mask.sum(axis=1).tolist(), [features.row_mask(row).sum() for row in (3, 4, 1)])

    def test_few_rows_run_whole(self):
        features = golden_rows()
        with mock.patch("engine_rows.MIN_SHARING_ROWS", 6):
            plan = Rows(features).plan(100, share_prefix=True)
        found = [(prefix, batch.rows) for prefix, batches in plan for batch in batches]
        self.assertEqual(found, [((), [5, 3, 4, 1, 2, 0])])
        without = Rows(features).plan(100, share_prefix=False)
        self.assertEqual(without[0][1][0].rows, [5, 3, 4, 1, 2, 0])


class EnginesTest(unittest.TestCase):
    """Runs peer_engines' main in this process, against a program that copies golden features."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.log = self.directory / "log"
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())

    def actbench(self, features, phases=True):
        """A program that copies the features, and result files with 0.25 s and a data phase of 0.5 s."""
        features.save(self.directory / "made")
        row = {"extract_s": 0.25, "extra": {"phases": {"prepare_s": 0.5}} if phases else {}}
        (self.directory / "results").write_text(json.dumps({"rows": [row]}))
        program = self.directory / "actbench"
        directory = shlex.quote(str(self.directory))
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {directory}/log\nmade={directory}/made\n'
            f'[ "$1" = features ] || made={directory}/results\n'
            'while [ "$1" != --out ] && [ "$1" != --output ]; do shift; done\ncp "$made" "$2"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    def run_engines(self, *flags, case=CASE, features=None, phases=True):
        """`(exit status, stdout, stderr)` with these flags, batches of 3 rows."""
        features = features or golden_rows(case)
        argv = ["peer_engines.py", "--model", case, "--actbench", self.actbench(features, phases)]
        argv += ["--layer", LAYER, "--dtype", features.dtype, "--threads", 1, "--engine-batch-sizes", "3", *flags]
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "argv", list(map(str, argv))), uncompiled():
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    status = peer_engines.main()
                except SystemExit as exit_of_argparse:
                    status = exit_of_argparse.code
        return status, out.getvalue(), err.getvalue()

    def test_every_installed_engine_computes_the_goldens(self):
        # Two streams need two threads.
        status, out, err = self.run_engines("--threads", 2)
        self.assertEqual(status, 0, out + err)
        names = ["transformers, sorted", "compiled torch"]
        if importlib.util.find_spec("openvino"):
            names += ["openvino, 2 streams", "openvino, 1 stream"]
        else:
            self.assertIn("openvino: SKIPPED: ModuleNotFoundError", out)
        for name in names:
            for suffix in ("", ", prefix"):
                self.assertIn(f"{name}{suffix}, batch 3: ", out)
        self.assertNotIn("FAILED", out)

    def test_engines_agree_in_bf16(self):
        case = GOLDENS / "gqa2-bf16-tied"
        features = golden_rows(case, "bf16")
        status, out, err = self.run_engines("--engines", "compiled,sorted", features=features, case=case)
        self.assertEqual(status, 0, out + err)
        self.assertEqual(out.count("batch 3: "), 4)

    def test_a_missing_engine_is_reported_and_the_rest_runs(self):
        # Not by patch.dict, which would also undo the imports of torch in between.
        previous = sys.modules.get("openvino")
        sys.modules["openvino"] = None
        try:
            status, out, err = self.run_engines("--engines", "openvino,sorted,llama.cpp")
        finally:
            if previous is None:
                del sys.modules["openvino"]
            else:
                sys.modules["openvino"] = previous
        self.assertEqual(status, 0, out + err)
        self.assertIn("openvino: SKIPPED: ModuleNotFoundError: import of openvino halted", out)
        self.assertIn("llama.cpp: SKIPPED: ", out)
        self.assertIn("--llama-cpp", out)
        self.assertIn("transformers, sorted, batch 3: ", out)

    def test_wrong_and_nan_features_are_not_timed(self):
        for change, what in ((lambda sums: sums * 1.01, "e-02 of"), (lambda sums: sums * np.nan, "nan of")):

            def broken(self, name, sums, change=change):
                return [true(self, name, sums)[0], true(self, name, lambda *work: change(sums(*work)))[1]]

            true = engine_runs.Setting.variants
            with mock.patch.object(engine_runs.Setting, "variants", broken):
                status, out, err = self.run_engines("--engines", "sorted", "--bench", 1)
            self.assertEqual(status, 1, err)
            self.assertIn("transformers, sorted, prefix: FAILED: UnsupportedError: differs from", out)
            self.assertIn(what, out)
            self.assertIn("transformers, sorted, prefix does not compute actbench's work", err)
            table = out[out.index("/ lazy") :]
            self.assertIn("transformers, sorted, batch 3", table)
            self.assertNotIn("transformers, sorted, prefix", table)

    def test_wrong_features_of_actbench_are_not_timed(self):
        features = golden_rows()
        features.pooled[[0, 1]] = features.pooled[[1, 0]]
        status, out, err = self.run_engines("--engines", "sorted", "--bench", 1, features=features)
        self.assertEqual(status, 1, err)
        self.assertIn("actbench: differs from transformers in float32", out)
        self.assertNotIn("/ lazy", out)

    @unittest.skipUnless(os.environ.get("LLAMA_CPP"), "LLAMA_CPP is not a source directory of llama.cpp with a build")
    def test_llama_cpp_computes_the_goldens(self):
        for case, dtype in ((CASE, "fp32"), (GOLDENS / "gqa2-bf16-tied", "bf16")):
            flags = ["--engines", "llama.cpp", "--llama-cpp", os.environ["LLAMA_CPP"]]
            status, out, err = self.run_engines(*flags, features=golden_rows(case, dtype), case=case)
            self.assertEqual(status, 0, out + err)
            self.assertIn("llama.cpp: ggml ", out)
            self.assertIn("llama.cpp, batch 3: ", out)
            self.assertIn("llama.cpp, prefix, batch 3: ", out)

    def test_llama_cpp_without_build_or_model_is_reported(self):
        _, out, _ = self.run_engines("--engines", "llama.cpp", "--llama-cpp", self.directory)
        self.assertIn("llama.h is missing; build llama.cpp", out)
        biased = GOLDENS / "mha-f32-attention-bias"
        with mock.patch.object(engine_llama, "_build", return_value="unused"):
            _, out, _ = self.run_engines("--engines", "llama.cpp", "--llama-cpp", ".", case=biased)
        self.assertIn("llama.cpp: SKIPPED: UnsupportedError: scripts/engine_llama.py writes Llama models without", out)

    def test_a_row_that_an_engine_leaves_out_fails(self):
        peer = mock.Mock(config=mock.Mock(hidden_size=2))
        setting = engine_runs.Setting(peer, None, Rows(golden_rows()), "fp32", 1, [3])
        missing = setting.empty_sums()
        self.assertTrue(np.isnan(missing[:6]).all())
        self.assertTrue((missing[6] == 0).all())

    def test_other_families_are_refused(self):
        for changes, what in (
            ({"model_type": "gemma2"}, "a gemma2"),
            ({"hidden_act": "gelu"}, "activation gelu"),
            ({"sliding_window": 8}, "sliding_window"),
            ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
            ({"rope_parameters": {"rope_type": "dynamic"}}, "rotary type dynamic"),
        ):
            config = mock.Mock(model_type="llama", hidden_act="silu", sliding_window=None, layer_types=None)
            config.rope_parameters = None
            config.rope_scaling = None
            engine_decoder.check_supported(config)
            config.configure_mock(**changes)
            with self.assertRaisesRegex(engine_decoder.UnsupportedError, what):
                engine_decoder.check_supported(config)

    def test_bench_times_every_side_in_each_block(self):
        status, out, err = self.run_engines("--engines", "sorted", "--bench", 2)
        self.assertEqual(status, 0, out + err)
        calls = [line.split() for line in self.log.read_text().splitlines()]
        self.assertEqual([call[0] for call in calls].count("run"), 2 * len(engine_bench.OURS))
        self.assertEqual(sum("prefix" in call for call in calls), 2)
        self.assertTrue(all(call[call.index("--threads") + 1] == "1" for call in calls))
        lines = out.splitlines()
        header = next(line for line in lines if "/ lazy" in line)
        self.assertEqual(header.split(), ["s", "/", "lazy", "/", "--no-opt", "prefix", "/", "eager"])
        self.assertRegex(out, r"actbench lazy +0\.250 +1 +1\.000 \(1\.000 to 1\.000\)")
        self.assertRegex(out, r"transformers, sorted, prefix, batch 3 +\d+\.\d{3} +\d+\.\d{3} \(")
        self.assertIn("2 blocks, 50.0 % intervals", out)
        self.assertIn("tokenizing is in none of these times", out)
        self.assertIn("tokenizing: SKIPPED: transformers cannot load a tokenizer", out)
        self.assertIn("load average", err)

    def test_both_tokenizers_are_timed_where_both_can_be(self):
        words = {f"w{index}": index for index in range(200)}
        model = tokenizers.models.WordLevel(words, unk_token="w0")
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(self.directory)
        arguments = mock.Mock(bench=1, seed=0, batch_size=8, model=str(self.directory))
        for phases, expected in ((True, "0.000 s for 4 more rows"), (False, "tokenizing, actbench: not measured")):
            features = golden_rows()
            out = io.StringIO()
            with mock.patch("engine_bench.FEW_ROWS", 3), contextlib.redirect_stdout(out):
                program = str(self.actbench(features, phases))
                bench = engine_bench.EngineBench(arguments, [], features, ["--samples", "7"], program)
                with contextlib.redirect_stderr(io.StringIO()):
                    bench.run()
            self.assertIn("gives actbench's ids for 7 of 7 rows", out.getvalue())
            self.assertRegex(out.getvalue(), r"tokenizing, transformers: \d+\.\d{3} s for the texts of 7 rows")
            self.assertIn(expected, out.getvalue())

    def test_bad_usage_is_one_line_and_status_2(self):
        for flags, what in (
            (("--engines", "vllm"), "unknown engine `vllm`"),
            (("--dtype", "fp16"), "there are bf16 and fp32"),
            (("--engine-batch-sizes", "8,none"), "is not a list of numbers above 0"),
            (("--bench", "0"), "--bench must be at least 1"),
            (("--layer", "9"), "the model has 2 layers"),
            (("--actbench", "/bin/false"), "ended with status 1"),
        ):
            status, _, err = self.run_engines(*flags)
            self.assertEqual(status, 2, err)
            self.assertIn(what, err)
            self.assertNotIn("Traceback", err)


if __name__ == "__main__":
    unittest.main()
