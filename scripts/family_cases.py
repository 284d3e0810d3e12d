"""The tiny models of make_family_goldens.py: for each the intended settings and the config.json that should mean them.

The two are written down separately (`spec` for families_reference.py, `config` and `published` for transformers), so
that a default that transformers takes from somewhere else shows as a disagreement. Names say the family, the stored
type and what the case is there for. Widths that are not multiples of 16 and odd numbers of heads are intended.

`published` spells config.json as the checkpoints on the Hub do, which were written by transformers 4: `torch_dtype` for
`dtype`, and these keys for `rope_parameters`. Without it the file is as transformers 5 writes it.
"""

import dataclasses
import math

import transformers

from families_reference import Experts, Rope, Spec

ROWS = (1, 2, 7, 16, 17, 33, 48)
LONG_ROWS = (1, 7, 15, 63, 65, 90)
GEMMA3_ROWS = (1, 7, 15, 30, 60)
# Few tokens, none of which may be near a tie of the router.
EXPERT_ROWS = (1, 2, 5, 9, 18)
SLIDING, FULL = "sliding_attention", "full_attention"


# Where the checks of make_family_goldens.py do not all hold with seed 0, the first seed with which they do.
SEEDS = {
    "qwen3-f32-attention-bias": 13,
    "mixtral-bf16-top-2": 17,
    "mixtral-f32-window-7-top-3": 201,
    "qwen3-moe-bf16-dense-between": 5,
    "qwen3-moe-f16-sparse-step": 28,
    "gemma-bf16-mqa": 1,
    "gemma2-f16-no-softcap-erf": 1,
    "gemma3-text-bf16-window-7": 2,
    "gemma3-text-f32-layer-types": 1,
    "gemma3-bf16-published-names": 7,
    "olmo2-bf16-gqa3": 14,
    "olmo2-f32-attention-bias": 1,
    "gpt2-f16-untied": 1,
    "llama-bf16-yarn": 1,
    "llama-f32-dynamic-beyond": 1,
    "qwen2-f32-window-on-late-layers": 1,
    "gpt-neox-f16-parallel": 20,
    "gpt2-f32-published-names": 4,
    "gpt2-bf16-n-inner": 16,
}


@dataclasses.dataclass
class Case:
    """One model and the lengths of its rows. `absent`: keys left out of config.json, so that defaults apply."""

    name: str
    family: str
    spec: Spec
    config: dict
    stored: str = "bf16"
    tied: bool = False
    published: dict | None = None
    absent: tuple = ()
    bare_names: bool = False
    lengths: tuple = ROWS

    @property
    def vocab_size(self):
        return self.spec.vocab

    @property
    def seed(self):
        return SEEDS.get(self.name, 0)

    @property
    def config_class(self):
        names = {
            "mistral": "MistralConfig",
            "mixtral": "MixtralConfig",
            "qwen2": "Qwen2Config",
            "qwen3": "Qwen3Config",
            "qwen3_moe": "Qwen3MoeConfig",
            "gemma": "GemmaConfig",
            "gemma2": "Gemma2Config",
            "gemma3_text": "Gemma3TextConfig",
            "gemma3": "Gemma3Config",
            "phi3": "Phi3Config",
            "olmo2": "Olmo2Config",
            "smollm3": "SmolLM3Config",
            "gpt_neox": "GPTNeoXConfig",
            "gpt2": "GPT2Config",
            "llama": "LlamaConfig",
        }
        return getattr(transformers, names[self.family])


def sizes(spec):
    """The keys of config.json for the widths, as all families but GPT-2 have them."""
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "rms_norm_eps": spec.eps,
    }


def model(hidden, heads, kv_heads, head_dim, intermediate, vocab, layers=2, **others):
    """A spec with one rotary table, `theta` or `rope`, on all layers, and no windows."""
    rope = others.pop("rope", None) or Rope(head_dim, others.pop("theta", 10_000.0))
    settings = {"layout": "llama", "ropes": (rope,) * layers, "windows": (None,) * layers} | others
    return Spec(
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=intermediate,
        vocab=vocab,
        **settings,
    )


def llama_like(name, family, spec, config=None, **others):
    """A case of a family that has Llama's keys for the widths, with `head_dim`."""
    shared = {"head_dim": spec.head_dim, "max_position_embeddings": 128, "pad_token_id": 0}
    config = sizes(spec) | shared | (config or {})
    return Case(name, family, spec, config, **others)


def without_head_dim(name, family, spec, config=None, **others):
    """As `llama_like`, for families whose heads are always `hidden_size / num_attention_heads` wide."""
    case = llama_like(name, family, spec, config, **others)
    del case.config["head_dim"]
    return case


def theta(value):
    """Rope parameters of transformers 5 without scaling."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": value}}


# fmt: off
def mistral_cases():
    window_7 = model(40, 4, 2, 18, 56, 97, windows=(7, 7), eps=1e-5)
    window_64 = model(36, 9, 3, 16, 50, 89, windows=(64, 64), theta=1e6, eps=1e-5)
    no_window = model(42, 3, 1, 14, 60, 101, layers=3, eps=1e-6)
    return [
        llama_like("mistral-f32-window-7", "mistral", window_7, {"sliding_window": 7}, stored="f32",
                   published={"rope_theta": 10_000.0}),
        llama_like("mistral-bf16-window-64", "mistral", window_64, {"sliding_window": 64} | theta(1e6),
                   lengths=LONG_ROWS),
        llama_like("mistral-f16-no-window", "mistral", no_window, {"sliding_window": None}, stored="f16", tied=True,
                   published={"rope_theta": 10_000.0}, absent=("head_dim",)),
    ]


def qwen2_cases():
    biases = ("q", "k", "v")
    off = model(42, 3, 1, 14, 58, 97, theta=1e6, biases=biases, unused_window=8)
    late = model(36, 6, 2, 6, 42, 103, layers=4, theta=1e6, biases=biases, windows=(None, None, 16, 16))
    listed = model(40, 4, 2, 10, 54, 89, layers=3, biases=biases, windows=(7, None, 7))
    return [
        without_head_dim("qwen2-bf16-tied-window-off", "qwen2", off, tied=True,
                         published={"rope_theta": 1e6, "use_sliding_window": False, "sliding_window": 8,
                                    "max_window_layers": 1}, absent=("layer_types",)),
        without_head_dim("qwen2-f32-window-on-late-layers", "qwen2", late,
                         {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}, stored="f32",
                         published={"rope_theta": 1e6}, absent=("layer_types",)),
        without_head_dim("qwen2-f16-layer-types", "qwen2", listed,
                         {"use_sliding_window": True, "sliding_window": 7, "layer_types": [SLIDING, FULL, SLIDING]},
                         stored="f16"),
    ]


def qwen3_cases():
    tied = model(40, 4, 2, 16, 56, 97, layers=3, theta=1e6, qk_norm="head")
    biased = model(24, 3, 1, 20, 44, 61, qk_norm="head", biases=("q", "k", "v", "o"))
    # Scaling as the model card of Qwen3 gives it, for a context so short that it shows at the lengths used here.
    rope = Rope(14, 1e6, "yarn", 4.0, original=64, scaling=0.1 * math.log(4.0) + 1.0)
    yarn = model(36, 6, 2, 14, 50, 89, rope=rope, qk_norm="head")
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    return [
        llama_like("qwen3-bf16-tied", "qwen3", tied, tied=True,
                   published={"rope_theta": 1_000_000, "rope_scaling": None, "use_sliding_window": False,
                              "sliding_window": None, "max_window_layers": 3}, absent=("layer_types",)),
        llama_like("qwen3-f32-attention-bias", "qwen3", biased, {"attention_bias": True}, stored="f32"),
        llama_like("qwen3-f16-yarn", "qwen3", yarn, stored="f16",
                   published={"rope_theta": 1_000_000, "rope_scaling": scaling}, absent=("layer_types",)),
    ]


def mixtral_cases():
    top_2 = model(40, 4, 2, 18, 23, 97, layout="mixtral", theta=1e6, eps=1e-5, experts=Experts(5, 2, 23, True, (0, 1)))
    top_3 = Experts(7, 3, 19, True, (0, 1))
    window = model(36, 3, 1, 12, 19, 89, layout="mixtral", eps=1e-5, windows=(7, 7), experts=top_3)
    return [
        llama_like("mixtral-bf16-top-2", "mixtral", top_2, {"num_local_experts": 5, "num_experts_per_tok": 2}
                   | theta(1e6), published={"rope_theta": 1e6, "sliding_window": None}, lengths=EXPERT_ROWS),
        llama_like("mixtral-f32-window-7-top-3", "mixtral", window,
                   {"num_local_experts": 7, "num_experts_per_tok": 3, "sliding_window": 7} | theta(1e4), stored="f32",
                   tied=True, lengths=EXPERT_ROWS),
    ]


def qwen3_moe_cases():
    between = model(40, 4, 2, 16, 56, 97, layers=3, theta=1e6, qk_norm="head", experts=Experts(5, 3, 21, False, (0, 2)))
    top_2 = Experts(7, 2, 18, True, (1,))
    sparse = model(24, 3, 1, 20, 44, 61, qk_norm="head", biases=("q", "k", "v", "o"), experts=top_2)
    return [
        llama_like("qwen3-moe-bf16-dense-between", "qwen3_moe", between,
                   {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 21, "norm_topk_prob": False,
                    "mlp_only_layers": [1]} | theta(1e6),
                   # The key of the published files, which transformers 5 writes under another name.
                   published={"rope_theta": 1_000_000, "rope_scaling": None, "num_experts": 5, "max_window_layers": 3},
                   absent=("num_local_experts",), lengths=EXPERT_ROWS),
        llama_like("qwen3-moe-f16-sparse-step", "qwen3_moe", sparse,
                   {"num_experts": 7, "num_experts_per_tok": 2, "moe_intermediate_size": 18, "norm_topk_prob": True,
                    "decoder_sparse_step": 2, "attention_bias": True}, stored="f16", lengths=EXPERT_ROWS),
    ]


def gemma_norms(hidden):
    """What all Gemmas have in common."""
    return {"norm": "rms+1", "activation": "gelu_tanh", "embedding_scale": math.sqrt(hidden)}


def gemma_cases():
    mqa = model(48, 3, 1, 20, 66, 101, layers=3, **gemma_norms(48))
    mha = model(36, 4, 4, 16, 50, 83, theta=50_000.0, biases=("q", "k", "v", "o"), **gemma_norms(36))
    return [
        # The first Gemmas wrote `gelu` and meant the approximation with tanh.
        llama_like("gemma-bf16-mqa", "gemma", mqa, tied=True,
                   published={"rope_theta": 10_000.0, "hidden_act": "gelu", "hidden_activation": None}),
        llama_like("gemma-f32-attention-bias", "gemma", mha, {"attention_bias": True} | theta(50_000.0), stored="f32"),
    ]


def gemma2_cases():
    def spec(*widths, windows, cap, scalar, **others):
        shared = gemma_norms(widths[0]) | {"block": "sandwich", "softcap": cap, "scale": scalar and scalar**-0.5}
        return model(*widths, layers=len(windows), windows=windows, **shared | others)

    alternating = spec(48, 4, 2, 16, 62, 97, windows=(7, None, 7), cap=2.0, scalar=10)
    listed = spec(36, 3, 1, 14, 54, 89, windows=(None, 16, None), cap=1.5, scalar=6)
    uncapped = spec(40, 4, 2, 12, 50, 83, windows=(16, None), cap=None, scalar=20, activation="gelu_erf")
    return [
        llama_like("gemma2-bf16-window-7", "gemma2", alternating,
                   {"query_pre_attn_scalar": 10, "attn_logit_softcapping": 2.0, "sliding_window": 7}, tied=True,
                   published={"rope_theta": 10_000.0, "hidden_act": "gelu_pytorch_tanh",
                              "cache_implementation": "hybrid"}, absent=("layer_types",)),
        llama_like("gemma2-f32-layer-types", "gemma2", listed,
                   {"query_pre_attn_scalar": 6, "attn_logit_softcapping": 1.5, "sliding_window": 16,
                    "layer_types": [FULL, SLIDING, FULL]}, stored="f32", tied=True),
        llama_like("gemma2-f16-no-softcap-erf", "gemma2", uncapped,
                   {"query_pre_attn_scalar": 20, "attn_logit_softcapping": None, "sliding_window": 16,
                    "hidden_activation": "gelu"}, stored="f16"),
    ]


def gemma3_spec(*widths, windows, scalar, factor=1.0, layout="llama", thetas=(1e6, 1e4)):
    """Global layers have one rotary table, layers with a window another."""
    head_dim = widths[3]
    full = Rope(head_dim, thetas[0], "default" if factor == 1.0 else "linear", factor)
    local = Rope(head_dim, thetas[1])
    ropes = tuple(full if window is None else local for window in windows)
    shared = {"block": "sandwich", "qk_norm": "head", "scale": scalar**-0.5, "layout": layout}
    shared |= {"ropes": ropes, "windows": windows}
    return model(*widths, layers=len(windows), **gemma_norms(widths[0]), **shared)


def gemma3_cases():
    five_to_one = (7, 7, 7, 7, 7, None, 7)
    text = gemma3_spec(32, 2, 1, 14, 46, 97, windows=five_to_one, scalar=24)
    listed = gemma3_spec(36, 3, 1, 16, 50, 83, windows=(None, 16, None), scalar=22, factor=8.0, thetas=(5e5, 2e4))
    nested = gemma3_spec(32, 4, 2, 16, 44, 101, windows=five_to_one, scalar=10, factor=8.0, layout="gemma3")
    short = gemma3_spec(40, 4, 2, 12, 50, 89, windows=(16, None, 16), scalar=20, factor=4.0, layout="gemma3")
    scaled = {"rope_type": "linear", "factor": 8.0}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 1, "image_size": 4, "patch_size": 2, "vision_use_head": False}
    image = {"mm_tokens_per_image": 1, "image_token_index": 500, "boi_token_index": 501, "eoi_token_index": 502}

    def rope_parameters(full, local):
        return {"rope_parameters": {FULL: full, SLIDING: {"rope_type": "default", "rope_theta": local}}}

    cases = [
        llama_like("gemma3-text-bf16-window-7", "gemma3_text", text,
                   {"query_pre_attn_scalar": 24, "sliding_window": 7, "sliding_window_pattern": 6}, tied=True,
                   published={"rope_theta": 1_000_000, "rope_local_base_freq": 10_000, "rope_scaling": None,
                              "sliding_window_pattern": 6, "attn_logit_softcapping": None},
                   absent=("layer_types", "_sliding_window_pattern"), lengths=GEMMA3_ROWS),
        llama_like("gemma3-text-f32-layer-types", "gemma3_text", listed,
                   {"query_pre_attn_scalar": 22, "sliding_window": 16, "layer_types": [FULL, SLIDING, FULL]}
                   | rope_parameters(scaled | {"rope_theta": 5e5}, 2e4), stored="f32"),
        llama_like("gemma3-bf16-published-names", "gemma3", nested,
                   {"query_pre_attn_scalar": 10, "sliding_window": 7}
                   | rope_parameters(scaled | {"rope_theta": 1e6}, 1e4), tied=True,
                   # As in the file of the 4B model, thetas and the pattern of windows are left to the defaults.
                   published={"rope_scaling": scaled},
                   absent=("layer_types", "_sliding_window_pattern", "attention_bias", "attn_logit_softcapping"),
                   lengths=GEMMA3_ROWS),
        llama_like("gemma3-f16-transformers-5", "gemma3", short,
                   {"query_pre_attn_scalar": 20, "sliding_window": 16, "layer_types": [SLIDING, FULL, SLIDING]}
                   | rope_parameters({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}, 1e4), stored="f16",
                   tied=True),
    ]
    for case in cases:
        if case.family == "gemma3":
            case.config = {"text_config": case.config, "vision_config": vision, **image}
    return cases


def phi3_cases():
    short, long = [1.0, 1.1, 1.3, 1.7, 2.2, 2.9], [1.0, 1.6, 2.8, 5.0, 9.0, 16.0]
    window = model(42, 3, 3, 14, 50, 97, layout="phi3", windows=(7, 7), eps=1e-5)
    scaling = math.sqrt(1 + math.log(384 / 96) / math.log(96))
    longrope = Rope(12, 1e4, "longrope", original=96, scaling=scaling, short=tuple(short), long=tuple(long))
    stretched = model(36, 3, 1, 12, 50, 89, layout="phi3", rope=longrope, eps=1e-5)
    partial = model(48, 3, 1, 16, 54, 101, layout="phi3", rope=longrope, eps=1e-5, layers=3)
    plain = model(32, 2, 2, 16, 40, 61, layout="phi3", rope=Rope(12, 1e5), eps=1e-5)
    lengths = {"max_position_embeddings": 384, "original_max_position_embeddings": 96}
    factors = {"type": "longrope", "short_factor": short, "long_factor": long}
    parameters = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": short, "long_factor": long}
    return [
        without_head_dim("phi3-bf16-window-7", "phi3", window, {"sliding_window": 7},
                         published={"rope_theta": 10_000.0, "rope_scaling": None}),
        without_head_dim("phi3-f32-longrope", "phi3", stretched,
                         lengths | {"rope_parameters": dict(parameters), "sliding_window": 400}, stored="f32",
                         published={"rope_theta": 10_000.0, "rope_scaling": factors}, lengths=(1, 5, 16, 40, 64, 90)),
        without_head_dim("phi3-f16-longrope-partial", "phi3", partial,
                         lengths | {"rope_parameters": parameters | {"partial_rotary_factor": 0.75}}, stored="f16",
                         tied=True,
                         published={"rope_theta": 10_000.0, "partial_rotary_factor": 0.75, "rope_scaling": factors,
                                    "attention_bias": False, "lm_head_bias": False, "full_attn_mod": 1}),
        without_head_dim("phi3-f32-partial", "phi3", plain,
                         {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5,
                                              "partial_rotary_factor": 0.75}}, stored="f32"),
    ]


def olmo2_cases():
    grouped = model(36, 9, 3, 4, 50, 97, layers=3, block="post", qk_norm="width", theta=5e5)
    biased = model(40, 4, 4, 10, 56, 83, block="post", qk_norm="width", eps=0.02, biases=("q", "k", "v", "o"))
    return [
        without_head_dim("olmo2-bf16-gqa3", "olmo2", grouped, published={"rope_theta": 500_000, "rope_scaling": None}),
        without_head_dim("olmo2-f32-attention-bias", "olmo2", biased, {"attention_bias": True}, stored="f32",
                         absent=("num_key_value_heads",)),
    ]


def smollm3_cases():
    listed = model(42, 3, 1, 14, 58, 97, layers=3, theta=5e6)
    listed = dataclasses.replace(listed, ropes=(listed.ropes[0], None, listed.ropes[0]))
    interval = model(32, 4, 2, 8, 42, 89, layers=4, theta=2e6, biases=("q", "k", "v", "o", "gate", "up", "down"))
    interval = dataclasses.replace(interval, ropes=(*interval.ropes[:3], None), windows=(None, None, None, 7))
    return [
        without_head_dim("smollm3-bf16-no-rope-layers", "smollm3", listed, {"no_rope_layers": [1, 0, 1]}, tied=True,
                         published={"rope_theta": 5_000_000.0, "rope_scaling": None, "max_window_layers": 28}),
        without_head_dim("smollm3-f32-interval-window", "smollm3", interval,
                         {"use_sliding_window": True, "sliding_window": 7, "attention_bias": True, "mlp_bias": True,
                          "no_rope_layer_interval": 4}, stored="f32",
                         absent=("no_rope_layers", "layer_types", "no_rope_layer_interval")),
    ]


def neox_cases():
    def spec(*widths, layers, dims, theta=10_000.0, block="parallel", biases=("q", "k", "v", "o", "up", "down")):
        hidden, heads, head_dim, intermediate, vocab = widths
        return model(hidden, heads, heads, head_dim, intermediate, vocab, layers=layers, layout="neox",
                     rope=Rope(dims, theta), norm="layer", gated=False, activation="gelu_erf", block=block,
                     biases=biases, eps=1e-5)

    def config(spec, **others):
        keys = sizes(spec)
        del keys["num_key_value_heads"], keys["rms_norm_eps"]
        return keys | {"layer_norm_eps": spec.eps, "max_position_embeddings": 96} | others

    pythia = spec(48, 3, 16, 70, 97, layers=2, dims=4)
    serial = spec(36, 3, 12, 50, 89, layers=2, dims=6, block="pre", biases=("up", "down"))
    wide = spec(40, 5, 8, 54, 83, layers=2, dims=8, theta=25_000.0)
    parameters = {"rope_type": "default", "rope_theta": 25_000.0, "partial_rotary_factor": 1.0}
    return [
        Case("gpt-neox-f16-parallel", "gpt_neox", pythia, config(pythia), stored="f16",
             published={"rotary_pct": 0.25, "rotary_emb_base": 10_000}, absent=("attention_bias",), bare_names=True),
        Case("gpt-neox-f32-serial", "gpt_neox", serial,
             config(serial, use_parallel_residual=False, attention_bias=False,
                    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}),
             stored="f32", tied=True),
        Case("gpt-neox-bf16-all-columns", "gpt_neox", wide, config(wide, rope_parameters=parameters),
             published={"rotary_pct": 1.0, "rotary_emb_base": 25_000}),
    ]


def gpt2_cases():
    def spec(hidden, heads, inner, vocab, layers, layout, eps=1e-5):
        biases = ("q", "v", "o", "up", "down")
        return Spec(layout, hidden, heads, heads, hidden // heads, inner, vocab, (None,) * layers, (None,) * layers,
                    eps=eps, norm="layer", gated=False, activation="gelu_tanh", biases=biases)

    def config(spec, **others):
        return {"vocab_size": spec.vocab, "n_embd": spec.hidden, "n_layer": spec.layers, "n_head": spec.heads,
                "n_positions": 92, "layer_norm_epsilon": spec.eps} | others

    published = spec(24, 3, 96, 97, 2, "gpt2-bare")
    inner = spec(40, 4, 58, 83, 2, "gpt2", eps=0.1)
    half = spec(36, 2, 50, 89, 2, "gpt2")
    by_layer = dataclasses.replace(spec(32, 4, 44, 97, 3, "gpt2"), scale=1.0, scale_by_inverse_layer=True)
    return [
        Case("gpt2-f32-published-names", "gpt2", published, config(published), stored="f32", tied=True,
             published={"n_ctx": 92}, absent=("n_inner", "tie_word_embeddings", "torch_dtype"), bare_names=True,
             lengths=(1, 2, 9, 33, 64, 90)),
        Case("gpt2-bf16-n-inner", "gpt2", inner, config(inner, n_inner=58), tied=True),
        Case("gpt2-f16-untied", "gpt2", half, config(half, n_inner=50), stored="f16"),
        Case("gpt2-f32-scores-by-layer", "gpt2", by_layer,
             config(by_layer, n_inner=44, scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True),
             stored="f32", tied=True),
    ]


def llama_cases():
    def rope_parameters(kind, theta=10_000.0, **others):
        return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **others}}

    # 1 + 0.1 ln(factor), the temperature of the YaRN paper.
    plain = Rope(16, 1e4, "yarn", 4.0, original=24, scaling=0.1 * math.log(4.0) + 1.0)
    ratio = (0.1 * 1.5 * math.log(8.0) + 1.0) / (0.1 * 0.5 * math.log(8.0) + 1.0)
    tuned = Rope(14, 5e4, "yarn", 8.0, original=40, betas=(8.0, 0.5), truncate=False, scaling=ratio)
    below = Rope(12, 1e4, "dynamic", 2.0, max_positions=96)
    beyond = Rope(16, 1e4, "dynamic", 3.0, max_positions=16)
    yarn = model(48, 3, 1, 16, 60, 97, rope=plain, layers=3, eps=1e-5)
    yarn_tuned = model(36, 6, 2, 14, 50, 89, rope=tuned, eps=1e-5)
    dynamic = model(36, 9, 3, 12, 50, 83, rope=below, eps=1e-5)
    dynamic_beyond = model(40, 4, 2, 16, 54, 101, rope=beyond, eps=1e-5)
    listed = model(42, 3, 1, 14, 58, 89, theta=5e5, layers=3, eps=1e-5)
    mscales = {"mscale": 1.5, "mscale_all_dim": 0.5, "beta_fast": 8.0, "beta_slow": 0.5, "truncate": False}
    yarn_keys = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
    return [
        llama_like("llama-bf16-yarn", "llama", yarn, rope_parameters("yarn", factor=4.0,
                   original_max_position_embeddings=24), published={"rope_theta": 10_000.0, "rope_scaling": yarn_keys}),
        llama_like("llama-f32-yarn-mscale", "llama", yarn_tuned, rope_parameters("yarn", 5e4, factor=8.0,
                   original_max_position_embeddings=40, **mscales), stored="f32", lengths=(1, 4, 16, 30, 60, 81)),
        llama_like("llama-f16-dynamic", "llama", dynamic, {"max_position_embeddings": 96}
                   | rope_parameters("dynamic", factor=2.0), stored="f16", tied=True,
                   published={"rope_theta": 10_000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
                   lengths=(1, 7, 20, 33, 64, 90)),
        llama_like("llama-f32-dynamic-beyond", "llama", dynamic_beyond, {"max_position_embeddings": 16}
                   | rope_parameters("dynamic", factor=3.0), stored="f32", lengths=(1, 15, 16, 17, 31, 48, 63)),
        llama_like("llama-bf16-layer-types", "llama", listed, {"layer_types": [FULL] * 3} | theta(5e5), tied=True),
    ]


CASES = [
    case
    for cases in (mistral_cases, mixtral_cases, qwen2_cases, qwen3_cases, qwen3_moe_cases, gemma_cases, gemma2_cases,
                  gemma3_cases, phi3_cases, olmo2_cases, smollm3_cases, neox_cases, gpt2_cases, llama_cases)
    for case in cases()
]
# fmt: on
