#!/usr/bin/env python3
"""Writes a model with random weights, and dialogues of one length, for measurements at the size of a real model.

    python scripts/random_model.py --preset llama-3.2-1b --layers 4 --rows 64 --tokens 128 --out random-1b
    python scripts/peer_hf.py --model random-1b --dataset random-1b/rows.jsonl --samples 64 \\
        --tasks train --layer 3 --batch-size 64 --dtype bf16 --bench 5

torch draws the weights, and transformers and actbench read the same file: matrices are normal with standard deviation
0.02, as transformers initializes a model, and norms multiply by 1. Shapes are those of the presets in fixtures/src/presets and
fixtures/data/presets, with fewer blocks on request. The tokenizer is the bundled one, whose ids are valid for all these
presets. Every dialogue has exactly the requested number of tokens, template included. Its words are drawn from a seed, so
that no prefix beyond the template's is shared. Labels alternate and carry no meaning.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

TOKENIZER = Path(__file__).resolve().parent.parent / "fixtures" / "data" / "tokenizer"
LLAMA_3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
PRESETS = {
    "smollm2-135m": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "rope_theta": 100_000.0,
    },
    "llama-3.2-1b": {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rope_theta": 500_000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, **LLAMA_3_ROPE},
    },
    # A vocabulary of the bundled tokenizer's size in place of 256,000 tokens: nothing that is measured depends on it.
    "gemma-2-2b": {
        "vocab_size": 49_152,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    },
}
# The standard deviation of weights, which is what models of this architecture start with.
STD = 0.02
# Elements that one thread draws at a time.
PART = 1 << 22
# Single tokens of the bundled tokenizer when a space stands before them (checked when the rows are made).
WORDS = ("the", "and", "of", "to", "in", "is", "that", "for", "with", "was", "as", "on", "be", "at", "by", "not")


def parse_arguments():
    parser = argparse.ArgumentParser(description="Write a model with random weights, and dialogues of one length.")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="llama-3.2-1b", help="default: llama-3.2-1b")
    parser.add_argument("--layers", type=int, metavar="N", help="blocks (default: all of the preset)")
    parser.add_argument("--rows", type=int, default=64, metavar="N", help="dialogues (default: 64)")
    parser.add_argument("--tokens", type=int, default=128, metavar="N", help="tokens of each of them (default: 128)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and words (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to make")
    arguments = parser.parse_args()
    n_layers = PRESETS[arguments.preset]["num_hidden_layers"]
    if arguments.layers is None:
        arguments.layers = n_layers
    if not 1 <= arguments.layers <= n_layers:
        parser.error(f"--layers: {arguments.preset} has {n_layers}")
    if arguments.rows < 2:
        parser.error("--rows must be at least 2, one of each label")
    if arguments.out.exists():
        parser.error(f"--out {arguments.out} is there already")
    return arguments


def draw(name, shape, seed, threads):
    """The bf16 tensor `name`, normal about 0, by all of `threads`.

    Each part has a generator of its own: torch's drawing on a CPU is serial, and the values shall not depend on the
    number of processors.
    """
    tensor = torch.empty(shape, dtype=torch.bfloat16)
    parts = tensor.view(-1).split(PART)

    def fill(number):
        # 32 bits, as torch's generator on a CPU takes no more.
        key = hashlib.blake2b(f"{seed} {name} {number}".encode(), digest_size=4).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key))
        parts[number].copy_(torch.empty(len(parts[number])).normal_(0.0, STD, generator=generator))

    list(threads.map(fill, range(len(parts))))
    return tensor


def write_model(arguments, directory):
    """Weights in bf16, as `model.safetensors` with `config.json`."""
    shape = PRESETS[arguments.preset] | {"num_hidden_layers": arguments.layers}
    common = {"tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16"}
    if arguments.preset.startswith("gemma-2"):
        model_class = transformers.Gemma2ForCausalLM
        config = transformers.Gemma2Config(**shape, **common)
    else:
        model_class = transformers.LlamaForCausalLM
        config = transformers.LlamaConfig(**shape, **common, rms_norm_eps=1e-5, max_position_embeddings=131_072)
    config.architectures = [model_class.__name__]
    # Names and shapes alone: nothing is drawn that would be drawn again.
    with torch.device("meta"):
        model = model_class(config)
    # A Gemma stores the weights of its norms without 1.
    norm = torch.zeros if arguments.preset.startswith("gemma") else torch.ones
    # A part is one thread's, and torch needs no more of them within it.
    torch.set_num_threads(1)
    weights = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                weights[name] = norm(parameter.shape, dtype=torch.bfloat16)
            # The head is the embedding, and no file has it twice.
            elif name != "lm_head.weight":
                weights[name] = draw(name, parameter.shape, arguments.seed, threads)
    config.save_pretrained(directory)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def write_rows(arguments, directory):
    """`rows.jsonl`: dialogues of exactly `--tokens` tokens; exits if the template alone has more."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    draw = random.Random(arguments.seed)

    def length(messages):
        return len(tokenizer(tokenizer.apply_chat_template(messages, tokenize=False))["input_ids"])

    def dialogue(n_words):
        said = [draw.choice(WORDS) for _ in range(n_words)]
        half = n_words // 2
        user, assistant = " ".join(["so", *said[:half]]), " ".join(["so", *said[half:]])
        return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]

    n_words = arguments.tokens - length(dialogue(0))
    if n_words < 1:
        sys.exit(f"random_model: the template alone has {arguments.tokens - n_words} tokens; ask for more")
    with (directory / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row in range(arguments.rows):
            messages = dialogue(n_words)
            if length(messages) != arguments.tokens:
                sys.exit(f"random_model: a row has {length(messages)} tokens: the words are not single tokens")
            file.write(json.dumps({"messages": messages, "label": row % 2}) + "\n")


def main():
    arguments = parse_arguments()
    unfinished = arguments.out.with_name(arguments.out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, unfinished / name)
    write_rows(arguments, unfinished)
    write_model(arguments, unfinished)
    unfinished.rename(arguments.out)
    print(f"{arguments.out}: {arguments.preset} with {arguments.layers} blocks, {arguments.rows} rows")


if __name__ == "__main__":
    main()
