#!/usr/bin/env python3
"""Makes the reference values of the model families other than plain Llama: fixtures/data/families/<case>/, and of their
rotary tables: fixtures/data/families/rope.json.

A case is what make_goldens.py makes, in the same format, with the same standard: a tiny random model that transformers
wrote, and `golden.safetensors` with `tokens.<i>` (int32 [len]) and `hidden.<i>` (float32 [n_layers, len, hidden], the
output of each block before the final norm, by forward hooks). The numbers come from transformers on the CPU in float64,
read back from the directory, with `attn_implementation="eager"` (Gemma 2 has no other with its soft caps), one row at a
time, without padding. family_cases.py has the cases. Some spell config.json as the checkpoints on the Hub do, and some
have the tensor names and the superfluous tensors of those: the masks of GPT-2 and Pythia, a vision tensor of Gemma 3.
Of Gemma 3 with images only the language part and that one tensor are kept.

transformers keeps the rotary table of the longest row so far where rope is dynamic, so that its numbers would depend on
the order of rows. Here each row gets a table of its own.

What is checked before anything is kept:
- families_reference.py (numpy, float64, given the intended settings and not config.json) agrees within 2e-6;
- each mistake that it can make with such a model moves some block's output by at least 5e-2. Only the other form of
  GELU is fainter by nature, since the two differ by 5e-4 at most; it moves one by 1.5e-4, and tests allow 1e-4 in f32;
- transformers itself in bf16 and in fp16 is within 1.5e-2, so that the tests' 2e-2 is fair;
- no token is near a tie of experts: the last chosen logit of the router is at least 0.04 larger than the first that is
  not, several times what half precision moves it;
- activations are neither vanishing nor exploding;
- of the tensors that transformers expects only those of the vision part are missing.

Weights are scaled as in make_goldens.py. Where the outputs of attention and MLP are normed, the weights of these norms
and of those of queries and keys are smaller, since bf16 loses more there, and the embedding is scaled to about 1, so
that a block still changes a good part of the residual stream. A soft cap is of the size of the logits. Where the checks
did not hold with the first random numbers, family_cases.py names a seed with which they do.

rope.json has `base`, keys of config.json that are the same for all, and `entries`. Each entry has `family` (the
`model_type`), `config` (more keys of config.json), `length` (tokens of the row), and `tables`: `layer_type` (null if
one table serves all layers), `inv_freq` (radians per position; float32 in transformers) and `attention_scaling` (the
factor of cosine and sine). In place of `tables` there may be `error`, the exception of transformers. Values come from
the rotary embedding of the family's own class after a forward pass over a row of that length. family_ropes.py has the
entries.

Deterministic as make_goldens.py is. `--check` makes everything again and compares bytes; `--report` prints what the
checks measure, without ending at the first that fails.

Usage: python scripts/make_family_goldens.py [--out DIR] [--only CASE] [--check] [--report]
"""

import argparse
import json
import logging
import math
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch_file

import families_reference
import family_ropes
from family_cases import CASES
from make_goldens import (
    HALF_PRECISION_TOLERANCE,
    SECOND_OPINION_TOLERANCE,
    SMALLEST_EFFECT,
    TINY_EMBEDDING_ROWS,
    TORCH_TYPES,
    caught_outputs,
    keep_cases,
    random_sequences,
    stored_weights,
    worst_error,
    write_golden,
)

DEFAULT_OUT = Path(__file__).resolve().parent.parent / "fixtures" / "data" / "families"
# In place of SMALLEST_EFFECT, and why.
SMALLEST_EFFECTS = {
    # The two forms of GELU differ by at most 4.7e-4.
    "other_gelu": 1.5e-4,
}
# Between the logits of the last chosen expert and the next one; the logits have a standard deviation of about 1.
SMALLEST_ROUTER_MARGIN = 0.04
VISION_TENSOR = "vision_tower.vision_model.embeddings.patch_embedding.weight"


def generator(case):
    """The case's own random numbers: they stay when other cases come and go."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"{case.name} {case.seed}".encode())))


def projection_gains(name, shape, spec):
    """Standard deviation of each output of a projection for inputs of size 1, `[outputs]`."""
    q_size, kv_size = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    queries_and_keys = 0.9 if spec.block == "sandwich" else 1.3
    gate, others = 1.0 if spec.activation == "silu" else 1.6, 0.6
    if "qkv_proj" in name or "c_attn" in name:
        return np.repeat([queries_and_keys, others], [q_size + kv_size, kv_size])
    if "query_key_value" in name:
        head = np.repeat([queries_and_keys, others], [2 * spec.head_dim, spec.head_dim])
        return np.tile(head, spec.heads)
    if "q_proj" in name or "k_proj" in name:
        return np.full(shape[0], queries_and_keys)
    if "up_proj" in name and "gate" not in name and spec.activation != "silu":
        return np.full(shape[0], 1.0)
    if any(part in name for part in ("gate_proj", "c_fc", "dense_h_to_4h")):
        return np.full(shape[1] if "c_fc" in name else shape[0], gate)
    return np.full(shape[1] if spec.layout.startswith("gpt2") else shape[0], others)


def random_parameter(name, shape, case, rng):
    """Values of one parameter in float64; see the module's text for the scales."""
    spec = case.spec
    is_norm = "norm" in name or "ln_" in name
    if is_norm and name.endswith(".bias"):
        return rng.normal(0.0, 0.3, shape)
    if is_norm:
        mean, deviation = 1.0, 0.3
        if "q_norm" in name or "k_norm" in name:
            mean, deviation = 0.75 if spec.block == "sandwich" else 1.1, 0.25
        elif spec.block == "sandwich" and "post_" in name:
            # Half precision loses digits with each block; seven of them allow less.
            mean, deviation = (0.3, 0.08) if spec.layers > 4 else (0.45, 0.12)
        return rng.normal(mean - (spec.norm == "rms+1"), deviation, shape)
    if name.endswith(".bias"):
        return rng.normal(0.0, 0.4, shape)
    if any(part in name for part in ("embed_tokens", "embed_in", "wte")):
        values = rng.normal(0.0, 1.0 / spec.embedding_scale, shape)
        values[:TINY_EMBEDDING_ROWS] *= 1e-3
        return values
    if "wpe" in name:
        return rng.normal(0.0, 0.5, shape)
    if "mlp.gate.weight" in name:
        return rng.normal(0.0, 1.0, shape) / math.sqrt(shape[1])
    if ".experts." in name:
        # Gate and up are stacked in each expert. An expert has a part of the weight of an MLP.
        gains = np.full(shape[1], 1.4)
        if "gate_up" in name:
            gains = np.repeat([1.0, 0.6], shape[1] // 2)
        return rng.normal(0.0, 1.0, shape) * gains[None, :, None] / math.sqrt(shape[2])
    if len(shape) != 2 or "vision" in name or "multi_modal" in name:
        return rng.normal(0.0, 0.1, shape)
    gains = projection_gains(name, shape, spec)
    if "lm_head" in name or "embed_out" in name:
        gains = np.full(shape[0], 0.6)
        return rng.normal(0.0, 1.0, shape) * gains[:, None] / math.sqrt(shape[1])
    if spec.layout.startswith("gpt2"):
        return rng.normal(0.0, 1.0, shape) * gains / math.sqrt(shape[0])
    return rng.normal(0.0, 1.0, shape) * gains[:, None] / math.sqrt(shape[1])


def model_class(case):
    """The class that reads and writes the case's directory."""
    if case.family == "gemma3":
        return transformers.Gemma3ForConditionalGeneration
    return transformers.AutoModelForCausalLM


def decoder_of(model):
    """The part without the head, and its blocks."""
    for path in ("model.language_model", "model", "gpt_neox", "transformer"):
        try:
            decoder = model.get_submodule(path)
        except AttributeError:
            continue
        return decoder, decoder.h if hasattr(decoder, "h") else decoder.layers
    sys.exit(f"make_family_goldens: {type(model).__name__} has no decoder")


def respell(config, case):
    """`config` as transformers 5 writes it, in the case's spelling."""
    spelled = dict(config)
    text = spelled["text_config"] = dict(spelled["text_config"]) if "text_config" in spelled else spelled
    if text is spelled:
        del spelled["text_config"]
    if case.published is not None:
        spelled.pop("transformers_version", None)
        for part in (spelled, text):
            part.pop("rope_parameters", None)
            if "dtype" in part:
                part["torch_dtype"] = part.pop("dtype")
        text.update(case.published)
    for key in case.absent:
        text.pop(key, None)
    return dict(sorted(spelled.items()))


def rename(tensors, case, config):
    """The tensors of a saved model as the case's file has them."""
    if case.family == "gemma3":
        kept = {name: tensor for name, tensor in tensors.items() if name.startswith("language_model.")}
        # transformers 5 leaves a part of the published name out.
        return kept | {VISION_TENSOR: tensors[VISION_TENSOR.replace("vision_model.", "")]}
    if not case.bare_names:
        return tensors
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(case.spec.layers):
        if case.family == "gpt2":
            length = config["n_positions"]
            renamed[f"h.{layer}.attn.bias"] = torch.ones(length, length).tril()[None, None]
            continue
        length = config["max_position_embeddings"]
        prefix = f"gpt_neox.layers.{layer}.attention."
        renamed[prefix + "bias"] = torch.ones(length, length, dtype=torch.uint8).tril()[None, None]
        renamed[prefix + "masked_bias"] = torch.tensor(-1e9)
        renamed[prefix + "rotary_emb.inv_freq"] = 10_000.0 ** -(torch.arange(0, 4, 2) / 4)
    return renamed


def write_model(case, rng, directory):
    """Writes config and weights as transformers does, then respells both."""
    config = case.config_class(**case.config, tie_word_embeddings=case.tied)
    if case.family == "gemma3":
        config.text_config.tie_word_embeddings = case.tied
        model = transformers.Gemma3ForConditionalGeneration(config)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.from_numpy(random_parameter(name, tuple(parameter.shape), case, rng)))
    model.to(TORCH_TYPES[case.stored]).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    path = directory / "config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(respell(saved, case), indent=2) + "\n")
    weights = directory / "model.safetensors"
    tensors = rename(load_file(weights), case, saved)
    save_torch_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})


def forget_longer_rows(decoder):
    """Gives a dynamic rotary embedding the table that it had at first."""
    rotary = getattr(decoder, "rotary_emb", None)
    if getattr(rotary, "rope_type", None) == "dynamic":
        rotary.inv_freq = rotary.original_inv_freq.clone()
        rotary.max_seq_len_cached = rotary.original_max_seq_len


def block_outputs(case, directory, dtype, sequences):
    """Every block's output by transformers for each row, `[n_layers, len, hidden]` float64, computed in `dtype`."""
    # The other implementations of experts do not compute in float64.
    experts = {"experts_implementation": "eager"} if case.spec.experts else {}
    model, loading = model_class(case).from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", output_loading_info=True, **experts
    )
    missing = [name for name in loading["missing_keys"] if "vision_tower" not in name and "multi_modal" not in name]
    require(not missing and not loading["unexpected_keys"], case, f"missing {missing}, {loading['unexpected_keys']}")
    decoder, blocks = decoder_of(model.eval())
    return caught_outputs(decoder, blocks, sequences, lambda: forget_longer_rows(decoder))


def require(condition, case, what):
    """Ends the run when a check of the module's text does not hold."""
    if not condition:
        sys.exit(f"make_family_goldens: {case.name}: {what}")


def make(case, directory, report=False):
    """Writes one case and returns a line about it."""
    directory.mkdir(parents=True)
    rng, spec = generator(case), case.spec
    write_model(case, rng, directory)
    sequences = random_sequences(case, rng)
    goldens = block_outputs(case, directory, torch.float64, sequences)

    weights = stored_weights(directory)
    own = [families_reference.hidden_states(spec, weights, tokens) for tokens in sequences]
    disagreement = worst_error(own, goldens)
    effects = {}
    for mistake in families_reference.possible_mistakes(spec, max(case.lengths)):
        wrong = [families_reference.hidden_states(spec, weights, tokens, mistake) for tokens in sequences]
        effects[mistake] = worst_error(own, wrong) / SMALLEST_EFFECTS.get(mistake, SMALLEST_EFFECT)
    faintest = min(effects, key=effects.get)
    margin = math.inf
    if spec.experts:
        margin = min(families_reference.router_margins(spec, weights, tokens).min() for tokens in sequences)
    halves = {name: worst_error(goldens, block_outputs(case, directory, TORCH_TYPES[name], sequences))
              for name in ("bf16", "f16")}  # fmt: skip
    size = np.sqrt(np.mean(np.concatenate([golden.reshape(-1) for golden in goldens]) ** 2))
    kilobytes = sum(path.stat().st_size for path in directory.iterdir()) / 1024
    kilobytes += sum(golden.size for golden in goldens) * 4 / 1024
    line = (
        f"{case.name:32} {kilobytes:5.0f} KiB  rms {size:4.1f}  second opinion {disagreement:.0e}"
        f"  bf16 {halves['bf16']:.1e}  f16 {halves['f16']:.1e}"
        f"  margin {margin:.2f}  faintest mistake {effects[faintest]:.1f} times the bound ({faintest})"
    )
    if report:
        faint = {mistake: f"{effect:.2f}" for mistake, effect in effects.items() if effect < 1.0}
        return f"{line}\n    {faint}" if faint else line

    require(margin >= SMALLEST_ROUTER_MARGIN, case, f"a token is within {margin:.1e} of a tie of experts")
    require(disagreement <= SECOND_OPINION_TOLERANCE, case, f"two implementations differ by {disagreement:.1e}")
    require(effects[faintest] >= 1.0, case, f"{faintest} has {effects[faintest]:.2f} of the effect that it should have")
    for name, error in halves.items():
        require(error <= HALF_PRECISION_TOLERANCE, case, f"transformers in {name} is off by {error:.1e}")
    require(0.5 <= size <= 20.0, case, f"hidden states have a root mean square of {size:.2g}")
    write_golden(directory, sequences, goldens)
    return line


def main():
    parser = argparse.ArgumentParser(description="Make the golden models of all families and their hidden states.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="directory (default: fixtures/data/families)")
    parser.add_argument("--only", metavar="CASE", choices=[case.name for case in CASES], help="make this case alone")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if bytes would change")
    parser.add_argument("--report", action="store_true", help="write nothing; print every check, failed or not")
    arguments = parser.parse_args()
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is a file")

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.CRITICAL)

    if arguments.report:
        with tempfile.TemporaryDirectory() as temporary:
            for case in CASES:
                if arguments.only in (None, case.name):
                    print(make(case, Path(temporary) / case.name, report=True), flush=True)
        return
    changed = keep_cases(CASES, arguments, make)
    if not arguments.only:
        ropes, path = family_ropes.text(), arguments.out / "rope.json"
        if not arguments.check:
            path.write_text(ropes)
        elif not path.is_file() or path.read_text() != ropes:
            changed.append(path.name)
    if changed:
        sys.exit("make_family_goldens: not what this script makes: " + ", ".join(changed))


if __name__ == "__main__":
    main()
