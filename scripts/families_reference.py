"""Decoders of several model families written out in numpy double precision, with named mistakes.

make_family_goldens.py uses it twice: as a second opinion on the numbers that transformers gives, and to show that the
tiny models can tell a right implementation from a wrong one. llama_reference.py does the same for Llama alone; this
file has the parts in which other families differ: LayerNorm, norms of outputs, norms of queries and keys, windows, soft
caps, rotary tables by layer, partial or absent rotation, learned positions, parallel residuals, fused projections and
mixtures of experts.

It is given the intended settings (`Spec`) and never reads config.json. Everything is float64. Formulas: RoPE
https://arxiv.org/abs/2104.09864, YaRN https://arxiv.org/abs/2309.00071, LongRoPE https://arxiv.org/abs/2402.13753,
Gemma 2 https://arxiv.org/abs/2408.00118, GELU https://arxiv.org/abs/1606.08415, Mixtral
https://arxiv.org/abs/2401.04088.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rope:
    """One rotary table. `dims` columns of each head rotate; the others pass through."""

    dims: int
    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    original: int | None = None
    max_positions: int | None = None
    betas: tuple = (32.0, 1.0)
    truncate: bool = True
    scaling: float = 1.0
    bands: tuple = (1.0, 4.0)
    short: tuple = ()
    long: tuple = ()


@dataclasses.dataclass(frozen=True)
class Experts:
    """A mixture of experts in the place of the MLP of `layers`."""

    n: int
    top_k: int
    intermediate: int
    renormalize: bool
    layers: tuple


@dataclasses.dataclass(frozen=True)
class Spec:
    """A decoder. `windows` and `ropes` have an entry for each layer, None for full attention and for no rotation."""

    layout: str
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    ropes: tuple
    windows: tuple
    eps: float = 1e-6
    norm: str = "rms"
    block: str = "pre"
    qk_norm: str | None = None
    activation: str = "silu"
    gated: bool = True
    embedding_scale: float = 1.0
    scale: float | None = None
    scale_by_inverse_layer: bool = False
    softcap: float | None = None
    biases: tuple = ()
    unused_window: int | None = None
    experts: Experts | None = None

    @property
    def layers(self):
        return len(self.windows)


# Names of the four places of a norm: before attention, after it, before the MLP, after it.
NORMS = {
    "pre": ("input_layernorm", None, "post_attention_layernorm", None),
    "parallel": ("input_layernorm", None, "post_attention_layernorm", None),
    "sandwich": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    "post": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "gpt2": ("ln_1", None, "ln_2", None),
}
PREFIXES = {
    "llama": ("model.layers.{}.", "model.embed_tokens.weight", "model.norm"),
    "mixtral": ("model.layers.{}.", "model.embed_tokens.weight", "model.norm"),
    "phi3": ("model.layers.{}.", "model.embed_tokens.weight", "model.norm"),
    "gemma3": (
        "language_model.model.layers.{}.",
        "language_model.model.embed_tokens.weight",
        "language_model.model.norm",
    ),
    "neox": ("gpt_neox.layers.{}.", "gpt_neox.embed_in.weight", "gpt_neox.final_layer_norm"),
    "gpt2": ("transformer.h.{}.", "transformer.wte.weight", "transformer.ln_f"),
    "gpt2-bare": ("h.{}.", "wte.weight", "ln_f"),
}
# The module of the experts, and the names of an expert's projections.
EXPERTS = {
    "llama": ("mlp", {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}),
    "mixtral": ("block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"}),
}


def frequencies(rope, length, mistake=None):
    """`(radians per position of each pair, factor of cosine and sine)` of a row of `length` tokens."""
    theta, dims, kind = rope.theta, rope.dims, rope.kind
    if mistake == "rope_theta_of_10000":
        theta = 10_000.0
    exponents = np.arange(0, dims, 2, dtype=np.float64) / dims
    plain = theta**-exponents
    scaling = 1.0 if mistake == "attention_factor_ignored" else rope.scaling
    if kind == "default" or mistake == "rope_scaling_ignored":
        return plain, scaling
    if kind == "linear":
        return plain / rope.factor, scaling
    if kind == "dynamic":
        if mistake == "dynamic_as_linear":
            return plain / rope.factor, scaling
        if mistake == "dynamic_table_of_longer_row":
            length *= 2
        if length <= rope.max_positions:
            return plain, scaling
        grown = theta * (rope.factor * length / rope.max_positions - (rope.factor - 1)) ** (dims / (dims - 2))
        return grown**-exponents, scaling
    if kind == "longrope":
        long = (length > rope.original) != (mistake == "other_factors_of_longrope")
        return plain / np.array(rope.long if long else rope.short), scaling
    if kind == "llama3":
        turns, (low, high) = rope.original * plain / (2 * math.pi), rope.bands
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return (1 - kept) * plain / rope.factor + kept * plain, scaling
    assert kind == "yarn", kind

    def column(turns):
        return dims * math.log(rope.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = column(rope.betas[0]), column(rope.betas[1])
    if rope.truncate != (mistake == "yarn_range_rounded_otherwise"):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    ramp = np.clip((np.arange(dims // 2) - low) / max(high - low, 0.001), 0.0, 1.0)
    return plain / rope.factor * ramp + plain * (1 - ramp), scaling


def rotate(x, rope, mistake=None):
    """RoPE on `x [heads, len, head_dim]`; the pair of column i is column i + dims / 2."""
    if rope is None:
        return x
    if mistake == "rope_on_all_columns":
        rope = dataclasses.replace(rope, dims=x.shape[2])
    table, scaling = frequencies(rope, x.shape[1], mistake)
    angles = np.arange(x.shape[1])[:, None] * table[None, :]
    cos, sin, half = np.cos(angles) * scaling, np.sin(angles) * scaling, rope.dims // 2
    rotated, rest = x[..., : rope.dims], x[..., rope.dims :]
    if mistake == "rope_pairs_interleaved":
        first, second = rotated[..., 0::2], rotated[..., 1::2]
        pairs = np.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return np.concatenate([pairs.reshape(rotated.shape), rest], axis=-1)
    first, second = rotated[..., :half], rotated[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def norm(x, weights, name, spec, mistake=None):
    """RMSNorm (https://arxiv.org/abs/1910.07467), that of Gemma with `1 + weight`, or LayerNorm, over the last axis."""
    eps = spec.eps
    if mistake == "eps_of_another_model":
        eps = 1e-5 if eps == 1e-6 else 1e-6
    weight, bias = weights[name + ".weight"], weights.get(name + ".bias", 0.0)
    if spec.norm == "rms+1" and mistake != "norm_without_plus_one":
        weight = 1.0 + weight
    if mistake == "norm_weight_ignored":
        weight = 1.0
    if mistake == "norm_bias_ignored":
        bias = 0.0
    if spec.norm == "layer" and mistake != "rms_norm_for_layer_norm":
        x = x - x.mean(axis=-1, keepdims=True)
    return weight * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) + bias


def has_experts(spec, layer):
    return spec.experts is not None and layer in spec.experts.layers


def projections(weights, prefix, spec, layer, mistake=None):
    """`{q, k, v, o, gate, up, down: (matrix [out, in], bias)}` of a layer, taken out of fused and transposed ones."""
    q_size, kv_size = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim

    def read(name):
        return weights[prefix + name + ".weight"], weights.get(prefix + name + ".bias")

    def split(matrix, bias, names, sizes):
        ends = np.cumsum(sizes)[:-1]
        biases = [None] * len(sizes) if bias is None else np.split(bias, ends)
        return dict(zip(names, zip(np.split(matrix, ends), biases, strict=True), strict=True))

    if spec.layout.startswith("gpt2"):

        def transposed(name):
            matrix, bias = read(name)
            square = matrix.shape[0] == matrix.shape[1]
            return (matrix if mistake == "square_conv1d_not_transposed" and square else matrix.T), bias

        parts = split(*transposed("attn.c_attn"), "qkv", [q_size] * 3)
        parts |= {"o": transposed("attn.c_proj"), "up": transposed("mlp.c_fc"), "down": transposed("mlp.c_proj")}
    elif spec.layout == "neox":
        matrix, bias = read("attention.query_key_value")
        if mistake != "fused_qkv_in_three_blocks":
            # Rows are head by head, each with its query, key and value.
            order = np.arange(3 * q_size).reshape(spec.heads, 3, spec.head_dim).transpose(1, 0, 2).reshape(-1)
            matrix, bias = matrix[order], None if bias is None else bias[order]
        parts = split(matrix, bias, "qkv", [q_size] * 3)
        names = {"o": "attention.dense", "up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"}
        parts |= {part: read(name) for part, name in names.items()}
    elif spec.layout == "phi3":
        parts = split(*read("self_attn.qkv_proj"), "qkv", [q_size, kv_size, kv_size])
        parts |= split(*read("mlp.gate_up_proj"), ("gate", "up"), [spec.intermediate] * 2)
        parts |= {"o": read("self_attn.o_proj"), "down": read("mlp.down_proj")}
    else:
        parts = {part: read(f"self_attn.{part}_proj") for part in "qkvo"}
        if not has_experts(spec, layer):
            parts |= {part: read(f"mlp.{part}_proj") for part in ("gate", "up", "down")}
    if mistake and mistake.startswith("bias_forgotten:"):
        forgotten = mistake.split(":")[1]
        parts[forgotten] = (parts[forgotten][0], None)
    return parts


def linear(x, part):
    matrix, bias = part
    return x @ matrix.T if bias is None else x @ matrix.T + bias


def attention_settings(spec, layer, mistake):
    """`(rope, window, scale)` of a layer, or the wrong ones that `mistake` names."""
    rope, window = spec.ropes[layer], spec.windows[layer]
    ropes = [rope for rope in spec.ropes if rope is not None]
    windows = [window for window in spec.windows if window is not None]
    if mistake == "rope_on_every_layer":
        rope = ropes[0]
    if mistake == "layers_with_rope_exchanged":
        rope = ropes[0] if rope is None else None
    if mistake == "global_rope_for_all":
        rope = spec.ropes[spec.windows.index(None)]
    if mistake == "local_rope_for_all":
        rope = next(rope for rope, window in zip(spec.ropes, spec.windows, strict=True) if window is not None)
    if mistake == "window_ignored":
        window = None
    if mistake == "window_one_longer" and window is not None:
        window += 1
    if mistake == "window_on_every_layer":
        window = windows[0]
    if mistake == "unused_window_applied":
        window = spec.unused_window
    if mistake == "layers_with_window_exchanged":
        window = windows[0] if window is None else None
    scale = spec.scale or spec.head_dim**-0.5
    if mistake == "softmax_scale_from_head_dim":
        scale = spec.head_dim**-0.5
    if mistake == "softmax_scale_from_hidden_size":
        scale = (spec.hidden // spec.heads) ** -0.5
    if spec.scale_by_inverse_layer and mistake != "softmax_scale_of_first_layer":
        scale /= layer + 1
    return rope, window, scale


def attention(x, weights, prefix, parts, spec, layer, mistake=None):
    """Causal self-attention of one row, `[len, hidden]`, with grouped key and value heads."""
    length = x.shape[0]
    rope, window, scale = attention_settings(spec, layer, mistake)

    def heads(part, count, norm_name=None):
        y = linear(x, parts[part])
        kind = None if norm_name is None or mistake in ("qk_norm_left_out", "qk_norm_after_rope") else spec.qk_norm
        if kind == "width":
            y = norm(y, weights, prefix + norm_name, spec, mistake)
        y = y.reshape(length, count, spec.head_dim)
        if kind == "head":
            y = norm(y, weights, prefix + norm_name, spec, mistake)
        return y.transpose(1, 0, 2)

    q = rotate(heads("q", spec.heads, "self_attn.q_norm"), rope, mistake)
    k = rotate(heads("k", spec.kv_heads, "self_attn.k_norm"), rope, mistake)
    v = heads("v", spec.kv_heads)
    if mistake == "qk_norm_after_rope":
        q, k = norm(q, weights, prefix + "self_attn.q_norm", spec), norm(k, weights, prefix + "self_attn.k_norm", spec)
    kv_of_head = np.arange(spec.heads) // (spec.heads // spec.kv_heads)
    if mistake == "kv_heads_modulo":
        kv_of_head = np.arange(spec.heads) % spec.kv_heads
    logits = q @ k[kv_of_head].transpose(0, 2, 1) * scale
    if spec.softcap is not None and mistake != "softcap_ignored":
        logits = spec.softcap * np.tanh(logits / spec.softcap)
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    visible = np.ones_like(distance, dtype=bool) if mistake == "not_causal" else distance >= 0
    if window is not None:
        visible &= distance < window
    logits = np.where(visible, logits, -np.inf)
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    mixed = (probabilities @ v[kv_of_head]).transpose(1, 0, 2).reshape(length, -1)
    return linear(mixed, parts["o"])


def activate(x, kind):
    if kind == "silu":
        return x / (1 + np.exp(-x))
    if kind == "gelu_erf":
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    assert kind == "gelu_tanh", kind
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def mlp(x, parts, spec, mistake=None):
    kind = spec.activation
    if mistake == "other_gelu":
        kind = "gelu_erf" if kind == "gelu_tanh" else "gelu_tanh"
    if mistake == "other_activation":
        kind = "gelu_tanh" if kind == "silu" else "silu"
    up = linear(x, parts["up"])
    if not spec.gated:
        return linear(activate(up, kind), parts["down"])
    gate = linear(x, parts["gate"])
    if mistake == "gate_and_up_swapped":
        gate, up = up, gate
    return linear(activate(gate, kind) * up, parts["down"])


def router_logits(x, weights, prefix, spec):
    return x @ weights[f"{prefix}{EXPERTS[spec.layout][0]}.gate.weight"].T


def router_margins(spec, weights, tokens):
    """How much larger the last chosen logit of each token and layer is than the first that is not, a flat array."""
    margins = []

    def note(logits):
        ordered = -np.sort(-logits, axis=-1)
        margins.append(ordered[:, spec.experts.top_k - 1] - ordered[:, spec.experts.top_k])

    hidden_states(spec, weights, tokens, note=note)
    return np.concatenate(margins)


def experts(x, weights, prefix, spec, mistake=None, note=None):
    """The sum of the outputs of each token's experts, times their probabilities."""
    settings, (module, names) = spec.experts, EXPERTS[spec.layout]
    top_k = settings.top_k - (mistake == "one_expert_fewer")
    logits = router_logits(x, weights, prefix, spec)
    if note is not None:
        note(logits)
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    chosen = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]
    if mistake == "least_likely_experts":
        chosen = np.argsort(probabilities, axis=-1, kind="stable")[:, :top_k]
    scales = np.take_along_axis(probabilities, chosen, axis=-1)
    if settings.renormalize != (mistake == "experts_renormalized_otherwise"):
        scales = scales / scales.sum(axis=-1, keepdims=True)
    if mistake == "experts_of_equal_weight":
        scales = np.full_like(scales, scales.mean())
    out = np.zeros_like(x)
    for expert in range(settings.n):
        own = (expert + (mistake == "next_expert")) % settings.n
        parts = {part: (weights[f"{prefix}{module}.experts.{own}.{name}.weight"], None) for part, name in names.items()}
        rows, places = np.nonzero(chosen == expert)
        out[rows] += mlp(x[rows], parts, spec, mistake) * scales[rows, places][:, None]
    return out


def hidden_states(spec, weights, tokens, mistake=None, note=None):
    """Output of every decoder block for one row of tokens, `[layers, len, hidden]`, float64.

    `weights` maps the names of the file to float64 arrays; `mistake` is one of `possible_mistakes(spec)`. `note` gets
    the router's logits of each layer that has experts.
    """
    blocks, embedding, final_norm = PREFIXES[spec.layout]
    x = weights[embedding][np.asarray(tokens)]
    if mistake != "embedding_not_scaled":
        x = x * spec.embedding_scale
    if spec.layout.startswith("gpt2") and mistake != "learned_positions_ignored":
        x = x + weights[embedding.replace("wte", "wpe")][np.arange(len(tokens)) + (mistake == "positions_from_one")]
    parallel = (spec.block == "parallel") != (mistake in ("parallel_as_serial", "serial_as_parallel"))
    outputs = []
    for layer in range(spec.layers):
        prefix = blocks.format(layer)
        parts = projections(weights, prefix, spec, layer, mistake)

        def normed(x, place, prefix=prefix):
            name = NORMS["gpt2" if spec.layout.startswith("gpt2") else spec.block][place]
            if name is None or (place % 2 == 1 and mistake in ("output_norms_ignored", "norm_after_residual")):
                return x
            return norm(x, weights, prefix + name, spec, mistake)

        def joined(x, output, place, prefix=prefix):
            if mistake == "norm_after_residual":
                return norm(x + output, weights, prefix + NORMS[spec.block][place], spec)
            return x + output

        mixed = normed(attention(normed(x, 0), weights, prefix, parts, spec, layer, mistake), 1)
        after_attention = joined(x, mixed, 1)
        source = x if parallel else after_attention
        source = normed(source, 2)
        if has_experts(spec, layer):
            output = experts(source, weights, prefix, spec, mistake, note)
        else:
            output = mlp(source, parts, spec, mistake)
        x = joined(after_attention, normed(output, 3), 3)
        outputs.append(x)
    if mistake == "final_norm_applied":
        outputs[-1] = norm(x, weights, final_norm, spec)
    return np.stack(outputs)


def scales(rope, longest):
    """Whether a row of `longest` tokens has other frequencies than those of the default table."""
    return longest > rope.max_positions if rope.kind == "dynamic" else rope.kind != "default"


def possible_mistakes(spec, longest):
    """The mistakes that would change the numbers of this model for rows of up to `longest` tokens, were they made."""
    rotated = [rope for rope in spec.ropes if rope is not None]
    windows = [window for window in spec.windows if window is not None]
    found = {
        "not_causal": True,
        "norm_weight_ignored": True,
        # Learned positions keep rows away from zero, where a small eps would count.
        "eps_of_another_model": spec.eps > 1e-3 or not spec.layout.startswith("gpt2"),
        "final_norm_applied": True,
        "other_activation": True,
        "other_gelu": spec.activation != "silu",
        "gate_and_up_swapped": spec.gated,
        "rope_pairs_interleaved": bool(rotated),
        "rope_theta_of_10000": any(rope.theta != 10_000.0 for rope in rotated),
        "rope_scaling_ignored": any(scales(rope, longest) for rope in rotated),
        "dynamic_as_linear": any(rope.kind == "dynamic" for rope in rotated),
        "dynamic_table_of_longer_row": any(rope.kind == "dynamic" for rope in rotated),
        "attention_factor_ignored": any(rope.scaling != 1.0 for rope in rotated),
        "other_factors_of_longrope": any(rope.kind == "longrope" for rope in rotated),
        "yarn_range_rounded_otherwise": any(rope.kind == "yarn" for rope in rotated),
        "rope_on_all_columns": any(rope.dims != spec.head_dim and rope.kind == "default" for rope in rotated),
        "rope_on_every_layer": 0 < len(rotated) < spec.layers,
        "layers_with_rope_exchanged": 0 < len(rotated) < spec.layers,
        "global_rope_for_all": len(set(rotated)) > 1,
        "local_rope_for_all": len(set(rotated)) > 1,
        "window_ignored": bool(windows),
        "window_one_longer": bool(windows),
        "window_on_every_layer": 0 < len(windows) < spec.layers,
        "layers_with_window_exchanged": 0 < len(windows) < spec.layers,
        "unused_window_applied": spec.unused_window is not None,
        "softcap_ignored": spec.softcap is not None,
        "softmax_scale_from_head_dim": spec.scale is not None,
        "softmax_scale_of_first_layer": spec.scale_by_inverse_layer,
        "softmax_scale_from_hidden_size": spec.hidden // spec.heads != spec.head_dim,
        "kv_heads_modulo": 1 < spec.kv_heads < spec.heads,
        "qk_norm_left_out": spec.qk_norm is not None,
        "qk_norm_after_rope": spec.qk_norm == "head",
        "norm_without_plus_one": spec.norm == "rms+1",
        "norm_bias_ignored": spec.norm == "layer",
        "rms_norm_for_layer_norm": spec.norm == "layer",
        "output_norms_ignored": spec.block in ("sandwich", "post"),
        "norm_after_residual": spec.block in ("sandwich", "post"),
        "parallel_as_serial": spec.block == "parallel",
        "serial_as_parallel": spec.layout == "neox" and spec.block == "pre",
        "embedding_not_scaled": spec.embedding_scale != 1.0,
        "learned_positions_ignored": spec.layout.startswith("gpt2"),
        "positions_from_one": spec.layout.startswith("gpt2"),
        "square_conv1d_not_transposed": spec.layout.startswith("gpt2"),
        "fused_qkv_in_three_blocks": spec.layout == "neox",
        "one_expert_fewer": spec.experts is not None,
        "least_likely_experts": spec.experts is not None,
        "next_expert": spec.experts is not None,
        "experts_renormalized_otherwise": spec.experts is not None,
        "experts_of_equal_weight": spec.experts is not None,
    }
    return [mistake for mistake, holds in found.items() if holds] + [f"bias_forgotten:{part}" for part in spec.biases]
