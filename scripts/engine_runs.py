"""The engines of peer_engines.py in this process: transformers on sorted rows, a compiled forward pass, OpenVINO.

Each engine has variants with and without prefix reuse. A variant takes token ids in memory to pooled features in
memory: sorting, grouping by prefix, padding and the pass over each prefix are part of its run.
"""

import dataclasses
import importlib
import inspect
import time
from collections.abc import Callable

import numpy as np
import torch

from engine_decoder import Decoder, Prefix, Suffix, UnsupportedError, Whole, masked_sum


@dataclasses.dataclass
class Variant:
    """One way to run the work. `sums(batch_size)` gives the sums over masked tokens, `[n, h]` float32."""

    name: str
    shares_prefix: bool
    sums: Callable
    rows: object
    batch_sizes: list

    def extract(self, batch_size):
        """Pooled features `[n, 1, h]` and the seconds that they took."""
        start = time.perf_counter()
        pooled = self.rows.means(self.sums(batch_size))
        seconds = time.perf_counter() - start
        return pooled[:, None], seconds


@dataclasses.dataclass
class Setting:
    """What engines run: the peer in the run's type, the same weights in float32, the rows."""

    peer: torch.nn.Module
    reference: torch.nn.Module
    rows: object
    dtype: str
    threads: int
    batch_sizes: list

    def variants(self, name, sums):
        """The variants of `sums(share_prefix, batch_size)` without and with prefix reuse."""

        def variant(share, suffix):
            return Variant(name + suffix, share, lambda size: sums(share, size), self.rows, self.batch_sizes)

        return [variant(False, ""), variant(True, ", prefix")]

    def empty_sums(self):
        """NaN for rows to be computed, so that a missing one fails the check; 0 for rows without masked tokens."""
        sums = np.full((len(self.rows), self.peer.config.hidden_size), np.nan, np.float32)
        sums[self.rows.counts == 0] = 0.0
        return sums


def over_batches(setting, prefix_state, forward):
    """`sums(share_prefix, batch_size)` of an engine that runs one batch after another."""

    def sums(share_prefix, batch_size):
        result = setting.empty_sums()
        for prefix, batches in setting.rows.plan(batch_size, share_prefix):
            state = prefix_state(torch.tensor([prefix])) if prefix else None
            for batch in batches:
                values = forward(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask), state)
                result[batch.rows] = values.numpy()
        return result

    return sums


def start_sorted(setting):
    """Transformers on rows sorted by length; a prefix is a `DynamicCache` expanded to the rows of each batch.

    Right-padded rows of a causal model need no attention mask, and without one torch takes its causal kernel.
    """
    from transformers import DynamicCache

    model = setting.peer
    # The name changed between versions of transformers.
    parameters = inspect.signature(model.forward).parameters
    cache_name = "cache" if "cache" in parameters else "past_key_values"

    def prefix_state(ids):
        cache = DynamicCache()
        model(input_ids=ids, use_cache=True, **{cache_name: cache})
        return [(layer.keys, layer.values) for layer in cache.layers]

    def forward(ids, mask, state):
        extra = {"use_cache": False}
        if state is not None:
            cache = DynamicCache()
            for index, parts in enumerate(state):
                cache.update(*(part.expand(len(ids), -1, -1, -1) for part in parts), index)
            length = state[0][0].shape[2]
            positions = torch.arange(length, length + ids.shape[1])[None]
            extra = {"use_cache": True, cache_name: cache, "position_ids": positions}
        return masked_sum(model(input_ids=ids, **extra).last_hidden_state, mask)

    sums = over_batches(setting, prefix_state, forward)
    return setting.variants("transformers, sorted", torch.inference_mode()(sums))


def start_compiled(setting):
    """The plain forward pass by torch.compile with frozen weights; the prefixes, a few tokens, run uncompiled."""
    # Not every build of torch has inductor.
    importlib.import_module("torch._inductor.config").freezing = True
    decoder = Decoder(setting.peer, setting.rows.longest(), repeat_heads=False).eval()
    whole, suffix = (torch.compile(part(decoder).eval(), dynamic=True, fullgraph=True) for part in (Whole, Suffix))
    prefix = Prefix(decoder).eval()

    def forward(ids, mask, state):
        return whole(ids, mask) if state is None else suffix(ids, mask, *state)

    # Inductor freezes weights without gradients only, and does not know inference mode.
    return setting.variants("compiled torch", torch.no_grad()(over_batches(setting, prefix, forward)))


def start_openvino(setting):
    """The plain forward pass converted for OpenVINO's CPU device, with two streams and with one."""
    ov = importlib.import_module("openvino")
    # The graphs are traced with up to 7 tokens.
    longest = max(setting.rows.longest(), 7)
    graphs = _openvino_graphs(ov, Decoder(setting.reference, longest, repeat_heads=True).eval(), longest)
    core = ov.Core()
    precision = {"bf16": "bf16", "fp32": "f32"}[setting.dtype]

    def compiled(name, streams):
        settings = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": str(streams)}
        settings |= {"PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT"}
        settings |= {"INFERENCE_NUM_THREADS": setting.threads}
        model = core.compile_model(graphs[name], "CPU", settings)
        used = model.get_property("INFERENCE_PRECISION_HINT").to_string()
        if used != precision:
            raise UnsupportedError(f"OpenVINO computes in {used} on this processor, not in {precision}")
        return model

    prefix = compiled("prefix", 1).create_infer_request()
    variants = []
    for streams in (2, 1):
        if streams <= setting.threads:
            sums = _openvino_sums(ov, setting, prefix, compiled("whole", streams), compiled("suffix", streams), streams)
            variants += setting.variants(f"openvino, {streams} stream{'s' if streams > 1 else ''}", sums)
    return variants


def _openvino_sums(ov, setting, prefix, whole, suffix, streams):
    """`sums(share_prefix, batch_size)`; with several streams as many batches are in flight, and one waits."""
    queues = [ov.AsyncInferQueue(model, streams + 1 if streams > 1 else 1) for model in (whole, suffix)]

    def sums(share_prefix, batch_size):
        result = setting.empty_sums()

        def store(request, rows):
            result[rows] = request.get_output_tensor(0).data

        for queue in queues:
            queue.set_callback(store)
        for ids, batches in setting.rows.plan(batch_size, share_prefix):
            state = []
            if ids:
                outputs = prefix.infer([np.array([ids])])
                state = [outputs[0], outputs[1]]
            for batch in batches:
                queues[bool(ids)].start_async([batch.ids, batch.mask, *state], batch.rows)
        for queue in queues:
            queue.wait_all()
        return result

    return sums


def _openvino_graphs(ov, decoder, longest):
    """The three graphs of the decoder, with dynamic sizes."""
    # A size of 1 would be fixed by torch.export, hence 2; OpenVINO takes any size afterwards.
    sizes = {"rows": 1 << 20, "length": longest, "prefix": longest}
    rows, length, p = (torch.export.Dim(name, min=2, max=most) for name, most in sizes.items())
    ids, mask, two_axes = torch.zeros(3, 5, dtype=torch.long), torch.ones(3, 5), {0: rows, 1: length}
    with torch.no_grad():
        keys, values = Prefix(decoder)(torch.zeros(1, 7, dtype=torch.long))
        exported = {
            "whole": (Whole(decoder), (ids, mask), (two_axes, two_axes)),
            "prefix": (Prefix(decoder), (torch.zeros(1, 7, dtype=torch.long),), ({1: p},)),
            "suffix": (Suffix(decoder), (ids, mask, keys, values), (two_axes, two_axes, {2: p}, {2: p})),
        }
        return {
            name: ov.convert_model(torch.export.export(module.eval(), inputs, dynamic_shapes=shapes))
            for name, (module, inputs, shapes) in exported.items()
        }
