#!/usr/bin/env python3
"""Checks a cache file with the safetensors package, and its values against those that `actbench features` wrote.

    check_cache_python.py CACHE [--features FEATURES]

Needs: numpy, safetensors. CACHE is what `actbench cache --out CACHE` writes; FEATURES is what `actbench features`
with the same settings writes: its pooled values are the cache's, converted to float32, bit for bit.
"""

import argparse
import json
import math

import numpy as np
from safetensors import safe_open


# The table of samples: type and bytes of an entry.
COLUMNS = {"rows": ("I64", 8), "labels": ("U8", 1), "is_train": ("U8", 1)}


def header_entries(path):
    """The header as it stands in the file: names, types, shapes, offsets."""
    with open(path, "rb") as file:
        entries = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    entries.pop("__metadata__")
    return entries


def float32(path, name, entry):
    """A tensor in float32. numpy has no bfloat16, so that one is read as the upper half of a float32."""
    with safe_open(path, framework="numpy") as file:
        if entry["dtype"] != "BF16":
            return file.get_tensor(name).astype(np.float32)
    with open(path, "rb") as file:
        data = 8 + int.from_bytes(file.read(8), "little")
        begin, end = entry["data_offsets"]
        file.seek(data + begin)
        halves = np.frombuffer(file.read(end - begin), dtype="<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--features")
    arguments = parser.parse_args()

    entries = header_entries(arguments.cache)
    with safe_open(arguments.cache, framework="numpy") as file:
        metadata = file.metadata()
        check(set(file.keys()) == set(entries), "the package sees other tensors than the header names")
        checksums = file.get_tensor("checksums")
    check(metadata["format"] == "actbench.acts" and metadata["format_version"] == "2", "format or version")
    check(len(metadata["checksum"]) == 64 and set(metadata["checksum"]) != {"0"}, "the file was never completed")
    check(metadata["axes"] == "blh", f"axes are {metadata['axes']}, not blh")
    n_samples, n_layers, hidden = json.loads(metadata["shape"])
    layer_ids = json.loads(metadata["layer_ids"])
    check(len(layer_ids) == n_layers, "layer numbers and shape")
    check(set(entries) == {f"layer.{layer}" for layer in layer_ids} | {"checksums", *COLUMNS}, "names of the tensors")
    dtype = {"bf16": "BF16", "f16": "F16", "f32": "F32"}.get(metadata["dtype"])
    row_bytes = hidden * (4 if dtype == "F32" else 2)
    rows_per_chunk = max(1, int(metadata["chunk_bytes"]) // row_bytes)
    chunks = n_layers * math.ceil(n_samples / rows_per_chunk)
    chunks += sum(math.ceil(n_samples * size / int(metadata["chunk_bytes"])) for _, size in COLUMNS.values())
    check(checksums.shape == (chunks, 32) and checksums.dtype == np.uint8, f"{checksums.shape} checksums, not {chunks}")

    layers = []
    for layer in layer_ids:
        entry = entries[f"layer.{layer}"]
        check(entry["dtype"] == dtype and entry["shape"] == [n_samples, hidden], f"layer {layer}: {entry}")
        values = float32(arguments.cache, f"layer.{layer}", entry)
        check(np.isfinite(values).all(), f"layer {layer} has values that are not finite")
        check(np.ptp(values) > 0, f"layer {layer} has one value throughout")
        layers.append(values)

    compared = ""
    if arguments.features:
        with safe_open(arguments.features, framework="numpy") as file:
            pooled, ids = file.get_tensor("pooled"), file.get_tensor("layer_ids")
            table = {name: file.get_tensor(name) for name in COLUMNS}
        with safe_open(arguments.cache, framework="numpy") as file:
            for name, (dtype_name, _) in COLUMNS.items():
                check(entries[name]["dtype"] == dtype_name, f"{name} is {entries[name]['dtype']}")
                check(np.array_equal(file.get_tensor(name), table[name]), f"{name} differ from those of the features")
        check(ids.tolist() == layer_ids, f"layers {ids.tolist()} and {layer_ids}")
        stacked = np.stack(layers, axis=1)
        check(pooled.shape == stacked.shape, f"features {pooled.shape}, cache {stacked.shape}")
        different = np.count_nonzero(pooled.view(np.uint32) != stacked.view(np.uint32))
        check(different == 0, f"{different} of {stacked.size} values differ from the features")
        compared = f", {stacked.size} values equal to the features in every bit"
    print(f"{arguments.cache}: {n_samples} samples, layers {layer_ids}, {metadata['dtype']}, finite{compared}")


if __name__ == "__main__":
    main()
