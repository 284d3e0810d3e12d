#!/usr/bin/env python3
"""Checks the imported model directory of a Llama against the GGUF file it came from, with other people's readers.

    check_import.py FILE.gguf MODEL_DIR [--statements FILE.csv]

Needs: gguf, numpy, torch, transformers, tokenizers, safetensors, accelerate. Three checks, each independent of actbench:

weights  every tensor equals gguf-py's dequantization, rows put back in order, rounded to bfloat16: bit for bit
tokens   every statement, as a chat, gives the same ids with the directory in transformers, with the directory in the
         tokenizers package, and with transformers' own reading of the GGUF file
forward  hidden states of transformers' own reading of the GGUF file and of the directory are the same in every bit
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
WHOLE_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

TEXTS = [
    "In 1969, 3 astronauts flew 384400 km; 2.5% of 1,000 is 25.",
    "naïve café — “quoted” … 東京 Ελλάδα 🙂",
    "  leading and trailing  \n\n\ttabs\r\n",
    "don't I'LL we've",
    "x" * 300,
    "²½Ⅷ٣ 12345678901234567890",
    "",
]


def hugging_face_name(name):
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.{parts[3]}"
    return f"{WHOLE_NAMES[parts[0]]}.{parts[1]}"


def put_back(weights, heads):
    """Undoes llama.cpp's reordering of the rows of a query or key projection."""
    rows = weights.shape[0]
    return weights.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weights.shape)


def check_weights(reader, directory):
    config = json.loads((directory / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    with safe_open(directory / "model.safetensors", "pt") as file:
        left = set(file.keys())
        for tensor in reader.tensors:
            if tensor.name == "rope_freqs.weight":
                continue
            weights = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape.tolist())))
            module = tensor.name.split(".")[-2]
            if module in heads:
                weights = put_back(weights, heads[module])
            name = hugging_face_name(tensor.name)
            expected = torch.from_numpy(np.array(weights)).to(torch.bfloat16)
            found = file.get_tensor(name)
            if found.dtype != torch.bfloat16 or found.shape != expected.shape:
                return f"{name}: {found.dtype} {tuple(found.shape)}, expected {tuple(expected.shape)}"
            if not torch.equal(found.view(torch.int16), expected.view(torch.int16)):
                return f"{name}: {int((found != expected).sum())} of {found.numel()} weights differ"
            left.remove(name)
    return f"tensors beyond the GGUF file's: {sorted(left)}" if left else None


def chats(statements):
    if statements is None:
        return []
    with open(statements, newline="", encoding="utf-8") as file:
        rows = [row["statement"] for row in csv.DictReader(file)]
    return [
        [
            {"role": "system", "content": f"You are {kind} AI assistant."},
            {"role": "user", "content": "Please tell me a fact."},
            {"role": "assistant", "content": row},
        ]
        for row in rows
        for kind in ("an honest", "a deceptive")
    ]


def check_tokens(gguf, directory, statements):
    imported = AutoTokenizer.from_pretrained(directory)
    crate = Tokenizer.from_file(str(directory / "tokenizer.json"))
    reference = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    texts = list(TEXTS)
    if imported.chat_template:
        texts += [imported.apply_chat_template(chat, tokenize=False) for chat in chats(statements)]
    for text in texts:
        ids = imported(text, add_special_tokens=False)["input_ids"]
        if ids != crate.encode(text, add_special_tokens=False).ids:
            return f"transformers and tokenizers read the directory differently: {text!r}"
        expected = reference(text, add_special_tokens=False)["input_ids"]
        if ids != expected:
            return f"{text!r}: ids {ids}, expected {expected}"
    print(f"  {len(texts)} texts, {len(imported)} tokens")
    return None


def check_forward(gguf, directory):
    arguments = {"dtype": torch.bfloat16, "attn_implementation": "eager"}
    imported = AutoModelForCausalLM.from_pretrained(directory, **arguments)
    reference = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **arguments)
    ids = torch.arange(5, 69).reshape(2, 32)
    with torch.no_grad():
        ours = imported(ids, output_hidden_states=True)
        theirs = reference(ids, output_hidden_states=True)
    for layer, (a, b) in enumerate(zip(ours.hidden_states, theirs.hidden_states)):
        if not torch.equal(a, b):
            return f"hidden_states[{layer}] differ by up to {(a.float() - b.float()).abs().max():.3g}"
    return None if torch.equal(ours.logits, theirs.logits) else "logits differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--statements", type=Path, help="a CSV file with a column 'statement'")
    parser.add_argument("--skip", action="append", default=[], choices=["weights", "tokens", "forward"])
    arguments = parser.parse_args()
    reader = GGUFReader(arguments.gguf)
    checks = {
        "weights": lambda: check_weights(reader, arguments.directory),
        "tokens": lambda: check_tokens(arguments.gguf, arguments.directory, arguments.statements),
        "forward": lambda: check_forward(arguments.gguf, arguments.directory),
    }
    failed = False
    for name, check in checks.items():
        if name in arguments.skip:
            continue
        problem = check()
        print(f"{name}: {problem or 'same'}")
        failed |= problem is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
