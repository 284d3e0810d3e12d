#!/usr/bin/env python3
"""Compares the layer numbering with transformers: `check_layers.py ACTBENCH DIRECTORY`.

A small random model in DIRECTORY runs in actbench and, row by row in float32, in transformers with `output_hidden_states`.
Layer N must be `hidden_states[N + 1]`, and for the last block must be its output before the final norm, which
`hidden_states[-1]` has behind it. Needs: numpy, safetensors, torch, transformers.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from actbench_files import load

TOKENIZER = Path(__file__).resolve().parent.parent / "fixtures" / "data" / "tokenizer"
N_LAYERS = 4


def write_model(directory):
    config = transformers.LlamaConfig(
        vocab_size=49_152, hidden_size=64, intermediate_size=128, num_hidden_layers=N_LAYERS, num_attention_heads=4
    )
    config.num_key_value_heads, config.head_dim = 2, 16
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Blocks that change the hidden state, and norms that are not the identity.
            weight.copy_(torch.randn_like(weight) * 0.2 + (1 if "norm" in name else 0))
    model.save_pretrained(directory)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, directory / file.name)
    return model


def pooled(hidden, mask):
    return hidden[0][mask].mean(0).numpy()


def error(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def main():
    program, directory = sys.argv[1], Path(sys.argv[2]) / "model"
    directory.mkdir()
    model = write_model(directory)
    path = directory.parent / "layers.features"
    command = [program, "features", "--model", directory, "--dtype", "fp32", "--samples", 12, "--sweep-layers", N_LAYERS]
    subprocess.run([*map(str, command), "--device-map", "cpu", "--out", str(path)], check=True)
    file = load(path)
    tokens, mask, offsets = file.stored("tokens"), file.stored("mask"), file.stored("offsets")
    captured = []
    model.model.layers[-1].register_forward_hook(
        lambda _, __, output: captured.append(output[0] if isinstance(output, tuple) else output)
    )
    worst = np.zeros(N_LAYERS)
    nearest_other = np.full(N_LAYERS, np.inf)
    worst_last, worst_norm = 0.0, 0.0
    with torch.no_grad():
        for row in range(len(file.rows)):
            ids = torch.from_numpy(tokens[offsets[row] : offsets[row + 1]].astype(np.int64))[None]
            chosen = torch.from_numpy(mask[offsets[row] : offsets[row + 1]].astype(bool))
            states = model(ids, output_hidden_states=True).hidden_states
            assert len(states) == N_LAYERS + 1
            block = captured.pop()
            block = block if block.dim() == 3 else block[None]
            for layer in range(N_LAYERS):
                ours = file.numpy(layer)[row]
                worst[layer] = max(worst[layer], error(ours, pooled(states[layer + 1], chosen)))
                others = [error(ours, pooled(states[n], chosen)) for n in range(N_LAYERS + 1) if n != layer + 1]
                nearest_other[layer] = min(nearest_other[layer], *others)
            last = file.numpy(N_LAYERS - 1)[row]
            worst_last = max(worst_last, error(last, pooled(block, chosen)))
            worst_norm = max(worst_norm, error(pooled(model.model.norm(block), chosen), pooled(states[-1], chosen)))
    print(f"largest relative difference of layer N and hidden_states[N + 1]: {np.array2string(worst, precision=2)}")
    print(f"smallest of layer N and any other hidden state: {np.array2string(nearest_other, precision=2)}")
    print(f"last layer and the last block's output: {worst_last:.1e}; its norm and hidden_states[-1]: {worst_norm:.1e}")
    assert (worst[:-1] < 1e-4).all() and (nearest_other > 1e-2).all(), "layer N is not hidden_states[N + 1]"
    assert worst_last < 1e-4, "the last layer is not the output of the last block"
    assert worst[-1] > 1e-2 and worst_norm < 1e-5, "hidden_states[-1] does not have the final norm applied"
    print("layer N is hidden_states[N + 1], except for the last block, where hidden_states[-1] has the final norm applied")


if __name__ == "__main__":
    main()
