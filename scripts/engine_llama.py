"""llama.cpp as an engine of peer_engines.py: a GGUF file of the cut model, and scripts/engine_llama.cpp to run it.

`--llama-cpp DIR` is a source directory of llama.cpp that was built into DIR/build with shared libraries:

    cmake -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \\
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_COMMON=OFF
    cmake --build build --target llama
"""

import atexit
import subprocess
from pathlib import Path

import numpy as np
import torch
from engine_decoder import UnsupportedError, check_supported

SOURCE = Path(__file__).resolve().parent / "engine_llama.cpp"


def start(setting, arguments, directory):
    """The variants of llama.cpp; its process ends with this one."""
    if not arguments.llama_cpp:
        raise UnsupportedError("give --llama-cpp DIR, a source directory of llama.cpp with a build in DIR/build")
    program = _build(Path(arguments.llama_cpp).resolve(), directory)
    model, rows, sums_file = (directory / name for name in ("model.gguf", "rows", "sums"))
    write_gguf(setting.peer, setting.dtype, model)
    flat = [np.int32(len(setting.rows))]
    for ids, mask in zip(setting.rows.ids, setting.rows.masks, strict=True):
        flat += [np.int32(len(ids)), ids.astype(np.int32), mask.astype(np.int32)]
    np.hstack(flat).tofile(rows)
    # Standard error is short: errors only, and most of them end the process.
    command = [program, model, rows, sums_file, arguments.layer, setting.threads, setting.dtype]
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    atexit.register(process.kill)

    def answer():
        line = process.stdout.readline().strip()
        if not line:
            process.kill()
            raise UnsupportedError(f"engine_llama.cpp: {process.stderr.read().strip()[-200:] or 'ended early'}")
        return line

    def sums(share_prefix, batch_size):
        process.stdin.write(f"{int(share_prefix)} {batch_size}\n")
        process.stdin.flush()
        answer()
        return np.fromfile(sums_file, np.float32).reshape(len(setting.rows), -1)

    print(f"llama.cpp: {answer()}", flush=True)
    return setting.variants("llama.cpp", sums)


def _build(source, directory):
    """Compiles engine_llama.cpp against the build; returns the program."""
    libraries = source / "build" / "bin"
    for needed in (source / "include" / "llama.h", libraries / "libllama.so"):
        if not needed.is_file():
            raise UnsupportedError(f"{needed} is missing; build llama.cpp as scripts/engine_llama.py says")
    program = directory / "engine_llama"
    command = ["g++", "-O3", "-march=native", "-std=c++17", SOURCE, "-o", program]
    command += [f"-I{source}/include", f"-I{source}/ggml/include", f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    command += ["-lllama", "-lggml", "-lggml-base"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnsupportedError(f"g++ cannot compile engine_llama.cpp: {done.stderr.strip()[:200]}")
    return program


def write_gguf(model, dtype, path):
    """Writes a cut base model of transformers as a GGUF file without a vocabulary.

    Its last block is there twice: llama.cpp drops tokens without output in the last block, and stops before the second.
    """
    # A package of requirements.txt that only this engine needs.
    import gguf

    config = model.config
    check_supported(config)
    rope = getattr(config, "rope_parameters", None) or {}
    biased = any(name.endswith(".bias") for name, _ in model.named_parameters())
    if config.model_type != "llama" or rope.get("rope_type", "default") != "default" or biased:
        raise UnsupportedError("scripts/engine_llama.py writes Llama models without biases and rotary scaling only")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_dim = model.layers[0].self_attn.head_dim
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(len(model.layers) + 1)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.rope_theta))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    matrix_type = gguf.GGMLQuantizationType.BF16 if dtype == "bf16" else gguf.GGMLQuantizationType.F32

    def add(name, weight):
        values = weight.detach().to(torch.float32).numpy()
        kind = matrix_type if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def interleaved(weight, n_heads):
        # llama.cpp rotates neighboring rows of a head, transformers rows that are half a head apart.
        halves = weight.reshape(n_heads, 2, head_dim // 2, -1)
        return halves.transpose(1, 2).reshape(weight.shape)

    add("token_embd.weight", model.embed_tokens.weight)
    add("output_norm.weight", torch.ones(config.hidden_size))
    for index, block in enumerate([*model.layers, model.layers[-1]]):
        attention, mlp = block.self_attn, block.mlp
        for name, weight in (
            ("attn_norm", block.input_layernorm.weight),
            ("attn_q", interleaved(attention.q_proj.weight, heads)),
            ("attn_k", interleaved(attention.k_proj.weight, kv_heads)),
            ("attn_v", attention.v_proj.weight),
            ("attn_output", attention.o_proj.weight),
            ("ffn_norm", block.post_attention_layernorm.weight),
            ("ffn_gate", mlp.gate_proj.weight),
            ("ffn_up", mlp.up_proj.weight),
            ("ffn_down", mlp.down_proj.weight),
        ):
            add(f"blk.{index}.{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
