#!/usr/bin/env python3
"""Makes harness/activations/tests/data/gguf_blocks.safetensors: quantized blocks and what gguf-py makes of them.

    make_gguf_goldens.py [OUT]

For each tensor type: `<type>.blocks`, bytes from a seeded generator (the type's number is the seed) with scales of ordinary size, and
`<type>.values`, the f32 values of gguf-py's dequantization. `<type>.extreme.blocks` and `<type>.extreme.values` are the same with the
largest, the smallest and no scales. Needs gguf (made with 0.19.0), numpy and safetensors.
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, dequantize
from gguf.constants import GGML_QUANT_SIZES
from safetensors.numpy import save_file

# Byte offsets of the half-precision scales within a block.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0],
}
# The largest number of half precision, the smallest normal and subnormal ones, and zeros.
EXTREMES = np.array([65504.0, -65504.0, 6.104e-5, -5.96e-8, 5.96e-8, 0.0, -0.0], np.float16)
BLOCKS = {name: 2 if name.endswith("_K") else 4 for name in SCALES}


def main():
    here = Path(__file__).resolve().parent.parent
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "harness/activations/tests/data/gguf_blocks.safetensors"
    tensors = {}
    for name in ["F32", "F16", "BF16", *BLOCKS]:
        kind = GGMLQuantizationType[name]
        # A seed for each type, so that a type more does not change the others.
        random = np.random.default_rng(kind.value)
        _, size = GGML_QUANT_SIZES[kind]
        if name in BLOCKS:
            blocks = random.integers(0, 256, (BLOCKS[name], size), dtype=np.uint8)
            for at in SCALES[name]:
                scales = random.normal(0, 0.02, BLOCKS[name]).astype(np.float16)
                blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        else:
            values = random.normal(0, 1, 16).astype(np.float32)
            values[:4] = [0.0, -0.0, 1e-7, -60000.0]
            if name == "F16":
                blocks = values.astype(np.float16).view(np.uint8)
            elif name == "BF16":
                blocks = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
            else:
                blocks = values.view(np.uint8)
        tensors[f"{name}.blocks"] = np.ascontiguousarray(blocks.reshape(-1))
        if name in BLOCKS:
            extreme = random.integers(0, 256, (len(EXTREMES), size), dtype=np.uint8)
            for turn, at in enumerate(SCALES[name]):
                # Scale and minimum of a block are different extremes.
                extreme[:, at : at + 2] = np.roll(EXTREMES, turn).view(np.uint8).reshape(-1, 2)
            tensors[f"{name}.extreme.blocks"] = np.ascontiguousarray(extreme.reshape(-1))
    for blocks in [key for key in tensors if key.endswith(".blocks")]:
        kind = GGMLQuantizationType[blocks.split(".")[0]]
        values = dequantize(tensors[blocks].reshape(1, -1), kind)
        tensors[blocks.replace(".blocks", ".values")] = np.ascontiguousarray(values.reshape(-1).astype(np.float32))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out)


if __name__ == "__main__":
    main()
