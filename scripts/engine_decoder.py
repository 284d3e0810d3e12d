"""A plain forward pass of Llama-like decoders, for engines that compile or convert a torch module.

It is what a user would write by hand: merged projections of queries, keys and values and of gate and up, rotary tables
made once, no attention mask where rows run whole (padding is at the end), keys and values of a shared prefix as inputs.
"""

import torch
import torch.nn.functional as F

# Of other families the own forward pass would compute something else.
MODEL_TYPES = ("llama", "mistral", "qwen2")


class UnsupportedError(Exception):
    """An engine that cannot run; the message is one line with the reason."""


def check_supported(config):
    """Raises `UnsupportedError` for a model that the plain forward pass does not compute."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    windows = [kind for kind in getattr(config, "layer_types", None) or [] if kind != "full_attention"]
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        windows.append("sliding_window")
    for is_bad, what in (
        (config.model_type not in MODEL_TYPES, f"a {config.model_type}"),
        (config.hidden_act not in ("silu", "swish"), f"activation {config.hidden_act}"),
        (rope.get("rope_type", "default") in ("dynamic", "longrope"), f"rotary type {rope.get('rope_type')}"),
        (bool(windows), f"attention of type {windows[0] if windows else ''}"),
    ):
        if is_bad:
            raise UnsupportedError(f"the plain forward pass of scripts/engine_decoder.py does not compute {what}")


def _merged(projections):
    """One linear layer of several: `(weight, bias or None)`."""
    weight = torch.cat([projection.weight for projection in projections])
    if all(projection.bias is None for projection in projections):
        return weight, None
    zeros = [projection.weight.new_zeros(projection.weight.shape[0]) for projection in projections]
    biases = [zero if p.bias is None else p.bias for p, zero in zip(projections, zeros, strict=True)]
    return weight, torch.cat(biases)


class Block(torch.nn.Module):
    """The weights of one block; `Decoder` says what is computed with them."""

    def __init__(self, block):
        super().__init__()
        attention, mlp = block.self_attn, block.mlp
        for name, parts in (
            ("qkv", (attention.q_proj, attention.k_proj, attention.v_proj)),
            ("output", (attention.o_proj,)),
            ("gate_up", (mlp.gate_proj, mlp.up_proj)),
            ("down", (mlp.down_proj,)),
        ):
            weight, bias = _merged(parts)
            self._constant(f"{name}_weight", weight)
            self._constant(f"{name}_bias", bias)
        for name, norm in (("attention", block.input_layernorm), ("mlp", block.post_attention_layernorm)):
            self._constant(f"{name}_norm", norm.weight)
        self.eps = block.input_layernorm.variance_epsilon
        self.scaling = attention.scaling

    def _constant(self, name, value):
        # A parameter and not a buffer: torch.compile packs those for its matmuls.
        constant = None if value is None else torch.nn.Parameter(value.detach(), requires_grad=False)
        self.register_parameter(name, constant)

    def linear(self, name, x):
        """One of the (merged) projections."""
        return F.linear(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"))

    def norm(self, name, x):
        """One of the norms."""
        weight = getattr(self, f"{name}_norm")
        return F.rms_norm(x, (x.shape[-1],), weight, self.eps)


class Decoder(torch.nn.Module):
    """Embedding and blocks of a base model of transformers that was cut after its last wanted block.

    `repeat_heads` writes grouped heads out, for converters that refuse `enable_gqa`.
    """

    def __init__(self, model, longest, repeat_heads):
        super().__init__()
        config = model.config
        check_supported(config)
        self.embedding = model.embed_tokens
        self.blocks = torch.nn.ModuleList(Block(block) for block in model.layers)
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.repeat_heads = repeat_heads
        weight = model.embed_tokens.weight
        with torch.no_grad():
            # Twice as many as any row needs: then a prefix and a rest of any lengths fit, and torch.export needs no
            # bound on their sum.
            positions = torch.arange(2 * longest)[None]
            cos, sin = model.rotary_emb(weight.new_zeros(1, 2 * longest, 1), positions)
        # [2 * longest, head_dim] each.
        self.register_buffer("cos", cos[0].to(weight.dtype))
        self.register_buffer("sin", sin[0].to(weight.dtype))

    def _rotated(self, x, start):
        """Rotary position embedding of `[b, heads, l, head_dim]` from position `start` on."""
        end, half = start + x.shape[2], x.shape[3] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        return x * self.cos[start:end] + turned * self.sin[start:end]

    def _attention(self, queries, keys, values, scaling, start):
        if self.repeat_heads:
            keys, values = (x.repeat_interleave(self.heads // self.kv_heads, dim=1) for x in (keys, values))
        mask = None
        if start:
            # Query i is at position start + i.
            last = torch.arange(start, start + queries.shape[2])
            mask = torch.arange(keys.shape[2])[None, :] <= last[:, None]
        return F.scaled_dot_product_attention(
            queries, keys, values, mask, is_causal=mask is None, scale=scaling, enable_gqa=not self.repeat_heads
        )

    def hidden(self, ids, prefix_keys=None, prefix_values=None, kept=None):
        """Residuals `[b, l, h]` after the last block. Prefix keys and values are `[blocks, kv_heads, p, head_dim]`.

        Keys and values of each block are appended to the list `kept`.
        """
        batch, length = ids.shape
        start = 0 if prefix_keys is None else prefix_keys.shape[2]
        x = self.embedding(ids)
        for index, block in enumerate(self.blocks):
            qkv = block.linear("qkv", block.norm("attention", x))
            qkv = qkv.view(batch, length, self.heads + 2 * self.kv_heads, -1).transpose(1, 2)
            queries, keys, values = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            queries, keys = self._rotated(queries, start), self._rotated(keys, start)
            if kept is not None:
                kept.append((keys[0], values[0]))
            if start:
                keys = torch.cat([prefix_keys[index].expand(batch, -1, -1, -1), keys], dim=2)
                values = torch.cat([prefix_values[index].expand(batch, -1, -1, -1), values], dim=2)
            heads = self._attention(queries, keys, values, block.scaling, start)
            x = x + block.linear("output", heads.transpose(1, 2).reshape(batch, length, -1))
            gate, up = block.linear("gate_up", block.norm("mlp", x)).chunk(2, dim=-1)
            x = x + block.linear("down", F.silu(gate) * up)
        return x


class Whole(torch.nn.Module):
    """`(ids, mask) -> sums`: rows from their first token on, pooled."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, ids, mask):
        """Sums `[b, h]` float32 over the masked tokens."""
        return masked_sum(self.decoder.hidden(ids), mask)


class Prefix(torch.nn.Module):
    """`ids [1, p] -> (keys, values)`, each `[blocks, kv_heads, p, head_dim]`."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, ids):
        """Keys and values of all blocks."""
        kept = []
        self.decoder.hidden(ids, kept=kept)
        return torch.stack([keys for keys, _ in kept]), torch.stack([values for _, values in kept])


class Suffix(torch.nn.Module):
    """`(ids, mask, keys, values) -> sums`: rows from the end of their shared prefix on, pooled."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, ids, mask, keys, values):
        """Sums `[b, h]` float32 over the masked tokens."""
        return masked_sum(self.decoder.hidden(ids, keys, values), mask)


def masked_sum(hidden, mask):
    """Sums `[b, h]` in float32 of `hidden [b, l, h]` over the positions where `mask [b, l]` is 1."""
    return (mask[:, None] @ hidden.float())[:, 0]
