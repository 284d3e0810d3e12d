#!/usr/bin/env python3
"""Checks the reader `actbench_files.py` with numpy, torch and scikit-learn: `check_files_python.py ACTBENCH DIRECTORY`.

ACTBENCH is the program, DIRECTORY is for its files. Needs: numpy, safetensors, scikit-learn; without torch, which is large, the
checks of tensors are skipped, and the last line says so. The data set has rows
whose label and length name the row, so that an error in the way from a sample back to its row is seen. A probe is trained
as README's example trains it, and the two probes of actbench's own run must have about its AUROC.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from actbench_files import load

try:
    import safetensors.torch
    import torch
except ImportError:
    torch = None

N_ROWS, LAYER = 200, 3
TORCH_TYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")


def write_rows(path):
    """Returns the labels. A row of label 1 has other words; the number of words is the row's number."""
    labels = np.random.default_rng(7).integers(0, 2, N_ROWS)
    words = ("no", "yes")
    with open(path, "w") as file:
        for row, label in enumerate(labels):
            text = " ".join([words[label]] * (1 + row))
            messages = [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": text}]
            file.write(json.dumps({"messages": messages, "label": int(label), "id": f"row {row}"}) + "\n")
    return labels


def actbench(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"{' '.join(map(str, arguments))}: {done.stderr}")


def auroc(x, file):
    """Of a probe that scikit-learn trains on standardized features, as actbench standardizes them."""
    train, y = file.is_train, file.labels
    mean, std = x[train].mean(0), x[train].std(0)
    x = (x - mean) / np.where(std > 0, std, 1)
    probe = LogisticRegression(C=1.0, max_iter=1000).fit(x[train], y[train])
    return roc_auc_score(y[~train], probe.decision_function(x[~train]))


def check_tensors(path, file, dtype):
    """The tensors of torch are the values of numpy, and those that safetensors' own reader finds."""
    tensor, values = file.tensor(LAYER), torch.from_numpy(file.numpy(LAYER))
    is_same = tensor.dtype == getattr(torch, TORCH_TYPES[dtype]) and torch.equal(tensor.float(), values)
    check(is_same, f"{dtype}: torch and numpy")
    other = safetensors.torch.load_file(path)
    check(torch.equal(other[f"layer.{LAYER}"], tensor), f"{dtype}: safetensors reads other values")
    check(torch.equal(other["rows"], torch.from_numpy(file.rows.copy())), f"{dtype}: safetensors reads other rows")


def check_refusals(directory):
    """A file of another kind is refused in one line that names it."""
    header = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    other = len(header).to_bytes(8, "little") + header + bytes(4)
    for name, content in (
        ("rows.jsonl", None),
        ("empty", b""),
        ("short", b"{}\n"),
        ("list", (2).to_bytes(8, "little") + b"[]"),
        ("other.safetensors", other),
    ):
        path = directory / name
        if content is not None:
            path.write_bytes(content)
        try:
            load(path)
            message = "accepted"
        except ValueError as error:
            message = str(error)
        check(message == f"{path}: not a file of `actbench features` or `actbench cache`", f"{name}: {message}")


def main():
    program, directory = sys.argv[1], Path(sys.argv[2])
    data = directory / "rows.jsonl"
    labels = write_rows(data)
    check_refusals(directory)
    for dtype in TORCH_TYPES:
        settings = ["--dataset", data, "--samples", 150, "--dtype", dtype]
        paths = {name: directory / f"{dtype}.{name}" for name in ("features", "cache")}
        for name, path in paths.items():
            actbench(program, name, *settings, "--layer", LAYER, "--out", path)
        features, cache = load(paths["features"]), load(paths["cache"])
        for name, file in (("features", features), ("cache", cache)):
            check(file.layers == [LAYER], f"{name}: layers {file.layers}")
            check("hidden_states[N + 1]" in file.metadata["layer_numbering"], f"{name}: layer numbering")
            check(file.rows.dtype == np.int64 and len(set(file.rows.tolist())) == 150, f"{name}: rows are not distinct")
            check((file.labels == labels[file.rows]).all(), f"{name}: labels are not those of the rows")
            check((file.labels != labels[np.roll(file.rows, 1)]).any(), f"{name}: labels would also fit other rows")
            own = [file.settings[key] for key in ("dataset", "mask", "samples", "seed")]
            check(own == [str(data), "assistant", "150", "0"], f"{name}: settings {file.settings}")
            check(file.is_train.sum() == 120, f"{name}: {file.is_train.sum()} of 150 samples for training")
        check((features.rows == cache.rows).all() and (features.is_train == cache.is_train).all(), "order of the samples")
        lengths = np.diff(features.stored("offsets"))
        for label in (0, 1):
            of_label = features.labels == label
            in_order = lengths[of_label][np.argsort(features.rows[of_label])]
            check((np.diff(in_order) > 0).all(), f"label {label}: the lengths are not those of the rows")

        x = cache.numpy(LAYER)
        check((x.view(np.uint32) == features.numpy(LAYER).view(np.uint32)).all(), f"{dtype}: cache and features differ")
        if torch:
            check_tensors(paths["cache"], cache, dtype)

        results = directory / f"{dtype}.json"
        flags = ["--tasks", "train", "--methods", "lazy", "--repetitions", 1, "--warmup", 0, "--quiet", "--output", results]
        actbench(program, "run", *settings, "--layer", LAYER, *flags)
        own = json.loads(results.read_text())["rows"][0]["metric_value"]
        peer = auroc(x, cache)
        check(abs(own - peer) < 0.02, f"{dtype}: AUROC {own} by actbench, {peer} by scikit-learn")
        # Shuffled labels must be noticed: otherwise the comparison above would accept any features.
        mixed = auroc(np.random.default_rng(0).permutation(x), cache)
        check(abs(own - mixed) > 0.1, f"{dtype}: AUROC {mixed} with vectors of other samples, which should be near 0.5")
        print(f"{dtype}: 150 samples lead back to their rows; AUROC {peer:.4f} by scikit-learn, {own:.4f} by actbench")
    print("torch reads the same values" if torch else "skipped: torch is not installed, so its tensors are not compared")


if __name__ == "__main__":
    main()
