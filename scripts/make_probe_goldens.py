#!/usr/bin/env python3
"""Writes the reference probes, deviations and areas that the Rust tests compare with.

Needs numpy, scikit-learn (the files are of version 1.9.1) and safetensors. Usage, from the repository's root:

    python scripts/make_probe_goldens.py

Features are made in f32, standardized in f64 (training mean, deviation with the divisor n - 1) and fitted in f64 until
the gradient is at rounding level, so that the file holds the minimum itself and not where some iteration stopped.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

DIRECTORY = Path(__file__).resolve().parent.parent / "harness" / "activations" / "tests" / "data" / "probe"
CS = [0.1, 1.0, 10.0]


def labels_of(rng, n, share, first):
    """n labels, about `share` of them 1, both classes present, the first one equal to `first`."""
    labels = np.zeros(n, dtype=np.uint8)
    labels[: max(1, round(n * share))] = 1
    rng.shuffle(labels)
    where = np.flatnonzero(labels == first)[0]
    labels[[0, where]] = labels[[where, 0]]
    return labels


def features_of(rng, labels, width, rank, signal):
    """Features like a residual stream's: a few strong shared directions, one of them carrying the label, a large
    mean, columns of very different scale."""
    n = len(labels)
    latent = rng.standard_normal((n, rank))
    latent[:, rank // 2] += signal * labels
    mixing = rng.standard_normal((rank, width)) / np.sqrt(1.0 + np.arange(rank))[:, None]
    noise = 0.3 * rng.standard_normal((n, width))
    scale = np.exp(rng.standard_normal(width))
    return ((latent @ mixing + noise) * scale + 3.0 * rng.standard_normal(width)).astype(np.float32)


# name: n_train, n_test, width, rank, signal, share of label 1, first label
CASES = {
    "more_samples": (120, 40, 8, 6, 1.0, 0.5, 0),
    "more_samples_first_one": (120, 40, 8, 6, 1.0, 0.5, 1),
    "more_features": (24, 30, 64, 12, 1.5, 0.5, 1),
    "correlated": (80, 40, 30, 3, 0.8, 0.5, 0),
    "mostly_ones": (90, 40, 12, 6, 1.0, 0.8, 0),
    "mostly_zeros": (90, 40, 12, 6, 1.0, 0.15, 1),
    "constant_column": (60, 30, 10, 5, 1.0, 0.4, 1),
    "separable": (40, 20, 20, 8, 6.0, 0.5, 0),
    "wide": (96, 48, 256, 24, 1.0, 0.5, 0),
}


def penalised_fit(features, labels, c):
    """Weights and bias at the minimum, by scikit-learn, with the remaining gradient checked."""
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=10_000)
    model.fit(features, labels)
    weights, bias = model.coef_[0], model.intercept_[0]
    n = len(labels)
    residual = 1.0 / (1.0 + np.exp(-(features @ weights + bias))) - labels
    gradient = np.append(features.T @ residual / n + weights / (c * n), residual.mean())
    assert np.linalg.norm(gradient) < 1e-10, np.linalg.norm(gradient)
    return weights, bias


def make_probes():
    tensors = {}
    for index, (name, (n_train, n_test, width, rank, signal, share, first)) in enumerate(CASES.items()):
        rng = np.random.default_rng(1000 + index)
        labels = np.concatenate([labels_of(rng, n_train, share, first), labels_of(rng, n_test, share, first)])
        raw = features_of(rng, labels, width, rank, signal)
        if name == "constant_column":
            # Constant in training only: its weight is zero, so the standardized test values have no effect.
            raw[:n_train, 3] = np.float32(0.1)
        train, test = raw[:n_train], raw[n_train:]
        mean = train.astype(np.float64).mean(axis=0)
        deviation = train.astype(np.float64).std(axis=0, ddof=1)
        if name == "constant_column":
            # numpy adds pairwise and may round; the mean of equal numbers is that number.
            mean[3], deviation[3] = np.float64(np.float32(0.1)), 1.0
        x_train, x_test = (train - mean) / deviation, (test - mean) / deviation
        y_train, y_test = labels[:n_train], labels[n_train:]
        weights, biases, objectives, decisions, areas = [], [], [], [], []
        for c in CS:
            w, b = penalised_fit(x_train, y_train, c)
            z = x_train @ w + b
            objective = np.mean(np.logaddexp(0.0, z) - y_train * z) + w @ w / (2 * c * n_train)
            decision = x_test @ w + b
            weights.append(w)
            biases.append(b)
            objectives.append(objective)
            decisions.append(decision)
            areas.append(roc_auc_score(y_test, decision))
        tensors |= {
            f"{name}.train": train,
            f"{name}.train_labels": y_train,
            f"{name}.test": test,
            f"{name}.test_labels": y_test,
            f"{name}.weights": np.array(weights),
            f"{name}.bias": np.array(biases),
            f"{name}.objective": np.array(objectives),
            f"{name}.decision": np.array(decisions),
            f"{name}.auroc": np.array(areas),
        }
    tensors["cs"] = np.array(CS)
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, DIRECTORY / "probes.safetensors")


def make_scales():
    """Columns from denormal to nearly infinite, and the scales of scikit-learn's StandardScaler with the divisor n - 1."""
    rng = np.random.default_rng(11)
    cases = []
    for n in [2, 12, 40]:
        noise = rng.standard_normal(n)
        columns = {
            "ones": np.ones(n),
            "zeros": np.zeros(n),
            "a tenth": np.full(n, 0.1),
            "largest": np.full(n, 3e38),
            "deviation 1e-8": 1e-8 * noise,
            "deviation 1e-12": 1e-12 * noise,
            "deviation 1e-30": 1e-30 * noise,
            "denormal": 1e-42 * noise,
            "deviation 1e30": 1e30 * noise,
            "large mean": 1e6 + noise,
            "small deviation, mean 1": 1.0 + 1e-6 * noise,
            "one step from 1": np.where(np.arange(n) == 1, np.nextafter(np.float32(1), np.float32(2)), 1.0),
            "one step from 1e30": np.where(np.arange(n) == 1, np.nextafter(np.float32(1e30), np.float32(2e30)), 1e30),
        }
        for name, values in columns.items():
            values = values.astype(np.float32)
            scaler = StandardScaler().fit(values.astype(np.float64)[:, None])
            # StandardScaler's scale of a constant column is 1.
            is_constant = scaler.scale_[0] == 1.0 and np.ptp(values) == 0
            scale = 1.0 if is_constant else float(scaler.scale_[0] * np.sqrt(n / (n - 1)))
            cases.append({"name": f"{name}, n {n}", "values": [float(value) for value in values], "scale": scale})
    (DIRECTORY / "scales.json").write_text(json.dumps(cases) + "\n")


def make_areas():
    rng = np.random.default_rng(7)
    cases = []
    for n, levels, share in [(2, 9, 0.5), (7, 3, 0.5), (50, 2, 0.3), (50, 1, 0.5), (200, 11, 0.1), (300, 0, 0.7)]:
        labels = labels_of(rng, n, share, int(rng.integers(2)))
        # levels 0: no ties at all.
        scores = rng.standard_normal(n) if levels == 0 else rng.integers(levels, size=n).astype(float) / 4
        scores = scores + 0.25 * labels
        area = roc_auc_score(labels, scores)
        cases.append({"scores": scores.tolist(), "labels": labels.tolist(), "auroc": float(area)})
    (DIRECTORY / "auroc.json").write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    make_probes()
    make_scales()
    make_areas()
    for path in sorted(DIRECTORY.iterdir()):
        print(path.name, path.stat().st_size, "bytes")
