"""Writes the seeds of the fuzz targets into corpus/, and the small model that targets complete with the file under test.

    python3 fuzz/make_corpus.py        # needs gguf, numpy, pyarrow and safetensors from PyPI

The seeds of `cache_file` and `gate_journal` are made by `cargo run --example make_seeds`. Seeds are small valid inputs, from which the fuzzer's mutations reach the code behind the first checks. They are
deterministic and checked in; this script is run again where a format gains a field.
"""
import json
import pathlib
import struct

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
SEPARATOR = b"\n=====\n"
TOKENIZER = (ROOT / "fixtures/data/tokenizer/tokenizer.json").read_bytes()
TOKENIZER_CONFIG = json.loads((ROOT / "fixtures/data/tokenizer/tokenizer_config.json").read_text())
VOCABULARY = max(json.loads(TOKENIZER)["model"]["vocab"].values()) + 64
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": True,
}


def seed(target, name, content):
    path = HERE / "corpus" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def tensors(dtype):
    shapes = {"model.embed_tokens.weight": (VOCABULARY, 16), "model.norm.weight": (16,)}
    block = "model.layers.0."
    for name, shape in [("self_attn.q_proj", (16, 16)), ("self_attn.k_proj", (8, 16)), ("self_attn.v_proj", (8, 16)),
                        ("self_attn.o_proj", (16, 16)), ("mlp.gate_proj", (8, 16)), ("mlp.up_proj", (8, 16)),
                        ("mlp.down_proj", (16, 8)), ("input_layernorm", (16,)), ("post_attention_layernorm", (16,))]:
        shapes[f"{block}{name}.weight"] = shape
    random = np.random.default_rng(1)
    return {name: random.standard_normal(shape).astype(dtype) / 4 for name, shape in shapes.items()}


def model():
    directory = HERE / "src/small_model"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    (directory / "model.safetensors").write_bytes(save(tensors(np.float16), {"format": "pt"}))


def safetensors_header():
    # The weights' bytes are not needed to reach the header's checks; short files mutate faster.
    whole = save(tensors(np.float16), {"format": "pt"})
    length = struct.unpack("<Q", whole[:8])[0]
    seed("safetensors_header", "header_only", whole[: 8 + length])
    tiny = save({"a": np.zeros((2, 2), np.float32), "b": np.zeros(3, np.float16)})
    seed("safetensors_header", "other_tensors", tiny)
    seed("safetensors_header", "empty", struct.pack("<Q", 2) + b"{}")


def adapter():
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    query = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{query}.lora_A.weight": np.ones((2, 16), np.float16), f"{query}.lora_B.weight": np.ones((16, 2), np.float16)}

    def write(name, changes, tensors):
        seed("adapter", name, json.dumps({**config, **changes}).encode() + SEPARATOR + save(tensors))

    write("query", {}, factors)
    patterns = {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {".*proj": 8}, "r": 4,
                "target_modules": ".*\\.(q|z)_proj", "layers_to_transform": [0]}
    write("patterns", patterns, factors)
    norm = {"base_model.model.model.layers.0.input_layernorm.weight": np.ones(16, np.float32)}
    write("saved_module", {"modules_to_save": ["input_layernorm"]}, {**factors, **norm})


def gguf_file(name, architecture):
    path = HERE / "corpus/gguf" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    has_layer_norm = architecture in ["gptneox", "gpt2"]
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(4)
    writer.add_head_count(2)
    if has_layer_norm:
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(1)
        writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if architecture in ["gemma2", "gemma3"]:
        writer.add_sliding_window(8)
    if architecture == "gptneox":
        writer.add_parallel_residual(True)
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|end|>", "<|im|>", "a", "b", "ab", "1", "Ġ"])
    writer.add_token_types([3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|im|>{{ m['content'] }}<|end|>{% endfor %}")
    ones = lambda *shape: np.ones(shape, np.float32)
    writer.add_tensor("token_embd.weight", ones(7, 8))
    modules = [("attn_q", (8, 8)), ("attn_k", (4, 8)), ("attn_v", (4, 8)), ("attn_output", (8, 8)),
               ("ffn_gate", (4, 8)), ("ffn_up", (4, 8)), ("ffn_down", (8, 4)), ("attn_norm", (8,)), ("ffn_norm", (8,))]
    if architecture == "phi3" or has_layer_norm:
        stacked = [("attn_qkv", (16, 8)), ("ffn_up", (8, 8))] if architecture == "phi3" else [("attn_qkv", (24, 8)), ("ffn_up", (4, 8))]
        modules = stacked + [module for module in modules if module[0] in ["attn_output", "ffn_down", "attn_norm", "ffn_norm"]]
    if architecture in ["qwen3", "gemma3"]:
        modules += [("attn_q_norm", (4,)), ("attn_k_norm", (4,))]
    if architecture in ["gemma2", "gemma3"]:
        modules += [("post_attention_norm", (8,)), ("post_ffw_norm", (8,))]
    for module, shape in modules:
        writer.add_tensor(f"blk.0.{module}.weight", ones(*shape))
        if has_layer_norm or (architecture == "qwen2" and module in ["attn_q", "attn_k", "attn_v"]):
            writer.add_tensor(f"blk.0.{module}.bias", ones(shape[0]))
    writer.add_tensor("output_norm.weight", ones(8))
    if has_layer_norm:
        writer.add_tensor("output_norm.bias", ones(8))
    if architecture == "gpt2":
        writer.add_tensor("position_embd.weight", ones(16, 8))
    if architecture == "phi3":
        writer.add_tensor("rope_factors_short.weight", ones(2))
        writer.add_tensor("rope_factors_long.weight", ones(2))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_files():
    gguf_file("tiny", "llama")
    for architecture in ["qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gptneox", "gpt2"]:
        gguf_file(architecture, architecture)


def model_config():
    def files(config, tokenizer_config=TOKENIZER_CONFIG, special=None, added=None):
        parts = [config, tokenizer_config, special, added]
        return SEPARATOR.join(b"" if part is None else json.dumps(part).encode() for part in parts)

    seed("model_config", "plain", files(CONFIG))
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 32}
    seed("model_config", "rope_scaling", files(CONFIG | {"rope_scaling": llama3}))
    seed("model_config", "rope_parameters", files(CONFIG | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}}))
    seed("model_config", "biases", files(CONFIG | {"attention_bias": True, "mlp_bias": True, "head_dim": 8}))
    special = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>", "lstrip": False, "special": True},
               "additional_special_tokens": ["<|im_end|>"]}
    classes = TOKENIZER_CONFIG | {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True,
                                  "added_tokens_decoder": {"1": {"content": "<|im_start|>", "lstrip": True, "rstrip": False,
                                                                 "normalized": False, "single_word": False, "special": True}}}
    seed("model_config", "special_tokens", files(CONFIG, classes, special, {"<extra>": VOCABULARY - 1}))


def tokenizers():
    # The vocabulary of the bundled one is long; a small one leaves more of an input to its structure.
    small = json.loads(TOKENIZER)
    vocabulary = sorted(small["model"]["vocab"].items(), key=lambda item: item[1])[:300]
    small["model"]["vocab"] = dict(vocabulary)
    small["model"]["merges"] = []
    seed("tokenizer", "byte_level", json.dumps(small))
    letters = ["<unk>", "<s>", "</s>", "▁"] + [chr(code) for code in range(33, 127)] + [f"<0x{byte:02X}>" for byte in range(256)]
    sentencepiece = {
        "version": "1.0", "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                       {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                  "vocab": {piece: index for index, piece in enumerate(dict.fromkeys(letters))}, "merges": []},
    }
    seed("tokenizer", "sentencepiece", json.dumps(sentencepiece, ensure_ascii=False))


def templates():
    seed("chat_template", "chatml", TOKENIZER_CONFIG["chat_template"])
    for path in sorted((ROOT / "harness/activations/tests/templates").glob("*.jinja")):
        seed("chat_template", path.stem, path.read_bytes())
    seed("chat_template", "expressions",
         "{%- set ns = namespace(n=0, s='') %}{% macro f(x, y=2) %}{{ x * y }}{% endmacro %}"
         "{% for m in messages if m.role != 'system' %}{% set ns.n = ns.n + loop.index0 %}"
         "{{ '%s-%5.2f' % (m['role'], 1.5) }}{{ m.content | trim | replace('a', 'b') | tojson }}"
         "{{ f(ns.n) ~ [1, 2][::-1] | join(',') }}{% if 'x' in m.content and not loop.last %}{{ m.content.split('x')[0] }}"
         "{% elif m.content is string %}{{ m.content[-3:] | upper }}{% else %}{% continue %}{% endif %}"
         "{{ {'k': [none, true, 1e20]} }}{% endfor %}{{ raise_exception('no') if ns.n > 99 }}")


def data_rows():
    rows = [{"messages": [{"role": "user", "content": f"q{i}, \"quoted\""}, {"role": "assistant", "content": "a\nb"}],
             "label": i % 2} for i in range(4)]
    seed("data_rows", "jsonl", b"\0" + "".join(json.dumps(row) + "\n" for row in rows).encode())
    cell = lambda row: '"' + json.dumps(row["messages"]).replace('"', '""') + '"'
    seed("data_rows", "csv", b"\1" + ("messages,label\r\n" + "".join(f"{cell(row)},{row['label']}\r\n" for row in rows)).encode())
    table = pa.Table.from_pylist(rows)
    for compression in ["none", "snappy", "zstd"]:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression=compression)
        seed("data_rows", f"parquet_{compression}", b"\2" + sink.getvalue().to_pybytes())


def text_files():
    seed("suite_file", "suite", (ROOT / "harness/actbench/src/gate_adapter/suites").glob("*.toml").__next__().read_bytes())
    for path in sorted((ROOT / "harness/actbench/src/matrix/presets").glob("*.toml")):
        seed("matrix_file", path.stem, path.read_bytes())
    seed("matrix_file", "grid", 'seed = 3\nmodel = "synthetic:tiny"\n[[grid]]\nsamples = [8, 16]\nmethods = ["lazy", "eager"]\n'
         'dtype = ["bf16", "fp32"]\n')
    for path in sorted((ROOT / "harness/actbench/tests/data/results").glob("*.json")):
        results = json.loads(path.read_text())
        # A few rows have all fields of many, and mutate faster.
        results["rows"] = results["rows"][:4]
        seed("result_file", path.stem, json.dumps(results))


if __name__ == "__main__":
    model()
    safetensors_header()
    adapter()
    gguf_files()
    model_config()
    tokenizers()
    templates()
    data_rows()
    text_files()
