"""The rotary tables of make_family_goldens.py: settings of RoPE in many spellings, and what transformers makes of them.

Among them are spellings that transformers reads otherwise than their writer may have meant, and some that it refuses. A
reader of config.json must give the same tables, or refuse where it does not know.
"""

import copy
import json

import torch
from transformers import AutoConfig, AutoModel

BASE = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
SHORT, LONG = [1.0, 1.05, 1.1, 1.3, 1.5, 1.8, 2.0, 2.4], [1.0, 1.5, 2.5, 4.0, 6.0, 9.0, 13.0, 18.0]
FACTORS = {"short_factor": SHORT, "long_factor": LONG}
PARTIAL = {"short_factor": SHORT[:6], "long_factor": LONG[:6]}
DEFAULT, LINEAR = {"rope_type": "default"}, {"rope_type": "linear", "factor": 8.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip
LONGER = {"max_position_embeddings": 256}
EXTENDED = LONGER | {"original_max_position_embeddings": 64}
LAYER_TYPES = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}


def scaling(theta=10_000.0, **keys):
    """The spelling of transformers 4."""
    return {"rope_theta": theta, "rope_scaling": keys}


def parameters(theta=10_000.0, **keys):
    """The spelling of transformers 5."""
    return {"rope_parameters": {"rope_theta": theta, **keys}}


def by_layer_type(full, sliding):
    return LAYER_TYPES | {"rope_parameters": {"full_attention": full, "sliding_attention": sliding}}


# Family, keys of config.json, tokens of the row.
# fmt: off
SETTINGS = [
    # Default tables.
    ("llama", {}, 8),
    ("llama", {"rope_theta": 500_000}, 8),
    ("llama", parameters(5e5, rope_type="default"), 8),
    ("llama", {"rope_theta": 1e4, "rope_scaling": None}, 8),
    ("llama", LAYER_TYPES | parameters(2e4, rope_type="default") | {"layer_types": ["full_attention"] * 2}, 8),
    ("smollm3", {}, 8),
    ("gemma2", LAYER_TYPES, 8),
    # Linear.
    ("llama", scaling(type="linear", factor=4.0), 8),
    ("mistral", parameters(1e6, rope_type="linear", factor=2.5), 8),
    ("llama", scaling(rope_type="linear", type="dynamic", factor=4.0), 80),
    # Dynamic: at lengths within the context, at its end, one and many tokens beyond.
    ("llama", scaling(type="dynamic", factor=2.0), 64),
    ("llama", scaling(type="dynamic", factor=2.0), 65),
    ("llama", parameters(5e5, rope_type="dynamic", factor=4.0), 200),
    ("olmo2", parameters(5e5, rope_type="dynamic", factor=1.0), 100),
    ("gpt_neox", {"rotary_pct": 0.5, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 100),
    # Llama 3.
    ("llama", scaling(5e5, **LLAMA3), 8),
    ("llama", {"original_max_position_embeddings": 16} | parameters(5e5, **LLAMA3), 8),
    # YaRN.
    ("llama", LONGER | scaling(**YARN), 8),
    ("qwen3", LONGER | parameters(1e6, **YARN), 100),
    ("llama", LONGER | parameters(rope_type="yarn", factor=4.0), 8),
    ("llama", LONGER | parameters(rope_type="yarn", factor=None, original_max_position_embeddings=32), 8),
    ("llama", LONGER | {"original_max_position_embeddings": 32} | parameters(**YARN), 8),
    ("llama", LONGER | parameters(**YARN, truncate=False), 8),
    ("llama", LONGER | parameters(**YARN, beta_fast=4.0, beta_slow=0.25), 8),
    ("llama", LONGER | parameters(**YARN, beta_fast=None, beta_slow=0), 8),
    ("llama", LONGER | parameters(**YARN, attention_factor=1.25), 8),
    ("llama", LONGER | parameters(**YARN, attention_factor=1.25, mscale=1.5, mscale_all_dim=0.5), 8),
    ("llama", LONGER | parameters(**YARN, mscale=1.5, mscale_all_dim=0.5), 8),
    ("llama", LONGER | parameters(**YARN, mscale=1.5), 8),
    ("llama", LONGER | parameters(**YARN, mscale=1.5, mscale_all_dim=0), 8),
    ("llama", LONGER | parameters(**YARN | {"factor": 1.0}), 8),
    ("gpt_neox", LONGER | {"rotary_pct": 0.5, "rope_scaling": YARN}, 8),
    # LongRoPE: short factors, and long ones beyond the original context.
    ("phi3", EXTENDED | scaling(type="longrope", **FACTORS), 64),
    ("phi3", EXTENDED | scaling(type="longrope", **FACTORS), 65),
    ("phi3", EXTENDED | scaling(type="su", **FACTORS), 8),
    ("phi3", EXTENDED | scaling(type="yarn", **FACTORS), 8),
    ("phi3", LONGER | scaling(type="longrope", **FACTORS), 8),
    ("phi3", EXTENDED | scaling(type="longrope", attention_factor=1.19, **FACTORS), 8),
    ("phi3", EXTENDED | scaling(type="longrope", factor=32.0, **FACTORS), 8),
    ("phi3", EXTENDED | {"partial_rotary_factor": 0.75} | scaling(type="longrope", **PARTIAL), 8),
    ("phi3", EXTENDED | parameters(rope_type="longrope", partial_rotary_factor=0.75, **PARTIAL), 70),
    ("llama", LONGER | parameters(rope_type="longrope", original_max_position_embeddings=64, **FACTORS), 8),
    ("llama", EXTENDED | parameters(rope_type="longrope", factor=2.0, **FACTORS), 100),
    ("llama", LONGER | parameters(rope_type="longrope", **FACTORS), 8),
    # A part of the columns. Llama's class ignores it without scaling and fails with it.
    ("phi3", {"partial_rotary_factor": 0.75}, 8),
    ("phi3", parameters(rope_type="default", partial_rotary_factor=0.5), 8),
    ("gpt_neox", {}, 8),
    ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 25_000, "rope_theta": 5e5}, 8),
    ("gpt_neox", {"rotary_pct": 1.0, "partial_rotary_factor": 0.5}, 8),
    ("gpt_neox", {"rotary_pct": 0.3}, 8),
    ("gpt_neox", parameters(rope_type="linear", factor=2.0, partial_rotary_factor=0.5), 8),
    ("llama", {"partial_rotary_factor": 0.5}, 8),
    ("llama", {"partial_rotary_factor": 0.5} | scaling(type="linear", factor=2.0), 8),
    ("qwen2", parameters(rope_type="default", partial_rotary_factor=0.5), 8),
    # Two tables.
    ("gemma3_text", LAYER_TYPES, 8),
    ("gemma3_text", LAYER_TYPES | {"rope_theta": 5e5, "rope_local_base_freq": 2e4}, 8),
    ("gemma3_text", LAYER_TYPES | scaling(1e6, rope_type="linear", factor=8.0), 8),
    ("gemma3_text", LAYER_TYPES | scaling(1e6, type="linear", factor=8.0), 8),
    ("gemma3_text", by_layer_type(LINEAR | {"rope_theta": 1e6}, DEFAULT | {"rope_theta": 1e4}), 8),
    ("gemma3_text", by_layer_type(LINEAR, DEFAULT), 8),
    ("gemma3_text", by_layer_type(LINEAR, None), 8),
    ("gemma3_text", LAYER_TYPES | parameters(5e5, rope_type="linear", factor=8.0), 8),
    ("gemma3_text", LONGER | by_layer_type(YARN | {"truncate": False}, DEFAULT), 8),
    ("qwen2", by_layer_type(DEFAULT | {"rope_theta": 1e6}, DEFAULT | {"rope_theta": 1e4}), 8),
    # Refused, or not known.
    ("llama", scaling(type="linear"), 8),
    ("llama", parameters(rope_type="longrope", short_factor=SHORT), 8),
    ("llama", parameters(rope_type="no such type", factor=2.0), 8),
    ("phi3", scaling(type="linear", factor=2.0), 8),
    ("phi3", scaling(type="longrope", **PARTIAL), 8),
]
# fmt: on


def tables(model):
    """The rotary tables of a model after its forward pass."""
    rotary = model.rotary_emb
    types = [None] if isinstance(rotary.rope_type, str) else sorted(rotary.rope_type)
    found = []
    for layer_type in types:
        prefix = "" if layer_type is None else f"{layer_type}_"
        frequencies = getattr(rotary, prefix + "inv_freq")
        scale = getattr(rotary, prefix + "attention_scaling")
        found.append({
            "layer_type": layer_type,
            "inv_freq": [float(value) for value in frequencies],
            "attention_scaling": float(scale),
        })  # fmt: skip
    return found


def entry(family, config, length):
    """One entry of rope.json."""
    made = {"family": family, "config": config, "length": length}
    try:
        full = AutoConfig.for_model(family, **copy.deepcopy(BASE | config))
        model = AutoModel.from_config(full, attn_implementation="eager").eval()
        with torch.no_grad():
            model(input_ids=torch.ones(1, length, dtype=torch.long), use_cache=False)
    except Exception as error:  # noqa: BLE001: any failure of transformers is a refusal
        return made | {"error": type(error).__name__}
    return made | {"tables": tables(model)}


def text():
    """The contents of rope.json, an entry on each line."""
    lines = [json.dumps(entry(*setting)) for setting in SETTINGS]
    return '{"base": ' + json.dumps(BASE) + ',\n"entries": [\n' + ",\n".join(lines) + "\n]}\n"
