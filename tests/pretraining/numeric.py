"""Losses once more, in NumPy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def array(values: Tensor) -> Any:
    return values.detach().double().numpy()


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def log_softmax(scores: Any) -> Any:
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def info_nce(queries: Any, keys: Any, negatives: Any, temperature: float) -> float:
    right = (queries * keys).sum(1, keepdims=True)
    scores = np.concatenate([right, queries @ negatives], axis=1) / temperature
    return float(-log_softmax(scores)[:, 0].mean())


def vicreg(first: Any, second: Any, *, covariance: float = 1.0) -> float:
    """Of images, or of each place on its own and then the mean over places."""
    if first.ndim == 2:
        first, second = first[:, None], second[:, None]
    places, width = first.shape[1:]
    spread, shared = 0.0, 0.0
    for view in (first, second):
        spread += np.maximum(0, 1 - np.sqrt(view.var(0, ddof=1) + 1e-4)).mean() / 2
        for place in range(places):
            table = np.cov(view[:, place].T)
            shared += (table**2).sum() - (np.diag(table) ** 2).sum()
    invariance = ((first - second) ** 2).mean()
    return float(25 * invariance + 25 * spread + covariance * shared / width / places)


def sinkhorn(scores: Any, sharpness: float, iterations: int) -> Any:
    """Rows are images, columns what they are shared out among."""
    table = np.exp(scores / sharpness)
    for _ in range(iterations):
        table = table / table.sum(0, keepdims=True) / table.shape[1]
        table = table / table.sum(1, keepdims=True) / table.shape[0]
    return table * table.shape[0]
