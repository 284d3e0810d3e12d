"""The file of `actbench features`, checked completely: the samples of a run and their pooled activations.

To read such a file for other purposes, use actbench_files.py. With this module a peer runs exactly the same work: same samples in the same order, same token ids, same mask, same split.
Nothing is derived a second time.

Format: safetensors. n rows (samples), l layers, h hidden size, T tokens in all rows together.

    tokens     int32   [T]        token ids of row 0, then of row 1, ...; no padding
    offsets    int64   [n + 1]    row i is tokens[offsets[i]:offsets[i + 1]]; starts with 0, ends with T, every row has
                                  at least one token
    mask       uint8   [T]        1 where the token is pooled, else 0
    rows       int64   [n]        index of the row in the data set as read, from 0, before it is shuffled; distinct
    labels     uint8   [n]        0 or 1
    is_train   uint8   [n]        1 for the training split, 0 for the test split
    layer_ids  int32   [l]        increasing; layer i is the output of decoder block i, counted from 0
    pooled     float32 [n, l, h]  features, widened from the run type; a row without masked tokens is all zeros

Header metadata (all values are strings, as safetensors wants them):

    format     actbench.features
    model      the value of --model
    pool       mean, max, last or sum
    dtype      bf16, fp16 or fp32: the type that the model ran in
    extract_s  seconds from token ids in memory to pooled features in memory, without loading the model and without
               tokenizing; decimal
    layer_numbering  what a layer number counts, in a sentence

Layers: with `--layer N` layer N alone, otherwise layers 0 to `--sweep-layers` - 1, so that `extract_s` is the time of
the extraction of that task.
"""

import dataclasses

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

POOLS = ("mean", "max", "last", "sum")
DTYPES = ("bf16", "fp16", "fp32")
_TYPES = {
    "tokens": np.int32,
    "offsets": np.int64,
    "mask": np.uint8,
    "rows": np.int64,
    "labels": np.uint8,
    "is_train": np.uint8,
    "layer_ids": np.int32,
    "pooled": np.float32,
}


class FeaturesError(Exception):
    """The file violates the format above. The message starts with its path."""


@dataclasses.dataclass
class Features:
    """The file's contents, checked; names and shapes as in the module's text."""

    tokens: np.ndarray
    offsets: np.ndarray
    mask: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    is_train: np.ndarray
    layer_ids: np.ndarray
    pooled: np.ndarray
    model: str
    pool: str
    dtype: str
    extract_s: float

    def row(self, index):
        """Token ids of one row."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def row_mask(self, index):
        """Mask of one row."""
        return self.mask[self.offsets[index] : self.offsets[index + 1]]

    def __len__(self):
        return len(self.labels)

    def layers(self, layer_ids):
        """Features of these layers, `[n, len(layer_ids), h]`; all must be in the file."""
        positions = [int(np.flatnonzero(self.layer_ids == layer)[0]) for layer in layer_ids]
        return self.pooled[:, positions]

    def save(self, path):
        """Writes the file; for tests, the real ones come from `actbench features`."""
        tensors = {name: np.ascontiguousarray(getattr(self, name), dtype=dtype) for name, dtype in _TYPES.items()}
        metadata = {"model": self.model, "pool": self.pool, "dtype": self.dtype, "extract_s": str(self.extract_s)}
        save_file(tensors, path, metadata=metadata)


def load_features(path):
    """Reads and checks a file; raises `FeaturesError` with the first violation."""

    def require(condition, what):
        if not condition:
            raise FeaturesError(f"{path}: {what}; make it again with `actbench features`")

    tensors = {}
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
            for name, dtype in _TYPES.items():
                require(name in names, f"there is no tensor `{name}`")
                tensors[name] = file.get_tensor(name)
                require(tensors[name].dtype == dtype, f"`{name}` is {tensors[name].dtype}, not {np.dtype(dtype)}")
    except FileNotFoundError:
        raise FeaturesError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise FeaturesError(f"{path}: not a readable safetensors file ({error})") from None

    for name, tensor in tensors.items():
        axes = 3 if name == "pooled" else 1
        require(tensor.ndim == axes, f"`{name}` has {tensor.ndim} axes, not {axes}")
    offsets, n_tokens = tensors["offsets"], len(tensors["tokens"])
    n_rows = len(offsets) - 1
    require(n_rows >= 1, "there are no rows")
    require(offsets[0] == 0 and offsets[-1] == n_tokens, f"`offsets` do not span the {n_tokens} tokens")
    require((np.diff(offsets) >= 1).all(), "`offsets` do not increase: a row has no token")
    require((tensors["tokens"] >= 0).all(), "a token id is negative")
    require(len(tensors["mask"]) == n_tokens, f"`mask` has {len(tensors['mask'])} entries for {n_tokens} tokens")
    for name in ("rows", "labels", "is_train"):
        require(len(tensors[name]) == n_rows, f"`{name}` has {len(tensors[name])} entries for {n_rows} rows")
    for name in ("mask", "labels", "is_train"):
        require(np.isin(tensors[name], (0, 1)).all(), f"`{name}` holds something other than 0 and 1")
    require(len(np.unique(tensors["rows"])) == n_rows and tensors["rows"].min() >= 0, "`rows` are not distinct indices")
    layer_ids, shape = tensors["layer_ids"], tensors["pooled"].shape
    require(
        len(layer_ids) >= 1 and layer_ids[0] >= 0 and (np.diff(layer_ids) >= 1).all(), "`layer_ids` do not increase"
    )
    require(shape[:2] == (n_rows, len(layer_ids)), f"`pooled` is {shape} for {n_rows} rows and {len(layer_ids)} layers")

    for name in ("model", "pool", "dtype", "extract_s"):
        require(name in metadata, f"the header lacks `{name}`")
    require(metadata["pool"] in POOLS, f"unknown pool `{metadata['pool']}`")
    require(metadata["dtype"] in DTYPES, f"unknown dtype `{metadata['dtype']}`")
    try:
        extract_s = float(metadata["extract_s"])
    except ValueError:
        extract_s = float("nan")
    require(0 <= extract_s < float("inf"), f"`extract_s` is `{metadata['extract_s']}`, not seconds")
    return Features(
        **tensors, model=metadata["model"], pool=metadata["pool"], dtype=metadata["dtype"], extract_s=extract_s
    )
