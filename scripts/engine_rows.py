"""The rows of a features file as other engines take them: without unpooled ends, sorted by length, padded in batches.

A decoder is causal, so tokens after a row's last masked token change nothing and are left out, as actbench does it.
With prefix reuse, rows that have the same tokens before their first masked token share these tokens: they run once,
and the rows run from there on.
"""

import dataclasses

import numpy as np

# Rows that share a prefix with fewer others run whole: a batch of a few rows takes longer than the prefix saves.
MIN_SHARING_ROWS = 4


@dataclasses.dataclass
class Batch:
    """Right-padded rows: `rows` are their indices, `ids` int64 and `mask` float32 are `[rows, longest]`."""

    rows: list
    ids: np.ndarray
    mask: np.ndarray


class Rows:
    """The token ids and masks of all rows of a features file."""

    def __init__(self, features):
        masks = [features.row_mask(row) for row in range(len(features))]
        ends = [int(np.flatnonzero(mask)[-1]) + 1 if mask.any() else 0 for mask in masks]
        self.ids = [features.row(row)[:end].astype(np.int64) for row, end in enumerate(ends)]
        self.masks = [mask[:end].astype(np.float32) for mask, end in zip(masks, ends, strict=True)]
        self.counts = np.array([mask.sum() for mask in self.masks], np.float32)

    def __len__(self):
        return len(self.ids)

    def longest(self):
        """Tokens of the longest row."""
        return max(len(ids) for ids in self.ids)

    def plan(self, batch_size, share_prefix):
        """`[(prefix, batches)]`: the ids of a prefix, empty where rows run whole, and its batches, sorted by length.

        Rows without a masked token are in no batch: nothing of them is pooled.
        """
        groups = {}
        for row in np.argsort([len(ids) for ids in self.ids], kind="stable").tolist():
            if self.counts[row] > 0:
                first = int(np.argmax(self.masks[row] > 0)) if share_prefix else 0
                groups.setdefault(tuple(self.ids[row][:first].tolist()), []).append(row)
        whole = [row for prefix, rows in groups.items() if not _is_shared(prefix, rows) for row in rows]
        whole.sort(key=lambda row: len(self.ids[row]))
        shared = [(prefix, rows) for prefix, rows in groups.items() if _is_shared(prefix, rows)]
        return [
            (prefix, [self._batch(rows[at : at + batch_size], len(prefix)) for at in range(0, len(rows), batch_size)])
            for prefix, rows in [*shared, ((), whole)]
            if rows
        ]

    def _batch(self, rows, start):
        """The rows from token `start` on."""
        longest = max(len(self.ids[row]) for row in rows) - start
        ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.float32)
        for index, row in enumerate(rows):
            length = len(self.ids[row]) - start
            ids[index, :length], mask[index, :length] = self.ids[row][start:], self.masks[row][start:]
        return Batch(rows, ids, mask)

    def means(self, sums):
        """Pooled features `[n, h]` float32 of the sums over masked tokens; zeros for a row without any."""
        return sums / np.maximum(self.counts, 1.0)[:, None]


def _is_shared(prefix, rows):
    return len(prefix) > 0 and len(rows) >= MIN_SHARING_ROWS
