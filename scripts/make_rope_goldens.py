#!/usr/bin/env python3
"""make_rope_goldens.py: writes harness/activations/tests/data/rope_goldens.jsonl, the rotary frequencies of transformers 5.24 for configurations
that spell them in many ways. One line a configuration: the keys added to a small Llama's config.json, and `frequencies` in radians a position,
or `error`, the exception of transformers. Needs torch and transformers."""

import copy
import itertools
import json
import logging
import pathlib
import random
import warnings

import torch
import transformers
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

BASE = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ABSENT = object()
BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}

# The dimensions of a spelling. Every pair of values occurs together.
CHOICES = {
    "container": ["rope_parameters", "rope_scaling", "both", "empty scaling", "null scaling"],
    "kind": [ABSENT, "default", "linear", "llama3", "llama3", None, "yarn", "dynamic"],
    "kind_key": ["rope_type", "type", "equal", "conflict", "null with type"],
    "outer_theta": [ABSENT, ABSENT, 10000.0, 500000, None],
    "inner_theta": [ABSENT, 20000.0, 500000.0, None],
    "factor": [8.0, 8, 2.5, ABSENT, None, "8"],
    "outer_original": [ABSENT, ABSENT, ABSENT, 32, None],
    "inner_original": [ABSENT, 64, 64, None],
    "max_positions": [256, ABSENT],
    "partial": [ABSENT, ABSENT, "outer 1", "inner 1", "outer 0.5, inner 1", "inner 0.5"],
    "nested": [False, False, False, "undeclared", "declared"],
}


def put(target, key, value):
    if value is not ABSENT:
        target[key] = value


def configuration(choice):
    config, inner = {}, {}
    kind, key = choice["kind"], choice["kind_key"]
    if kind is not ABSENT:
        if key in ("rope_type", "equal", "conflict"):
            inner["rope_type"] = kind
        if key in ("type", "equal"):
            inner["type"] = kind
        if key == "conflict":
            inner["type"] = "linear" if kind == "default" else "default"
        if key == "null with type":
            inner.update({"rope_type": None, "type": kind})
    put(inner, "factor", choice["factor"] if kind not in (ABSENT, "default", None) else ABSENT)
    put(inner, "rope_theta", choice["inner_theta"])
    if kind == "llama3":
        inner.update(BANDS)
        put(inner, "original_max_position_embeddings", choice["inner_original"])
    put(config, "original_max_position_embeddings", choice["outer_original"])
    put(config, "rope_theta", choice["outer_theta"])
    put(config, "max_position_embeddings", choice["max_positions"])
    partial = choice["partial"]
    if partial is not ABSENT:
        for part in partial.split(", "):
            place, value = part.split()
            (config if place == "outer" else inner)["partial_rotary_factor"] = float(value)
    if choice["nested"]:
        inner = {"full_attention": inner}
        if choice["nested"] == "declared":
            config["layer_types"] = ["full_attention"] * 2
    container = choice["container"]
    other = {"rope_type": "linear", "factor": 4.0, "rope_theta": 30000.0}
    if container == "both":
        config.update({"rope_scaling": inner, "rope_parameters": other})
    elif container == "empty scaling":
        config.update({"rope_scaling": {}, "rope_parameters": inner})
    elif container == "null scaling":
        config.update({"rope_scaling": None, "rope_parameters": inner})
    else:
        config[container] = inner
    return config


def pairs(choice):
    return set(itertools.combinations(sorted((key, str(value) if value is not ABSENT else "absent") for key, value in choice.items()), 2))


def choices():
    """Random choices that add a pair not seen yet, then some more in which transformers computes frequencies."""
    generator = random.Random(19)
    draw = lambda: {key: generator.choice(values) for key, values in CHOICES.items()}
    seen = set()
    for _ in range(4000):
        choice = draw()
        if not pairs(choice) <= seen:
            seen |= pairs(choice)
            yield choice
    plain = {"kind": ["linear", "llama3", "default", ABSENT], "kind_key": ["rope_type", "type", "equal", "conflict"], "nested": [False], "factor": [8.0, 2.5],
             "inner_theta": [ABSENT, 20000.0], "outer_theta": [ABSENT, 10000.0, 500000], "outer_original": [ABSENT, 32], "inner_original": [ABSENT, 64]}
    for _ in range(150):
        yield draw() | {key: generator.choice(values) for key, values in plain.items()}


def reference(config):
    full = copy.deepcopy(BASE | config)
    try:
        embedding = LlamaRotaryEmbedding(LlamaConfig.from_dict(full))
        assert embedding.attention_scaling == 1.0 or embedding.rope_type == "yarn"
        # The forward pass finds a shape that does not fit, and a scale of another kind.
        position = torch.arange(4)[None]
        cos, _ = embedding(torch.zeros(1, 4, 8), position)
        if cos.shape[-1] != 8:
            return {"error": f"rotates {cos.shape[-1]} of 8 elements"}
        return {"frequencies": embedding.inv_freq.tolist()}
    except Exception as error:  # noqa: BLE001: any failure of transformers is a refusal
        return {"error": type(error).__name__}


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    assert transformers.__version__.startswith("5.24"), transformers.__version__
    lines = {}
    for choice in choices():
        config = configuration(choice)
        lines[json.dumps(config)] = json.dumps({"config": config} | reference(config))
    path = pathlib.Path(__file__).resolve().parent.parent / "harness/activations/tests/data/rope_goldens.jsonl"
    path.write_text("".join(line + "\n" for line in lines.values()))
    computed = sum("frequencies" in line for line in lines.values())
    print(f"{len(lines)} configurations, {computed} with frequencies, {path.stat().st_size} bytes")


main()
