"""The Llama decoder written out in numpy double precision, with named mistakes.

make_goldens.py uses it twice: as a second opinion on the numbers that transformers gives, and to show that the tiny
models can tell a right implementation from a wrong one. A mistake that people really make (a bias forgotten, a norm
applied too early, query heads mapped to the wrong key heads) must move the hidden states by far more than the
tolerance of the tests, or the goldens would prove nothing about it.

Everything is computed in float64; the formulas are those of the Llama papers (https://arxiv.org/abs/2302.13971,
https://arxiv.org/abs/2407.21783) and of RoPE (https://arxiv.org/abs/2104.09864).
"""

import math

import numpy as np

PROJECTIONS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


def inverse_frequencies(config, mistake=None):
    """Angle in radians per position of each pair of a head's elements, `[head_dim / 2]`."""
    theta = config.rope_theta
    if mistake == "rope_theta_of_10000":
        theta = 10_000.0
    pairs = np.arange(0, config.head_dim, 2, dtype=np.float64)
    frequencies = theta ** (-pairs / config.head_dim)
    scaling = config.rope_scaling
    if scaling is None or mistake == "rope_scaling_ignored":
        return frequencies
    if scaling["rope_type"] == "linear":
        return frequencies / scaling["factor"]

    # Llama 3: long waves are slowed down by `factor`, short ones are left alone, those between are interpolated.
    context = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = context * frequencies / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    if mistake == "rope_middle_band_not_smoothed":
        smooth = (turns >= low).astype(np.float64)
    return (1 - smooth) * frequencies / scaling["factor"] + smooth * frequencies


def rope_bands(config):
    """How many frequencies are in the long, middle and short band of the llama3 scaling."""
    scaling = config.rope_scaling
    turns = (
        scaling["original_max_position_embeddings"]
        * config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
        / (2 * math.pi)
    )
    long_waves = int((turns < scaling["low_freq_factor"]).sum())
    short_waves = int((turns > scaling["high_freq_factor"]).sum())
    return long_waves, len(turns) - long_waves - short_waves, short_waves


def rotate(x, frequencies, mistake=None):
    """RoPE on `x [heads, len, head_dim]`: the pair of element i is element i + head_dim / 2, as Hugging Face has it."""
    angles = np.arange(x.shape[1])[:, None] * frequencies[None, :]
    cos, sin = np.cos(angles), np.sin(angles)
    half = x.shape[2] // 2
    if mistake == "rope_pairs_interleaved":
        first, second = x[..., 0::2], x[..., 1::2]
    else:
        first, second = x[..., :half], x[..., half:]
    rotated_first, rotated_second = first * cos - second * sin, second * cos + first * sin
    if mistake == "rope_pairs_interleaved":
        return np.stack([rotated_first, rotated_second], axis=-1).reshape(x.shape)
    return np.concatenate([rotated_first, rotated_second], axis=-1)


def rms_norm(x, weight, eps, mistake=None):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis."""
    if mistake == "eps_of_another_model":
        eps = 1e-5 if eps == 1e-6 else 1e-6
    if mistake == "norm_weight_ignored":
        weight = 1.0
    return weight * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def linear(x, weights, name, mistake=None):
    """`x W^T + b`; the bias is there when the file has it."""
    y = x @ weights[name + ".weight"].T
    bias = weights.get(name + ".bias")
    if bias is not None and mistake != "bias_forgotten:" + name.rsplit(".", 1)[1]:
        y = y + bias
    return y


def attention(x, weights, prefix, config, mistake=None):
    """Causal self-attention of one sequence, `[len, hidden]`, with grouped key and value heads."""
    length = x.shape[0]

    def heads(name, count):
        return linear(x, weights, prefix + name, mistake).reshape(length, count, config.head_dim).transpose(1, 0, 2)

    frequencies = inverse_frequencies(config, mistake)
    q = rotate(heads("q_proj", config.n_heads), frequencies, mistake)
    k = rotate(heads("k_proj", config.n_kv_heads), frequencies, mistake)
    v = heads("v_proj", config.n_kv_heads)

    group = config.n_heads // config.n_kv_heads
    kv_of_head = np.arange(config.n_heads) // group
    if mistake == "kv_heads_modulo":
        kv_of_head = np.arange(config.n_heads) % config.n_kv_heads
    scale_dim = config.head_dim
    if mistake == "softmax_scale_from_hidden_size":
        scale_dim = config.hidden_size // config.n_heads

    logits = q @ k[kv_of_head].transpose(0, 2, 1) / math.sqrt(scale_dim)
    if mistake != "not_causal":
        logits = np.where(np.tri(length, dtype=bool), logits, -np.inf)
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    mixed = (probabilities @ v[kv_of_head]).transpose(1, 0, 2).reshape(length, config.n_heads * config.head_dim)
    return linear(mixed, weights, prefix + "o_proj", mistake)


def mlp(x, weights, prefix, mistake=None):
    """SwiGLU: `down(silu(gate(x)) * up(x))`."""
    gate, up = linear(x, weights, prefix + "gate_proj", mistake), linear(x, weights, prefix + "up_proj", mistake)
    if mistake == "gate_and_up_swapped":
        gate, up = up, gate
    return linear(gate / (1 + np.exp(-gate)) * up, weights, prefix + "down_proj", mistake)


def hidden_states(config, weights, tokens, mistake=None):
    """Output of every decoder block for one token sequence, `[n_layers, len, hidden]`, float64.

    `weights` maps Hugging Face's tensor names to float64 arrays; `mistake` is one of `possible_mistakes(config)`.
    """
    x = weights["model.embed_tokens.weight"][np.asarray(tokens)]
    outputs = []
    for layer in range(config.n_layers):
        prefix = f"model.layers.{layer}."
        normed = rms_norm(x, weights[prefix + "input_layernorm.weight"], config.rms_norm_eps, mistake)
        x = x + attention(normed, weights, prefix + "self_attn.", config, mistake)
        normed = rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], config.rms_norm_eps, mistake)
        x = x + mlp(normed, weights, prefix + "mlp.", mistake)
        outputs.append(x)
    if mistake == "final_norm_applied":
        outputs[-1] = rms_norm(x, weights["model.norm.weight"], config.rms_norm_eps)
    return np.stack(outputs)


def possible_mistakes(config):
    """The mistakes that would change the numbers of this model, were they made."""
    mistakes = ["not_causal", "rope_pairs_interleaved", "norm_weight_ignored", "eps_of_another_model"]
    mistakes += ["gate_and_up_swapped", "final_norm_applied"]
    if config.rope_theta != 10_000.0:
        mistakes.append("rope_theta_of_10000")
    if config.rope_scaling is not None:
        mistakes.append("rope_scaling_ignored")
        if config.rope_scaling["rope_type"] == "llama3":
            mistakes.append("rope_middle_band_not_smoothed")
    if 1 < config.n_kv_heads < config.n_heads:
        mistakes.append("kv_heads_modulo")
    if config.hidden_size // config.n_heads != config.head_dim:
        mistakes.append("softmax_scale_from_hidden_size")
    if config.attention_bias:
        mistakes += ["bias_forgotten:" + name for name in PROJECTIONS["self_attn"]]
    if config.mlp_bias:
        mistakes += ["bias_forgotten:" + name for name in PROJECTIONS["mlp"]]
    return mistakes
