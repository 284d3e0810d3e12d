"""Reads the files of `actbench features` and `actbench cache` in Python: numpy alone is needed, torch only for `tensor`.

    from actbench_files import load

    file = load("features.safetensors")    # of either command
    x = file.numpy(12)                      # layer 12, float32 [n, h]; file.layers lists the layers
    train = file.is_train                   # bool [n]: the side of the split
    y = file.labels                         # 0 or 1 [n]
    file.rows                               # int64 [n]: index of each sample's row in the data set as read, from 0
    file.settings["mask"]                   # the settings: model, dataset, mask, pool, samples, seed and others

A layer's number is in `file.metadata["layer_numbering"]`. Samples are in another order than in the data set: training
samples first, and shuffled. `rows` leads back to the data set, and so to columns that actbench does not read.
`python3 actbench_files.py FILE` prints what a file has.
"""

import json
import sys

import numpy as np

_SETTINGS = ("model", "adapter", "dataset", "data_digest", "mask", "pool", "dtype", "samples", "train_frac", "seed")
_TYPES = {"BOOL": "?", "U8": "u1", "I32": "<i4", "I64": "<i8", "F16": "<f2", "BF16": "<u2", "F32": "<f4"}


class ActbenchFile:
    """A mapped safetensors file. Nothing is copied to memory before it is used."""

    def __init__(self, path):
        refusal = ValueError(f"{path}: not a file of `actbench features` or `actbench cache`")
        try:
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
            self._data = 8 + int(self._bytes[:8].view("<u8")[0])
            if self._data > len(self._bytes):
                raise refusal
            self._entries = json.loads(bytes(self._bytes[8 : self._data]))
            self.metadata = self._entries.pop("__metadata__", {})
        except (ValueError, IndexError, TypeError, AttributeError):  # too short, or without a header of JSON
            raise refusal from None
        if {"pooled", "layer_ids"} <= self._entries.keys():
            self.layers = self.stored("layer_ids").tolist()
            settings = self.metadata
        elif self.metadata.get("format") == "actbench.acts" and self.metadata.get("axes") == "blh":
            self.layers = json.loads(self.metadata["layer_ids"])
            settings = json.loads(self.metadata.get("settings", "{}"))
        else:
            raise refusal
        if "rows" not in self._entries:
            raise ValueError(f"{path}: written by an earlier version, without rows; make it again")
        # Files of earlier versions have some of them.
        self.settings = {key: settings[key] for key in _SETTINGS if key in settings}
        self.rows, self.labels = self.stored("rows"), self.stored("labels")
        self.is_train = self.stored("is_train").astype(bool)

    def stored(self, name):
        """A tensor with the type of the file; bfloat16, which numpy lacks, as uint16."""
        entry = self._entries[name]
        begin, end = (self._data + offset for offset in entry["data_offsets"])
        return self._bytes[begin:end].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])

    def _layer(self, layer):
        """The stored vectors of a layer, `[n, h]`, and their type."""
        if layer not in self.layers:
            raise ValueError(f"layer {layer} is not in the file; it has {self.layers}")
        if "pooled" in self._entries:
            return self.stored("pooled")[:, self.layers.index(layer)], "F32"
        return self.stored(f"layer.{layer}"), self._entries[f"layer.{layer}"]["dtype"]

    def numpy(self, layer):
        """A layer in float32, `[n, h]`. A bfloat16 is the upper half of a float32, so widening it is exact."""
        values, dtype = self._layer(layer)
        return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values.astype(np.float32)

    def tensor(self, layer):
        """A layer as a torch tensor of the type of the file, `[n, h]`."""
        import torch

        values, dtype = self._layer(layer)
        tensor = torch.from_numpy(values.copy())
        return tensor.view(torch.bfloat16) if dtype == "BF16" else tensor


load = ActbenchFile

if __name__ == "__main__":
    file = load(sys.argv[1])
    print(f"{len(file.rows)} samples, {file.is_train.sum()} for training; layers {file.layers}")
    entries = {**file.metadata, **file.settings}
    print("\n".join(f"{key}: {value}" for key, value in sorted(entries.items()) if len(value) < 200))
