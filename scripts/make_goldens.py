#!/usr/bin/env python3
"""Makes the reference values that the forward pass is checked against: fixtures/data/goldens/<case>/.

Each case is a tiny random Llama in Hugging Face's own format (config.json, model.safetensors or shards with an index)
and golden.safetensors with, for each sequence i, tokens.<i> [len] (int32) and hidden.<i> [layers, len, hidden] (f32):
layer j is the output of decoder block j, before the final norm, taken with a forward hook. The reference runs in
float64 on the stored weights and is rounded to float32 once.

Weights are scaled so that every mechanism matters: attention scores spread over several units, norm scales differ from
one, biases differ from zero. The same versions give the same bytes: run it twice and compare.

Needs the packages of scripts/requirements.txt. Run: python scripts/make_goldens.py [--out fixtures/data/goldens]
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

LENGTHS = [1, 7, 23, 40]

# What differs from BASE, case by case; "spelling" and "store" and "shards" are not configuration.
BASE = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
CASES = {
    "mha-tied": dict(num_key_value_heads=6),
    "gqa2-untied": dict(num_attention_heads=8, num_key_value_heads=4, hidden_size=64, tie_word_embeddings=False),
    "gqa3-odd-heads": dict(num_attention_heads=9, num_key_value_heads=3, head_dim=16, hidden_size=72),
    "gqa4-theta": dict(num_attention_heads=8, num_key_value_heads=2, hidden_size=32, rope_theta=500000.0),
    "gqa8-wide-heads": dict(num_attention_heads=8, num_key_value_heads=1, hidden_size=40, head_dim=24),
    "mqa-five-heads": dict(num_attention_heads=5, num_key_value_heads=1, hidden_size=60, head_dim=12,
                           intermediate_size=51),
    "head-80": dict(num_attention_heads=2, num_key_value_heads=1, hidden_size=56, head_dim=80, num_hidden_layers=2),
    "llama3-rope": dict(rope=LLAMA3, num_attention_heads=4, num_key_value_heads=2, head_dim=32, rope_theta=500000.0),
    "llama3-rope-old-spelling": dict(rope=LLAMA3, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                                     spelling="old"),
    "linear-rope": dict(rope=dict(rope_type="linear", factor=4.0)),
    "linear-rope-old-spelling": dict(rope=dict(rope_type="linear", factor=2.5), spelling="old"),
    "biases": dict(attention_bias=True, mlp_bias=True, rms_norm_eps=1e-3),
    "stored-bf16": dict(store="bfloat16"),
    "stored-f16-sharded": dict(store="float16", shards=3, tie_word_embeddings=False),
}


def randomise(model, generator):
    """Weights at which attention, norms, gates and biases all change the result."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if "norm" in name:
            value = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "q_proj" in name or "k_proj" in name:
            value = 1.6 * noise / parameter.shape[1] ** 0.5
        elif "embed" in name:
            value = noise
        else:
            value = noise / parameter.shape[1] ** 0.5
        parameter.data = value.to(parameter.dtype)


def hidden_states(model, tokens):
    """The output of every decoder block, [layers, len, hidden]."""
    captured = []

    def keep(_module, _inputs, output):
        captured.append((output[0] if isinstance(output, tuple) else output)[0])

    hooks = [layer.register_forward_hook(keep) for layer in model.model.layers]
    with torch.no_grad():
        model.model(input_ids=tokens[None].long(), use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(captured)


def write_weights(folder, model, store, shards):
    """model.safetensors, or as many shards with an index."""
    dtype = getattr(torch, store)
    tied = model.config.tie_word_embeddings
    tensors = {name: value.to(dtype).contiguous() for name, value in model.state_dict().items()
               if not (tied and name == "lm_head.weight")}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    index = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = names[number::shards]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        index.update({name: file for name in part})
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}, indent=1)
    (folder / "model.safetensors.index.json").write_text(text + "\n")


def spelled_config(config, spelling, store):
    """config.json as transformers 5 writes it, or with the names of transformers 4."""
    values = config.to_dict()
    values["architectures"] = ["LlamaForCausalLM"]
    values["dtype"] = store
    values.pop("transformers_version", None)
    values.pop("_name_or_path", None)
    if spelling == "old":
        rope = values.pop("rope_parameters")
        values["rope_theta"] = rope.pop("rope_theta")
        values["torch_dtype"] = values.pop("dtype")
        if rope["rope_type"] == "linear":
            rope["type"] = rope.pop("rope_type")
        values["rope_scaling"] = rope
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def make(name, settings, out, seed):
    settings = {**BASE, **settings}
    spelling = settings.pop("spelling", "new")
    store = settings.pop("store", "float32")
    shards = settings.pop("shards", 1)
    rope = {"rope_type": "default", **settings.pop("rope", {}), "rope_theta": settings.pop("rope_theta")}
    config = LlamaConfig(**settings, rope_parameters=rope, max_position_embeddings=128)
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    randomise(model, generator)
    # The reference starts from what the file holds. Parameters alone are rounded: a model that is cast as a whole
    # rounds its rotary frequencies too, which are no part of the file.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, store)).float()
    folder = out / name
    folder.mkdir(parents=True)
    write_weights(folder, model, store, shards)
    (folder / "config.json").write_text(spelled_config(config, spelling, store))
    reference = model.double()
    golden = {}
    for index, length in enumerate(LENGTHS):
        tokens = torch.randint(0, config.vocab_size, (length,), generator=generator, dtype=torch.int32)
        golden[f"tokens.{index}"] = tokens
        golden[f"hidden.{index}"] = hidden_states(reference, tokens).float().contiguous()
    save_file(golden, folder / "golden.safetensors")
    spread = golden[f"hidden.{len(LENGTHS) - 1}"].std().item()
    print(f"{name}: {sum(path.stat().st_size for path in folder.iterdir()) / 1024:.0f} KiB, spread {spread:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "fixtures/data/goldens")
    arguments = parser.parse_args()
    if arguments.out.exists():
        shutil.rmtree(arguments.out)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, settings) in enumerate(CASES.items()):
        make(name, settings, arguments.out, seed)


if __name__ == "__main__":
    main()
