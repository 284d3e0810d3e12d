"""Tests of the scripts on the golden models: `python -m unittest discover scripts` from the repository's root.

They are not part of `cargo test`, which needs no Python; run them after changing a script. What they are for above all
is that peer_hf.py can fail: a comparison that accepts a NaN or two swapped rows would prove nothing.
"""

import contextlib
import io
import json
import shutil
import stat
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import safetensors.torch
import tokenizers
import torch
import transformers
from safetensors.numpy import load_file, save_file

import families_reference
import hf_model
import make_family_goldens
import peer_bench
import peer_checks
import peer_hf
import peer_variants
import random_model
from features_file import Features, FeaturesError, load_features

GOLDENS = Path(__file__).resolve().parent.parent / "fixtures" / "data" / "goldens"
FAMILIES = GOLDENS.parent / "families"
CASE = GOLDENS / "gqa3-f32-head-dim-64"


def pooled_by_hand(hidden, mask, pool):
    """Pooling of `hidden [layers, len, h]` in float64, written as the definition has it."""
    chosen = hidden[:, mask.astype(bool)].astype(np.float64)
    if chosen.shape[1] == 0:
        return np.zeros(hidden[:, 0].shape)
    return {
        "mean": lambda: chosen.mean(axis=1),
        "max": lambda: chosen.max(axis=1),
        "last": lambda: chosen[:, -1],
        "sum": lambda: chosen.sum(axis=1),
    }[pool]()


def golden_features(pool="mean", case=CASE, dtype="fp32", empty_mask=True):
    """A features file's contents made of a golden's own hidden states: each sequence twice, so both splits have it."""
    golden = load_file(case / "golden.safetensors")
    rng = np.random.default_rng(0)
    tokens, masks, pooled = [], [], []
    n_sequences = sum(name.startswith("tokens.") for name in golden)
    for index in [*range(n_sequences)] * 2:
        ids, hidden = golden[f"tokens.{index}"], golden[f"hidden.{index}"]
        mask = (rng.random(len(ids)) < 0.6).astype(np.uint8)
        mask[-1] = len(ids) % 2 if len(ids) > 1 else 1
        if empty_mask and not masks:
            mask[:] = 0
        tokens.append(ids)
        masks.append(mask)
        pooled.append(pooled_by_hand(hidden, mask, pool))
    n_rows = len(tokens)
    return Features(
        tokens=np.concatenate(tokens),
        offsets=np.cumsum([0] + [len(ids) for ids in tokens]),
        mask=np.concatenate(masks),
        rows=np.arange(n_rows)[::-1],
        labels=np.arange(n_rows) % 2,
        is_train=np.arange(n_rows) < n_rows // 2,
        layer_ids=np.arange(pooled[0].shape[0]),
        pooled=np.stack(pooled).astype(np.float32),
        model=str(case),
        pool=pool,
        dtype=dtype,
        extract_s=0.25,
    )


class ScriptTest(unittest.TestCase):
    """Runs peer_hf's main in this process, in a directory of its own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def peer(self, *flags):
        """`(exit status, stdout, stderr)` of peer_hf with these flags."""
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "argv", ["peer_hf.py", *map(str, flags)]):
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    status = peer_hf.main()
                except SystemExit as exit_of_argparse:
                    status = exit_of_argparse.code
        return status, out.getvalue(), err.getvalue()

    def compare(self, features, *flags, case=CASE):
        """Saves the features and compares them with the peer in fp32, all layers, batches of 3 unequal rows."""
        path = self.directory / "features.safetensors"
        features.save(path)
        n_layers = len(features.layer_ids)
        return self.peer(
            "--model",
            case,
            "--features",
            path,
            "--dtype",
            features.dtype,
            "--pool",
            features.pool,
            "--layer",
            n_layers - 1,
            "--sweep-layers",
            n_layers,
            "--batch-size",
            3,
            *flags,
        )


class PeerAgrees(ScriptTest):
    def test_every_pool_agrees_with_the_goldens(self):
        for pool in ("mean", "max", "last", "sum"):
            status, out, err = self.compare(golden_features(pool))
            self.assertEqual(status, 0, err)
            self.assertEqual(out.count("agree"), 2)

    def test_every_golden_agrees_in_fp32_and_in_its_own_16_bit_type(self):
        for case in sorted(GOLDENS.iterdir()):
            # What is judged in 16 bits is the error of a run, not that of weights which had to be rounded first.
            own = [dtype for dtype, name in (("bf16", "-bf16"), ("fp16", "-f16")) if name in case.name]
            for dtype in ("fp32", *own):
                with self.subTest(case=case.name, dtype=dtype):
                    status, _, err = self.compare(golden_features(case=case, dtype=dtype), case=case)
                    self.assertEqual(status, 0, err)


    def test_every_family_agrees_in_fp32(self):
        for case in sorted(path for path in FAMILIES.iterdir() if path.is_dir()):
            # In a batch, transformers rotates every row by the length of the longest.
            if case.name == "llama-f32-dynamic-beyond":
                continue
            with self.subTest(case=case.name):
                status, _, err = self.compare(golden_features(case=case), case=case)
                self.assertEqual(status, 0, err)


class PeerFails(ScriptTest):
    def differs(self, change):
        features = golden_features(empty_mask=False)
        change(features.pooled)
        status, out, err = self.compare(features)
        self.assertEqual(status, 1, err)
        self.assertIn("DIFFER", out)
        return err

    def test_a_nan_fails(self):
        def change(pooled):
            pooled[2, 1, 5] = np.nan

        self.assertIn("nan", self.differs(change))

    def test_two_swapped_rows_fail(self):
        def change(pooled):
            pooled[[1, 2]] = pooled[[2, 1]]

        self.differs(change)

    def test_a_shifted_layer_fails(self):
        def change(pooled):
            pooled[:, 1] = pooled[:, 0]

        self.differs(change)

    def test_a_small_error_everywhere_fails(self):
        def change(pooled):
            pooled *= 1.0005

        self.differs(change)

    def test_something_where_nothing_is_pooled_fails(self):
        features = golden_features()
        features.pooled[0, 0, 0] = 1e-9
        self.assertEqual(self.compare(features)[0], 1)


class PeerIn16Bits(ScriptTest):
    """What is judged there is the error against the peer in float32, next to the peer's own."""

    CASE = GOLDENS / "gqa2-bf16-tied"

    def setUp(self):
        super().setUp()
        self.features = golden_features(case=self.CASE, dtype="bf16", empty_mask=False)
        arguments = mock.Mock(
            model=str(self.CASE), dtype="bf16", attention="sdpa", device="cpu", batch_size=3, pool="mean"
        )
        layers = self.features.layer_ids.tolist()
        self.theirs = hf_model.Peer(arguments, layers[-1]).extract(self.features, layers)[0]
        reference = hf_model.Peer(arguments, layers[-1], is_reference=True)
        self.assertEqual({parameter.dtype for parameter in reference.model.parameters()}, {torch.float32})
        self.reference = reference.extract(self.features, layers)[0]

    def outcome(self, pooled):
        self.features.pooled = pooled
        return self.compare(self.features, "--tasks", "sweep", case=self.CASE)

    def test_the_peers_own_features_are_as_far_from_the_reference_as_the_peers(self):
        status, out, err = self.outcome(self.theirs)
        self.assertEqual(status, 0, err)
        self.assertIn("1.000 times theirs; the two are apart by 0.000e+00 of a layer", out)
        self.assertIn("the same in fp32", out)

    def test_the_reference_itself_passes_and_is_told_as_no_error(self):
        status, out, err = self.outcome(self.reference)
        self.assertEqual(status, 0, err)
        self.assertIn("against float32: actbench 0.000e+00", out)

    def test_more_than_the_peers_error_fails_though_it_is_small(self):
        for factor, expected in ((1.05, 0), (1.2, 1)):
            pooled = self.reference + factor * (self.theirs - self.reference)
            layer_error, _ = peer_checks.relative_errors(pooled, self.reference)
            self.assertLess(layer_error, peer_checks.TOLERANCE["bf16"])
            status, out, err = self.outcome(pooled)
            self.assertEqual(status, expected, err)
            self.assertEqual("DIFFER" in out, expected == 1)
            self.assertEqual("of a layer (at most" in err, expected == 1)

    def test_an_error_above_the_tolerance_fails_however_large_the_peers_is(self):
        far = self.reference * 1.03
        _, their_errors, complaint = peer_checks.judge(far, far, self.reference, "bf16")
        self.assertGreater(their_errors[0], peer_checks.TOLERANCE["bf16"])
        self.assertIn("of a layer (at most 2.00e-02)", complaint)

    def test_nan_on_any_side_fails(self):
        def broken(values):
            values = values.copy()
            values[1, 0, 0] = np.nan
            return values

        self.assertEqual(self.outcome(broken(self.theirs))[0], 1)
        for theirs, reference in (
            (broken(self.theirs), self.reference),
            (self.theirs, broken(self.reference)),
        ):
            self.assertIsNotNone(peer_checks.judge(self.theirs, theirs, reference, "bf16")[2])


class PeerVariants(unittest.TestCase):
    """Compiled blocks and packed rows: the same features as the padded run, or skipped with the reason."""

    def peer(self, pool="mean", case=CASE, dtype="fp32"):
        arguments = mock.Mock(model=str(case), dtype=dtype, attention="sdpa", device="cpu", batch_size=3, pool=pool)
        return hf_model.Peer(arguments, 1)

    def variants(self, peer, *wanted):
        return peer_variants.Variants(peer, golden_features(pool=peer.pool), [0, 1], "fp32", wanted)

    def test_packed_rows_have_the_features_of_padded_rows(self):
        for pool in ("mean", "max", "last", "sum"):
            peer = self.peer(pool)
            found = self.variants(peer, "packed")
            self.assertEqual(list(found.working), ["packed"], found.notes)
            features = golden_features(pool=pool)
            packed, _ = found.extract("packed", [0, 1])
            # The goldens are those of transformers in float64.
            layer_error, row_error = peer_checks.relative_errors(packed, features.pooled)
            self.assertLess(layer_error, 1e-4, pool)
            self.assertLess(row_error, 3e-4, pool)
            self.assertIsNone(peer.packed_attention)

    def test_rows_that_see_each_other_are_skipped(self):
        peer = self.peer()
        forward = peer.model.forward
        blind = mock.patch.object(peer.model, "forward", lambda **inputs: forward(**{**inputs, "position_ids": None}))
        with blind:
            found = self.variants(peer, "packed")
        self.assertEqual(found.working, {})
        self.assertIn("packed: SKIPPED: sdpa: ", found.notes[0])
        self.assertIn("from the padded run", found.notes[0])

    def test_what_cannot_be_compiled_is_skipped_and_the_rest_runs(self):
        peer = self.peer()
        with mock.patch.object(torch, "compile", side_effect=RuntimeError("no compiler\nand more")):
            found = self.variants(peer, "compiled", "packed", "compiled+packed")
        self.assertEqual(list(found.working), ["packed"])
        self.assertIn("compiled: SKIPPED: torch.compile: RuntimeError: no compiler", found.notes)
        self.assertIn("compiled+packed: SKIPPED: sdpa: RuntimeError: no compiler", found.notes)

    def test_compiled_blocks_have_the_features_of_others(self):
        if shutil.which("g++") is None:
            self.skipTest("torch.compile needs a C++ compiler")
        peer = self.peer()
        # One graph of one batch shape: compiling takes most of the time of this file.
        peer.batch_size = 100
        found = self.variants(peer, "compiled")
        self.assertEqual(list(found.working), ["compiled"], found.notes)
        self.assertGreater(torch._dynamo.utils.counters["stats"]["unique_graphs"], 0)
        # Outside of a variant the blocks are those of the class.
        self.assertNotIn("forward", vars(peer.blocks[0]))
        self.assertIs(type(peer.blocks[0]).forward, peer.blocks[0].forward.__func__)

    def test_nan_is_skipped(self):
        peer = self.peer()
        true = peer.extract

        def broken(features, layers):
            pooled, seconds = true(features, layers)
            return (pooled * np.nan if peer.packed_attention else pooled), seconds

        with mock.patch.object(peer, "extract", broken):
            found = self.variants(peer, "packed")
        self.assertIn("packed: SKIPPED: sdpa: nan of a layer", found.notes[0])

    def test_sustained_rate_is_that_of_the_work(self):
        flops, state = peer_variants.sustained_flops(torch.device("cpu"), "fp32", seconds=0.02, size=64)
        self.assertTrue(0 < flops < 1e15, flops)
        self.assertIsNone(state)


class RandomModel(ScriptTest):
    """The model of the measurements: the same bytes by any number of threads, and what transformers takes."""

    def made(self, name, *flags, cpus=3):
        out = self.directory / name
        argv = ["random_model.py", "--preset", "smollm2-135m", "--layers", "1", "--rows", "2", "--tokens", "24"]
        with mock.patch.object(sys, "argv", [*argv, "--out", str(out), *flags]):
            with mock.patch("os.cpu_count", return_value=cpus), contextlib.redirect_stdout(io.StringIO()):
                threads = torch.get_num_threads()
                random_model.main()
                torch.set_num_threads(threads)
        return out

    def test_weights_are_drawn_from_the_seed_and_loaded_whole(self):
        first = self.made("first")
        weights = safetensors.torch.load_file(first / "model.safetensors")
        again = safetensors.torch.load_file(self.made("again", cpus=1) / "model.safetensors")
        other = safetensors.torch.load_file(self.made("other", "--seed", "1") / "model.safetensors")
        self.assertEqual(weights.keys(), again.keys())
        for name, tensor in weights.items():
            self.assertEqual(tensor.dtype, torch.bfloat16)
            self.assertTrue(torch.equal(tensor, again[name]), name)
            if name.endswith("norm.weight"):
                self.assertTrue(torch.equal(tensor, torch.ones_like(tensor)), name)
                continue
            self.assertFalse(torch.equal(tensor, other[name]), name)
            self.assertAlmostEqual(tensor.float().std().item(), 0.02, delta=2e-4)
            self.assertLess(abs(tensor.float().mean().item()), 2e-4)
        # Parts of one tensor, and tensors of one shape, are not the same values.
        embedding = weights["model.embed_tokens.weight"].flatten()
        self.assertFalse(torch.equal(embedding[:1000], embedding[random_model.PART :][:1000]))
        gate, up = (weights[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up"))
        self.assertFalse(torch.equal(gate, up))
        model, info = transformers.AutoModelForCausalLM.from_pretrained(first, output_loading_info=True)
        self.assertFalse(info["missing_keys"] or info["unexpected_keys"], info)
        self.assertEqual(model.dtype, torch.bfloat16)
        self.assertIs(model.lm_head.weight, model.model.embed_tokens.weight)


class BadInput(ScriptTest):
    def refused(self, outcome, what):
        status, _, err = outcome
        self.assertEqual(status, 2, err)
        self.assertIn(what, err)
        self.assertNotIn("Traceback", err)

    def test_bad_usage_is_one_line_and_status_2(self):
        features = golden_features()
        self.refused(self.compare(features, "--layer", 7), "no features file has layer(s) 7 to 7")
        self.refused(self.compare(features, "--tasks", "train,nap"), "unknown task `nap`")
        self.refused(self.compare(features, "--model", "nowhere"), "nowhere")
        self.refused(self.compare(features, "--pool", "max"), "made with --pool mean")
        self.refused(self.compare(features, "--dtype", "bf16"), "made with --dtype fp32")
        self.refused(self.compare(features, "--check-tokens"), "needs --data-dir")
        self.refused(self.compare(features, "--features", self.directory / "none"), "no such file")
        self.refused(self.peer("--model", CASE, "--actbench", self.directory / "none"), "no such file")

    def test_a_file_of_another_model_is_refused(self):
        smaller = GOLDENS / "gqa2-bf16-tied"
        self.refused(self.compare(golden_features(case=smaller, dtype="fp32")), "not the same model")
        deep = golden_features()
        deep.layer_ids = np.array([0, 9])
        self.refused(self.compare(deep, "--layer", 9, "--tasks", "train"), "the model has 2 layers")

    def test_damaged_files_are_named(self):
        def broken(name, value):
            features = golden_features()
            setattr(features, name, value(getattr(features, name)))
            path = self.directory / "broken.safetensors"
            features.save(path)
            with self.assertRaises(FeaturesError) as caught:
                load_features(path)
            return str(caught.exception)

        self.assertIn("do not span", broken("offsets", lambda offsets: offsets + 1))
        self.assertIn("do not increase", broken("offsets", lambda offsets: np.insert(offsets, 1, 0)))
        self.assertIn("other than 0 and 1", broken("labels", lambda labels: labels + 1))
        self.assertIn("`mask` has", broken("mask", lambda mask: mask[1:]))
        self.assertIn("`layer_ids` do not increase", broken("layer_ids", lambda ids: ids[::-1]))
        self.assertIn("`pooled` is", broken("pooled", lambda pooled: pooled[1:]))
        self.assertIn("`extract_s` is `nan`", broken("extract_s", lambda _: "nan"))
        self.assertIn("unknown pool", broken("pool", lambda _: "median"))

        path = self.directory / "other.safetensors"
        save_file({"tokens": np.zeros(3, np.int32)}, path)
        with self.assertRaisesRegex(FeaturesError, "no tensor `offsets`"):
            load_features(path)
        path.write_bytes(b"\xff" * 64)
        with self.assertRaisesRegex(FeaturesError, "not a readable safetensors file"):
            load_features(path)


class OurSide(ScriptTest):
    def test_actbench_is_called_once_a_task_and_its_results_join_the_table(self):
        golden_features().save(self.directory / "made")
        log = self.directory / "log"
        program = self.directory / "actbench"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {log}\nwhile [ "$1" != --out ]; do shift; done\ncp {self.directory / "made"} "$2"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        results = self.directory / "results.json"
        row = {"method": "lazy", "status": "ok", "train_eval_s": 0.125, "metric_value": 0.875}
        results.write_text(json.dumps({"rows": [{"task": "train", **row}, {"task": "sweep", **row}]}))
        status, out, err = self.peer(
            "--model",
            CASE,
            "--actbench",
            program,
            "--dtype",
            "float32",
            "--layer",
            1,
            "--sweep-layers",
            2,
            "--threads",
            1,
            "--actbench-flags",
            "--no-opt all",
            "--results",
            results,
        )
        self.assertEqual(status, 0, err)
        calls = log.read_text().splitlines()
        self.assertEqual(len(calls), 2)
        for call, task in zip(calls, ("train", "sweep"), strict=True):
            for flags in (
                f"--tasks {task}",
                f"--model {CASE}",
                "--dtype fp32",
                "--samples 600",
                "--threads 1",
                "--no-opt all",
            ):
                self.assertIn(flags, call)
        self.assertIn("0.125", out)
        self.assertIn("0.8750", out)

    def test_bench_times_variants_and_prints_shares(self):
        golden_features().save(self.directory / "made")
        extra = {"feature_digest": "d", "flops": 2_000_000}
        row = {"elapsed_s": 0.5, "extract_s": 0.25, "train_eval_s": 0.25, "cpu_peak_rss_mb": 10.0, "extra": extra}
        (self.directory / "results").write_text(json.dumps({"rows": [row]}))
        program = self.directory / "actbench"
        program.write_text(
            f"#!/bin/sh\ncommand=$1\nmade={self.directory}/made\n[ $command = features ] || made={self.directory}/results\n"
            'while [ "$1" != --out ] && [ "$1" != --output ]; do shift; done\ncp "$made" "$2"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        flags = ["--model", CASE, "--actbench", program, "--dtype", "fp32", "--layer", 1, "--tasks", "train"]
        flags += ["--batch-size", 2, "--bench", 1, "--bench-batch-sizes", "3", "--bench-variants", "packed"]
        with mock.patch.dict(peer_variants.MATMUL_SIZE, cpu=64), mock.patch.dict(peer_variants.SUSTAINED_S, cpu=0.02):
            status, out, err = self.peer(*flags)
        self.assertEqual(status, 0, err)
        self.assertIn("variant of the peer: packed with sdpa: ", out)
        for label in ("raw forward, batch 3, packed ", "train, lazy: extract, packed "):
            self.assertRegex(out, f"{label} +0.250 ")
        self.assertIn("sustained matmul of torch: ", out)
        shares = next(line for line in out.splitlines() if line.startswith("share of it: "))
        for name in ("ours raw ", "ours raw, best ", "ours train lazy ", "theirs train ", "theirs packed "):
            self.assertIn(name, shares)
        status, _, err = self.peer(*flags, "--bench-variants", "packed,napping")
        self.assertEqual(status, 2)
        self.assertIn("unknown variant `napping`", err)

    def test_a_failing_actbench_is_reported(self):
        status, _, err = self.peer("--model", CASE, "--actbench", "/bin/false")
        self.assertEqual(status, 2)
        self.assertIn("ended with status 1", err)


class CheckTokens(ScriptTest):
    TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"

    def setUp(self):
        super().setUp()
        statements = ["Water is wet.", "Ice is cold.", "Snow is black."]
        words = " ".join([*statements, *peer_checks.SYSTEM_OF_LABEL.values(), peer_checks.USER_TEXT])
        words = ["<unk>", "<system>", "<user>", "<assistant>", "<end>", *sorted(set(words.split()))]
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
        )
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=self.TEMPLATE)
        self.model = self.directory / "model"
        self.tokenizer.save_pretrained(self.model)
        (self.model / "config.json").write_text((CASE / "config.json").read_text())
        data = self.directory / "data" / "repe"
        data.mkdir(parents=True)
        (data / "true_false_facts.csv").write_text(
            "statement,label\n" + "".join(f"{text},{int('black' not in text)}\n" for text in statements)
        )

    def complaints(self, label=1, system=1, statement="Ice is cold.", n_masked=5):
        """What is said of one row that is as these values say; by default it is right."""
        system_text, user_text = peer_checks.SYSTEM_OF_LABEL[system], peer_checks.USER_TEXT
        text = f"<system> {system_text} <end> <user> {user_text} <end> <assistant> {statement} <end>"
        ids = np.array(self.tokenizer.encode(text))
        row = golden_features()
        row.tokens, row.offsets, row.labels = ids, np.array([0, len(ids)]), np.array([label])
        row.mask = (np.arange(len(ids)) >= len(ids) - n_masked).astype(np.uint8)
        arguments = mock.Mock(model=str(self.model), data_dir=str(self.directory / "data"))
        return peer_checks.check_tokens(row, arguments)

    def test_a_right_row_passes(self):
        self.assertEqual(self.complaints(), [])
        self.assertEqual(self.complaints(label=0, system=0), [])

    def test_wrong_rows_are_named(self):
        self.assertIn("makes these ids of no dialogue", self.complaints(statement="Ice is wet.")[0])
        self.assertIn("makes these ids of no dialogue", self.complaints(statement="Snow is black.")[0])
        self.assertIn("has label 1", self.complaints(label=0)[0])
        self.assertIn("the mask", self.complaints(n_masked=4)[0])


class BenchTest(unittest.TestCase):
    """The estimate and the interval of paired ratios."""

    def test_interval_of_few_and_of_many_blocks(self):
        estimate, low, high, confidence = peer_bench.ratio_interval([1.0, 2.0, 4.0, 8.0, 16.0])
        self.assertAlmostEqual(estimate, 4.0)
        self.assertAlmostEqual(low, 1.0)
        self.assertAlmostEqual(high, 16.0)
        self.assertEqual(confidence, 1 - 2 / 32)
        # 10 observations: the largest rank sum whose two tails hold at most 5 % is 8, of 1024 sign assignments 25.
        ratios = [float(np.exp(value)) for value in range(10)]
        estimate, low, high, confidence = peer_bench.ratio_interval(ratios)
        self.assertEqual(confidence, 1 - 2 * 25 / 1024)
        means = sorted((a + b) / 2 for a in range(10) for b in range(a, 10))
        self.assertAlmostEqual(np.log(low), means[8])
        self.assertAlmostEqual(np.log(high), means[-9])


class FamilyGoldens(unittest.TestCase):
    """The committed goldens of all families, by the reference alone."""

    def stored(self, case):
        """`(weights, rows of tokens, hidden states)` of a case."""
        directory = make_family_goldens.DEFAULT_OUT / case.name
        golden = load_file(directory / "golden.safetensors")
        weights = make_family_goldens.stored_weights(directory)
        rows, hidden = (
            [golden[f"{part}.{index}"] for index in range(len(golden) // 2)] for part in ("tokens", "hidden")
        )
        return weights, rows, hidden

    def test_reference_agrees_with_every_case(self):
        for case in make_family_goldens.CASES:
            weights, rows, hidden = self.stored(case)
            own = [families_reference.hidden_states(case.spec, weights, tokens) for tokens in rows]
            self.assertLess(make_family_goldens.worst_error(own, hidden), 2e-6, case.name)

    def test_every_mistake_is_visible_in_some_case(self):
        effects = {}
        for case in make_family_goldens.CASES:
            weights, rows, hidden = self.stored(case)
            for mistake in families_reference.possible_mistakes(case.spec, max(case.lengths)):
                if mistake in effects:
                    continue
                wrong = [families_reference.hidden_states(case.spec, weights, tokens, mistake) for tokens in rows]
                effects[mistake] = make_family_goldens.worst_error(hidden, wrong)
        self.assertGreater(len(effects), 45)
        for mistake, effect in effects.items():
            self.assertGreater(effect, 1.5e-4 if mistake == "other_gelu" else 5e-2, mistake)


if __name__ == "__main__":
    unittest.main()
