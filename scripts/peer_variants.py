"""Faster variants of the peer, checked before they are timed, and the rate that a device sustains: for `peer_hf.py --bench`.

- compiled: torch.compile on every block, in whole graphs. A user gets these fusions without writing kernels.
- packed: the rows of a batch in one sequence without padding, apart by `position_ids`. transformers then uses the variable-length
  kernels of flash-attn where they are installed, flex attention on a GPU without them, and otherwise SDPA with a mask of
  blocks, which computes all pairs of the sequence.
- compiled+packed: both.

A variant is skipped, and the reason printed, if it cannot run here or if its features differ from those of the padded run.
"""

import shutil
import subprocess
import time

import torch
import transformers
from hf_model import TORCH_TYPES
from peer_checks import ROW_FACTOR, TOLERANCE, relative_errors

VARIANTS = ["compiled", "packed", "compiled+packed"]
# The rate of a matmul is its mean over this time, after a third of it: a GPU lowers its clocks within a second of full load.
SUSTAINED_S = {"cuda": 1.5, "cpu": 0.2}
MATMUL_SIZE = {"cuda": 8192, "cpu": 1024}


def packed_attentions(peer):
    """The attentions of transformers for packed rows on this device, the fastest first."""
    found = []
    if peer.device.type == "cuda":
        is_16_bit = next(peer.model.parameters()).dtype in (torch.bfloat16, torch.float16)
        if is_16_bit and transformers.utils.is_flash_attn_2_available():
            found.append("flash_attention_2")
        found.append("flex_attention")
    return [*found, peer.padded_attention]


def one_line(error):
    """The first line of an error, for a table of reasons."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


class Variants:
    """The variants that run here, each with how it is selected."""

    def __init__(self, peer, features, layers, dtype, wanted):
        self.peer, self.features, self.layers, self.dtype = peer, features, layers, dtype
        # Name: arguments of `Peer.variant`.
        self.working = {}
        self.notes = []
        self.compiled = None
        padded = peer.extract(features, layers)[0] if wanted else None
        for name in wanted:
            self._try(name, padded)

    def _try(self, name, padded):
        """Runs a variant twice, which compiles and warms it up, and keeps it if its features are those of the padded run."""
        reasons = []
        for attention in packed_attentions(self.peer) if "packed" in name else [None]:
            # Any error: a missing compiler, a model that cannot be traced or packed, too little memory.
            try:
                if "compiled" in name and self.compiled is None:
                    self.compiled = self.peer.compile_blocks()
                chosen = {"packed_attention": attention}
                if "compiled" in name:
                    chosen["compiled"] = self.compiled
                with self.peer.variant(**chosen):
                    self.peer.extract(self.features, self.layers)
                    ours = self.peer.extract(self.features, self.layers)[0]
            except Exception as error:
                reasons.append(f"{attention or 'torch.compile'}: {one_line(error)}")
                continue
            layer_error, row_error = relative_errors(ours, padded)
            limit = TOLERANCE[self.dtype]
            # Written so that NaN is a failure.
            if layer_error <= limit and row_error <= ROW_FACTOR * limit:
                self.working[name] = chosen
                how = f" with {attention}" if attention else ""
                self.notes.append(f"{name}{how}: {layer_error:.1e} of a layer from the padded run")
                return
            reasons.append(
                f"{attention or 'torch.compile'}: {layer_error:.1e} of a layer and {row_error:.1e} of a row from the padded run"
            )
        self.notes.append(f"{name}: SKIPPED: {'; '.join(reasons)}")

    def extract(self, name, layers):
        """`Peer.extract` as the variant `name`."""
        with self.peer.variant(**self.working[name]):
            return self.peer.extract(self.features, layers)


def gpu_state():
    """Clock in MHz and power in W of the GPU by nvidia-smi, as text; none without it."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=5).stdout
        mhz, watts = text.splitlines()[0].split(",")
        return f"{int(float(mhz))} MHz, {float(watts):.0f} W"
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def sustained_flops(device, dtype, seconds=None, size=None):
    """Floating-point operations per second of a matmul of torch, the mean over `seconds`, and the GPU's state meanwhile."""
    seconds = SUSTAINED_S[device.type] if seconds is None else seconds
    size = MATMUL_SIZE[device.type] if size is None else size
    is_cuda = device.type == "cuda"
    # Not zeros, which draw less power and so run at higher clocks.
    a, b = (torch.randn(size, size, device=device).to(TORCH_TYPES[dtype]) for _ in range(2))
    out = torch.empty_like(a)

    def wait():
        if is_cuda:
            torch.cuda.synchronize(device)

    def mean_over(time_s):
        wait()
        calls, start, state = 0, time.perf_counter(), None
        while True:
            for _ in range(20 if is_cuda else 1):
                torch.matmul(a, b, out=out)
                calls += 1
            if is_cuda and state is None and time.perf_counter() - start > time_s / 2:
                # While the calls above run.
                state = gpu_state()
            wait()
            elapsed = time.perf_counter() - start
            if elapsed >= time_s:
                return elapsed / calls, state

    with torch.inference_mode():
        mean_over(seconds / 3)
        per_call, state = mean_over(seconds)
    return 2 * size**3 / per_call, state
