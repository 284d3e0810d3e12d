"""A transformers model run for pooled activations as a careful user would: peer_hf.py's side of the comparison.

The base model without its LM head, final norm and the blocks after the deepest requested layer, right-padded batches with
an attention mask, forward hooks on the requested blocks, and pooling of each batch in float32 within the loop: one vector
a sample and layer is kept, on the device until the end.

Faster variants of the same work, for measurements: blocks compiled by torch.compile, and rows packed into one sequence
without padding, which transformers keeps apart by their `position_ids`.
"""

import contextlib
import os
import time
from pathlib import Path

# Nothing is downloaded: a model is a local directory. Set before the import that reads it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

TORCH_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class UsageError(Exception):
    """A request that cannot be fulfilled; the message is one line with the reason and a remedy."""


def model_source(model):
    """Arguments of `from_pretrained` for a directory or a .gguf file."""
    path = Path(model)
    if path.is_dir():
        return {"pretrained_model_name_or_path": str(path)}
    if path.is_file() and path.suffix == ".gguf":
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    raise UsageError(f"--model {model}: neither a Hugging Face model directory nor a .gguf file")


# The attributes of a decoder's blocks and of its final norm: Llama and most others, GPT-NeoX, GPT-2.
BLOCKS_AND_NORM = [("layers", "norm"), ("layers", "final_layer_norm"), ("h", "ln_f")]


def load_base_model(source, dtype, attention):
    """The base model, with eager attention where its class has no other (Gemma 2), which is said."""
    try:
        return transformers.AutoModel.from_pretrained(**source, dtype=dtype, attn_implementation=attention)
    except ValueError as error:
        if attention == "eager" or "attn_implementation" not in str(error) and attention not in str(error):
            raise
        print(f"transformers has no {attention} attention for this model and runs eager attention")
        return transformers.AutoModel.from_pretrained(**source, dtype=dtype, attn_implementation="eager")


class Peer:
    """A transformers model without LM head, final norm and blocks that no task needs.

    As a reference for a run in a 16-bit type it computes in float32, with weights rounded to that type and with
    eager attention, so that no intermediate result is rounded further (peer_hf.py keeps TF32 off).
    """

    def __init__(self, arguments, deepest, is_reference=False):
        try:
            attention = "eager" if is_reference else arguments.attention
            model = load_base_model(model_source(arguments.model), TORCH_TYPES[arguments.dtype], attention)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UsageError(f"--model {arguments.model}: transformers cannot load it ({error})") from None
        # The text part of a model that also sees pictures.
        model = getattr(model, "language_model", model)
        found = [names for names in BLOCKS_AND_NORM if all(hasattr(model, name) for name in names)]
        if not found:
            names = " or ".join(f"`{blocks}` and `{norm}`" for blocks, norm in BLOCKS_AND_NORM)
            raise UsageError(f"--model {arguments.model}: a {type(model).__name__} has no {names} to cut at")
        self.blocks_name, norm = found[0]
        blocks = getattr(model, self.blocks_name)
        if deepest >= len(blocks):
            raise UsageError(
                f"layer {deepest} is asked for, but the model has {len(blocks)} layers, 0 to {len(blocks) - 1}"
            )
        setattr(model, norm, torch.nn.Identity())
        self.blocks = blocks[: deepest + 1]
        setattr(model, self.blocks_name, self.blocks)
        model = model.eval().to(arguments.device)
        self.model = model.float() if is_reference else model
        self.device = torch.device(arguments.device)
        self.batch_size = arguments.batch_size
        self.pool = arguments.pool
        self.padded_attention = self.model.config._attn_implementation
        # Set by `variant`.
        self.packed_attention = None

    def compile_blocks(self):
        """Compiles the blocks for `variant`; the first batch of each shape compiles. One graph serves all blocks of a shape."""
        # Graphs of several shapes and kinds of blocks; beyond the limit torch would run uncompiled.
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        return [torch.compile(block.forward, fullgraph=True) for block in self.blocks]

    @contextlib.contextmanager
    def variant(self, compiled=None, packed_attention=None):
        """Runs as a variant within the context: with `compiled` of `compile_blocks`, packed with this attention, or both."""
        try:
            for block, forward in zip(self.blocks, compiled or [], strict=False):
                block.forward = forward
            if packed_attention:
                self.model.set_attn_implementation(packed_attention)
                self.packed_attention = packed_attention
            yield self
        finally:
            for block in self.blocks if compiled else []:
                # The class's own forward is visible again.
                del block.forward
            if packed_attention:
                self.model.set_attn_implementation(self.padded_attention)
                self.packed_attention = None

    def extract(self, features, layer_ids):
        """Pooled features of all rows, `[n, len(layer_ids), h]` float32, and the seconds they took."""
        vocab_size = self.model.config.vocab_size
        if features.tokens.max() >= vocab_size:
            raise UsageError(
                f"the features file holds token id {features.tokens.max()}, but the model has {vocab_size}: "
                "not the same model"
            )
        setattr(self.model, self.blocks_name, self.blocks[: layer_ids[-1] + 1])
        caught = {}
        hooks = [
            self.blocks[layer].register_forward_hook(
                lambda _module, _inputs, output, layer=layer: caught.__setitem__(layer, self._pooled(output))
            )
            for layer in layer_ids
        ]
        try:
            with torch.inference_mode():
                self._run_batch(features, range(min(self.batch_size, len(features))))
                self._synchronize()
                pooled = []
                start = time.perf_counter()
                for first in range(0, len(features), self.batch_size):
                    self._run_batch(features, range(first, min(first + self.batch_size, len(features))))
                    pooled.append(torch.stack([caught[layer] for layer in layer_ids], dim=1))
                result = torch.cat(pooled).cpu().numpy()
                self._synchronize()
                seconds = time.perf_counter() - start
        finally:
            for hook in hooks:
                hook.remove()
        return result, seconds

    def _synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _run_batch(self, features, rows):
        """One forward pass over right-padded rows, or over packed ones."""
        lengths = [len(features.row(row)) for row in rows]
        if self.packed_attention:
            self._run_packed(features, rows, lengths)
            return
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        attention_mask, pool_mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : lengths[index]] = torch.from_numpy(features.row(row))
            attention_mask[index, : lengths[index]] = 1
            pool_mask[index, : lengths[index]] = torch.from_numpy(features.row_mask(row))
        self.pool_mask = pool_mask.to(self.device)
        self.model(input_ids=ids.to(self.device), attention_mask=attention_mask.to(self.device), use_cache=False)

    def _run_packed(self, features, rows, lengths):
        """One forward pass over rows that follow each other in one sequence, each with positions from 0."""
        first = torch.tensor([0, *lengths]).cumsum(0)
        ids = torch.cat([torch.from_numpy(features.row(row)) for row in rows]).long()
        positions = torch.cat([torch.arange(length) for length in lengths])
        # Where the padded row has its tokens in the sequence; the last token stands for padding, which is not pooled.
        columns = torch.arange(max(lengths))
        places = (first[:-1, None] + columns).clamp(max=len(ids) - 1)
        pool_mask = torch.zeros_like(places)
        for index, row in enumerate(rows):
            pool_mask[index, : lengths[index]] = torch.from_numpy(features.row_mask(row))
        self.pool_mask, self.places = pool_mask.to(self.device), places.to(self.device)
        bounds = {}
        if self.packed_attention.startswith("flash"):
            # Otherwise every layer finds the rows again, with a wait for the device.
            cumulative, longest = first.to(self.device, torch.int32), max(lengths)
            bounds = {"cu_seq_lens_q": cumulative, "cu_seq_lens_k": cumulative}
            bounds |= {"max_length_q": longest, "max_length_k": longest}
        ids, positions = ids[None].to(self.device), positions[None].to(self.device)
        self.model(input_ids=ids, position_ids=positions, use_cache=False, **bounds)

    def _pooled(self, output):
        """Pools one block's `[b, s, h]` over the masked positions, in float32; zeros for a row without any."""
        hidden = output if torch.is_tensor(output) else output[0]
        if self.packed_attention:
            hidden = hidden[0][self.places]
        hidden = hidden.float()
        mask = self.pool_mask.float()
        count = mask.sum(dim=1, keepdim=True)
        if self.pool == "max":
            largest = hidden.masked_fill(self.pool_mask[..., None] == 0, float("-inf")).amax(dim=1)
            return torch.where(count > 0, largest, torch.zeros_like(largest))
        if self.pool == "last":
            positions = torch.arange(mask.shape[1], device=mask.device)
            last = (self.pool_mask * positions).argmax(dim=1)
            return hidden[torch.arange(len(last), device=mask.device), last] * (count > 0)
        # Element by element and not a matrix product: that may run in a narrower type on some devices.
        total = (hidden * mask[..., None]).sum(dim=1)
        return total if self.pool == "sum" else total / count.clamp(min=1)
