#!/usr/bin/env python3
"""Makes the reference values that the forward pass is tested against: fixtures/data/goldens/<case>/.

Each case is a tiny random Llama as a Hugging Face directory (config.json, model.safetensors or shards with an index)
and `golden.safetensors` with, for each sequence i,

    tokens.<i>   int32   [len]
    hidden.<i>   float32 [n_layers, len, hidden]   output of each decoder block, before the final norm

How the numbers are made. The directory is written first and then read back by transformers, so that what is committed
is what was computed from: weights rounded to the stored type, the config in the spelling of the file. The model runs
on the CPU in float64, one sequence at a time, without padding; transformers does RMSNorm's square mean and the RoPE
angles in float32 even then, which leaves an error near 1e-7. Block outputs come from forward hooks, because
`hidden_states[-1]` of transformers has the final norm applied. They are rounded to float32 once, at the end.

What is checked before anything is kept:
- a second implementation (llama_reference.py, numpy, float64, given the intended settings and not the file's config)
  agrees within 2e-6;
- each mistake that could be made with such a model moves some block's output by at least 5e-2 (tests allow 1e-4 in
  f32 and 2e-2 in bf16 and fp16), so no golden is blind to what it is there for, whatever type the test runs in;
- transformers itself, run in bf16 and in fp16, is within 1.5e-2, so that the tests' 2e-2 is fair;
- activations are neither vanishing nor exploding.

The weights are not the usual normal(0, 0.02), which would make every attention uniform and every block a small
correction: projections are scaled so that attention logits have a standard deviation near 1.7 and each block adds a
good part of the residual stream's own size, norm weights and biases are spread, and four rows of the embedding are
tiny, so that the norm's eps counts. Larger gains were tried (1.2 everywhere) and given up: bf16 then
loses 3 to 4 %. Sequences share prefixes, and one is a prefix of another, so the goldens also serve tests of prefix
sharing.

Deterministic: weights and tokens come from numpy's PCG64 seeded with the case's name, torch runs on one thread, and
files carry no date. Two runs on one machine with the versions of requirements.txt give the same bytes (`--check` runs
the generator again and compares with the directory). On another CPU the order of float64 sums may differ and flip the
last bit of a few float32 values of golden.safetensors; the models stay the same.

Usage: python scripts/make_goldens.py [--out DIR] [--only CASE] [--check]
"""

import argparse
import dataclasses
import filecmp
import json
import logging
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import llama_reference

DEFAULT_OUT = Path(__file__).resolve().parent.parent / "fixtures" / "data" / "goldens"
SECOND_OPINION_TOLERANCE = 2e-6
SMALLEST_EFFECT = 5e-2
HALF_PRECISION_TOLERANCE = 1.5e-2
TINY_EMBEDDING_ROWS = 4

TORCH_TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclasses.dataclass
class Case:
    """One model and its sequences. `spelling` is how config.json says it: see `spell`."""

    name: str
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    n_layers: int = 2
    tied: bool = False
    stored: str = "bf16"
    spelling: str = "transformers-5"
    rope_theta: float = 10_000.0
    rope_scaling: dict | None = None
    rms_norm_eps: float = 1e-5
    attention_bias: bool = False
    mlp_bias: bool = False
    lengths: tuple = (1, 2, 5, 11, 17, 31, 40)
    shard_size: str | None = None

    def rope_parameters(self):
        """RoPE's settings in the spelling of transformers 5."""
        return {"rope_theta": self.rope_theta, **(self.rope_scaling or {"rope_type": "default"})}


def llama3(factor, low, high, context):
    """Llama 3's RoPE scaling with a context so short that all three bands show at the lengths used here."""
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


def linear(factor):
    """Linear RoPE scaling: every frequency divided by `factor`."""
    return {"rope_type": "linear", "factor": factor}


# Columns: hidden, heads, kv heads, head_dim, intermediate, vocabulary. Widths that are no multiple of 16 or 32 are
# meant: they find loops that forget the remainder.
# fmt: off
CASES = [
    Case("mha-f32-minimal-config", 32, 4, 4, 8, 50, 61, n_layers=3, stored="f32", spelling="minimal",
         rms_norm_eps=1e-6),
    Case("gqa2-bf16-tied", 48, 4, 2, 12, 70, 97, tied=True, rope_theta=100_000.0),
    Case("gqa2-f16-both-biases", 40, 4, 2, 10, 56, 101, stored="f16", attention_bias=True, mlp_bias=True),
    Case("gqa3-bf16-nine-heads", 36, 9, 3, 16, 66, 131, tied=True, rope_theta=100_000.0, spelling="transformers-4"),
    Case("gqa3-f32-head-dim-64", 24, 3, 1, 64, 37, 89, stored="f32", rope_theta=50_000.0, lengths=(1, 3, 9, 20)),
    Case("gqa4-bf16-llama3-rope", 64, 8, 2, 16, 90, 151, tied=True, rope_theta=500_000.0,
         rope_scaling=llama3(8.0, 1.0, 4.0, 96)),
    Case("gqa4-f32-llama3-rope-scaling", 32, 4, 1, 16, 44, 67, stored="f32", spelling="transformers-4",
         rope_scaling=llama3(4.0, 1.0, 3.0, 64)),
    Case("gqa8-f16", 48, 16, 2, 8, 72, 299, stored="f16", tied=True, rms_norm_eps=1e-6),
    Case("mqa-bf16-five-heads", 40, 5, 1, 24, 53, 79, n_layers=4, lengths=(1, 4, 12, 25)),
    Case("mha-f16-linear-rope-type", 30, 3, 3, 10, 41, 73, stored="f16", spelling="transformers-4-type",
         rope_scaling=linear(4.0)),
    Case("gqa2-bf16-linear-rope", 32, 2, 1, 26, 45, 83, rope_theta=1_000.0, rope_scaling=linear(2.5)),
    Case("mha-f32-attention-bias", 24, 2, 2, 12, 40, 61, stored="f32", attention_bias=True),
    Case("gqa3-bf16-mlp-bias", 48, 6, 2, 8, 55, 71, mlp_bias=True, spelling="transformers-4"),
    Case("gqa2-f32-large-eps", 28, 4, 2, 14, 38, 63, stored="f32", rms_norm_eps=0.05, spelling="transformers-4"),
    Case("gqa2-f32-shards", 32, 4, 2, 8, 47, 103, n_layers=3, stored="f32", shard_size="32KB"),
    Case("mha-bf16-head-dim-80", 48, 2, 2, 80, 60, 65, tied=True, lengths=(1, 6, 19, 33)),
    Case("mqa-bf16-head-dim-128", 24, 2, 1, 128, 42, 59, rope_theta=500_000.0, lengths=(1, 7, 22)),
    Case("gqa2-bf16-long-sequences", 24, 4, 2, 16, 34, 257, lengths=(15, 16, 17, 63, 64, 65, 130)),
]
# fmt: on


def generator(case):
    """The case's own random numbers: they stay when other cases come and go."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(case.name.encode())))


def random_parameter(name, shape, rng):
    """Values of one parameter in float64; see the module's text for why they are not normal(0, 0.02)."""
    if name.endswith("norm.weight"):
        return rng.normal(1.0, 0.3, shape)
    if name.endswith(".bias"):
        return rng.normal(0.0, 0.4, shape)
    if "embed_tokens" in name:
        values = rng.normal(0.0, 1.0, shape)
        # Mean square 1e-6: next to it an eps of 1e-5 or 1e-6 is not negligible.
        values[:TINY_EMBEDDING_ROWS] *= 1e-3
        return values
    # Rows of unit length times a gain: 1.3 for queries and keys makes logits of standard deviation near 1.3^2.
    gain = 1.3 if ("q_proj" in name or "k_proj" in name) else 0.6
    return rng.normal(0.0, gain / np.sqrt(shape[1]), shape)


def random_sequences(case, rng):
    """Token sequences of the case's lengths, the last three of them sharing prefixes."""
    sequences = [rng.integers(0, case.vocab_size, length) for length in case.lengths]
    for tokens in sequences:
        if len(tokens) > 1:
            tokens[len(tokens) // 2] = rng.integers(0, TINY_EMBEDDING_ROWS)
    shorter, middle, longest = sequences[-3:]
    middle[: len(shorter)] = shorter
    longest[: len(middle) // 3] = middle[: len(middle) // 3]
    longest[-1] = case.vocab_size - 1
    return [tokens.astype(np.int32) for tokens in sequences]


def spell(config, case):
    """`config` (a dict as transformers 5 writes it) in the case's spelling.

    transformers-5: as is, `rope_parameters` and `dtype`. transformers-4: `rope_theta`, `rope_scaling` with `rope_type`,
    `torch_dtype`. transformers-4-type: the same with the older key `type`. minimal: what the first Llama configs had,
    everything with a default left out.
    """
    if case.spelling == "transformers-5":
        return config
    spelled = {key: value for key, value in config.items() if key not in ("rope_parameters", "transformers_version")}
    spelled["torch_dtype"] = spelled.pop("dtype")
    spelled["rope_theta"] = case.rope_theta
    spelled["rope_scaling"] = dict(case.rope_scaling) if case.rope_scaling else None
    if case.spelling == "transformers-4-type":
        spelled["rope_scaling"]["type"] = spelled["rope_scaling"].pop("rope_type")
    if case.spelling == "minimal":
        for key in (
            "num_key_value_heads",
            "head_dim",
            "attention_bias",
            "attention_dropout",
            "mlp_bias",
            "rope_theta",
            "rope_scaling",
            "tie_word_embeddings",
            "pretraining_tp",
        ):
            del spelled[key]
    return dict(sorted(spelled.items()))


def write_model(case, rng, directory):
    """Writes config and weights as transformers does, then respells the config."""
    config = LlamaConfig(
        vocab_size=case.vocab_size,
        hidden_size=case.hidden_size,
        intermediate_size=case.intermediate_size,
        num_hidden_layers=case.n_layers,
        num_attention_heads=case.n_heads,
        num_key_value_heads=case.n_kv_heads,
        head_dim=case.head_dim,
        max_position_embeddings=256,
        rms_norm_eps=case.rms_norm_eps,
        tie_word_embeddings=case.tied,
        rope_parameters=case.rope_parameters(),
        attention_bias=case.attention_bias,
        mlp_bias=case.mlp_bias,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.from_numpy(random_parameter(name, tuple(parameter.shape), rng)))
    model = model.to(TORCH_TYPES[case.stored])
    model.save_pretrained(directory, max_shard_size=case.shard_size or "1GB")
    # Settings of text generation, which nothing here does.
    (directory / "generation_config.json").unlink(missing_ok=True)
    config_path = directory / "config.json"
    spelled = spell(json.loads(config_path.read_text()), case)
    config_path.write_text(json.dumps(spelled, indent=2) + "\n")


def block_outputs(directory, dtype, sequences):
    """Every block's output by transformers for each sequence, `[n_layers, len, hidden]` float64, weights as `dtype`."""
    model = LlamaForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa").eval()
    return caught_outputs(model.model, model.model.layers, sequences)


def caught_outputs(decoder, blocks, sequences, prepare=lambda: None):
    """Outputs of `blocks` for each sequence, `[len(blocks), len, hidden]` float64; calls `prepare` before each."""
    caught = []

    def catch(_module, _inputs, output):
        caught.append(output if torch.is_tensor(output) else output[0])

    for block in blocks:
        block.register_forward_hook(catch)
    results = []
    with torch.no_grad():
        for tokens in sequences:
            caught.clear()
            prepare()
            decoder(input_ids=torch.from_numpy(tokens).long()[None], use_cache=False)
            results.append(torch.cat(caught).double().numpy())
    return results


def stored_weights(directory):
    """All tensors of a model directory as float64 arrays."""
    weights = {}
    for path in sorted(directory.glob("*.safetensors")):
        weights.update({name: tensor.double().numpy() for name, tensor in load_file(path).items()})
    return weights


def worst_error(references, others):
    """Largest over layers and sequences of the two relative errors that fixtures/src/golden.rs bounds."""
    worst = 0.0
    for reference, other in zip(references, others, strict=True):
        for a, b in zip(reference, other, strict=True):
            difference = np.abs(a - b)
            errors = (np.linalg.norm(difference) / np.linalg.norm(a), difference.max() / np.abs(a).max())
            if not np.isfinite(errors).all():
                return float("inf")
            worst = max(worst, *errors)
    return worst


def require(condition, case, what):
    """Ends the run when a check of the module's text does not hold."""
    if not condition:
        sys.exit(f"make_goldens: {case.name}: {what}")


def write_golden(directory, sequences, goldens):
    """Writes `golden.safetensors`."""
    tensors = {}
    for index, (tokens, golden) in enumerate(zip(sequences, goldens, strict=True)):
        tensors[f"tokens.{index}"] = tokens
        tensors[f"hidden.{index}"] = golden.astype(np.float32)
    made_by = {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "arithmetic": "float64",
    }
    # One key only: the order of several is not fixed in the header.
    save_file(tensors, directory / "golden.safetensors", metadata={"made_by": json.dumps(made_by)})


def make(case, directory):
    """Writes one case and returns a line about it."""
    directory.mkdir(parents=True)
    rng = generator(case)
    write_model(case, rng, directory)
    sequences = random_sequences(case, rng)
    goldens = block_outputs(directory, torch.float64, sequences)

    weights = stored_weights(directory)
    require(("lm_head.weight" in weights) != case.tied, case, "tied embeddings are not stored as they should be")
    own = [llama_reference.hidden_states(case, weights, tokens) for tokens in sequences]
    disagreement = worst_error(own, goldens)
    require(disagreement <= SECOND_OPINION_TOLERANCE, case, f"two implementations differ by {disagreement:.1e}")

    if case.rope_scaling and case.rope_scaling["rope_type"] == "llama3":
        bands = llama_reference.rope_bands(case)
        require(min(bands) > 0, case, f"a band of the RoPE scaling is empty: {bands}")
    effects = {}
    for mistake in llama_reference.possible_mistakes(case):
        wrong = [llama_reference.hidden_states(case, weights, tokens, mistake) for tokens in sequences]
        effects[mistake] = worst_error(own, wrong)
    faintest = min(effects, key=effects.get)
    require(effects[faintest] >= SMALLEST_EFFECT, case, f"{faintest} changes only {effects[faintest]:.1e}")

    halves = {}
    for dtype in ("bf16", "f16"):
        halves[dtype] = worst_error(goldens, block_outputs(directory, TORCH_TYPES[dtype], sequences))
        require(
            halves[dtype] <= HALF_PRECISION_TOLERANCE, case, f"transformers in {dtype} is off by {halves[dtype]:.1e}"
        )
    size = np.sqrt(np.mean(np.concatenate([golden.reshape(-1) for golden in goldens]) ** 2))
    require(0.5 <= size <= 20.0, case, f"hidden states have a root mean square of {size:.2g}")

    write_golden(directory, sequences, goldens)
    kilobytes = sum(path.stat().st_size for path in directory.iterdir()) / 1024
    return (
        f"{case.name:30} {kilobytes:6.0f} KiB  rms {size:4.1f}  second opinion {disagreement:.0e}"
        f"  bf16 {halves['bf16']:.1e}  f16 {halves['f16']:.1e}  faintest mistake {effects[faintest]:.0e} ({faintest})"
    )


def differences(left, right):
    """Names of files that differ between two case directories or are in one only."""
    names = {path.name for path in left.iterdir()} | {path.name for path in right.iterdir()}
    _, differing, missing = filecmp.cmpfiles(left, right, sorted(names), shallow=False)
    return differing + missing


def keep_cases(cases, arguments, make):
    """Makes the chosen cases and keeps them in `--out`, or compares them with those there; returns what differs."""
    changed = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases:
            if arguments.only not in (None, case.name):
                continue
            made, kept = Path(temporary) / case.name, arguments.out / case.name
            print(make(case, made), flush=True)
            if arguments.check:
                changed += [f"{case.name}/{name}" for name in (differences(made, kept) if kept.is_dir() else ["*"])]
                continue
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(made, kept)
    if not arguments.only:
        known = {case.name for case in cases}
        stale = sorted(path.name for path in arguments.out.glob("*") if path.is_dir() and path.name not in known)
        changed += [f"{name} (no such case any more; remove it)" for name in stale]
    return changed


def main():
    parser = argparse.ArgumentParser(description="Make the golden models and their hidden states.")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, help="directory of the cases (default: fixtures/data/goldens)"
    )
    parser.add_argument("--only", metavar="CASE", choices=[case.name for case in CASES], help="make this case alone")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the directory's bytes would change")
    arguments = parser.parse_args()
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is a file")

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)

    changed = keep_cases(CASES, arguments, make)
    if changed:
        sys.exit("make_goldens: not what this script makes: " + ", ".join(changed))


if __name__ == "__main__":
    main()
