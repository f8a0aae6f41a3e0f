"""Engines that are short enough to share a file: the linear probe trained by SGD and image k-NN."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from densescope.evaluation.probes.linear_sgd import ProbeSettings, fit_linear_sgd, sgd_result
from densescope.evaluation.probes.neighbors import NeighborIndex
from densescope.evaluation.probes.patch_head import measure_head
from densescope.evaluation.probes.row import EngineResult, ProbeTask, measured
from densescope.evaluation.probes.sources import patch_source
from densescope.evaluation.probes.splits import split_features


@dataclass(frozen=True)
class SGDSettings:
    """Numbers of :class:`~densescope.evaluation.probes.linear_sgd.ProbeSettings` but the seeds."""

    learning_rates: tuple[float, ...] = ProbeSettings.learning_rates
    held_out_fraction: float = ProbeSettings.held_out_fraction
    epochs: int = ProbeSettings.epochs
    batch_patches: int = ProbeSettings.batch_patches
    weight_decay: float = ProbeSettings.weight_decay


@dataclass(frozen=True)
class ImageKnnSettings:
    """Numbers of the image k-NN.

    Attributes:
        neighbors: k.
        temperature: a neighbor's vote is ``exp(cosine / temperature)``.
    """

    neighbors: int = 20
    temperature: float = 0.07


def linear_sgd(task: ProbeTask) -> EngineResult:
    """Engine of :func:`~densescope.evaluation.probes.linear_sgd.linear_sgd_probe` on the cache."""
    given: SGDSettings = task.row.settings
    settings = replace(ProbeSettings(seeds=task.seeds), **vars(given))
    train = split_features(task, "train")
    fit = fit_linear_sgd(
        train.patches[0],
        train.labels,
        classes=task.data.classes,
        grid=train.grid,
        ignore=task.data.ignore,
        settings=settings,
    )
    test = split_features(task, "test")
    source = patch_source(test.patches[0])
    found = [
        measure_head(head, source, test.labels, test.grid, task.data.ignore) for head in fit.heads
    ]
    result = sgd_result(found, fit)
    details: dict[str, Any] = {
        "learning_rate": result.learning_rate,
        "under_trained": result.under_trained,
        "held_out_miou": {
            f"{rate:.3g}": result.held_out_iou[rate] for rate in sorted(result.held_out_iou)
        },
    }
    if result.note:
        details["note"] = result.note
    return measured(found, details, fit.heads[0])


def image_knn(task: ProbeTask) -> EngineResult:
    """Engine: weighted k-NN on image vectors; nothing is left to chance."""
    settings: ImageKnnSettings = task.row.settings
    train, test = split_features(task, "train"), split_features(task, "test")
    keys, queries = train.image.whole(), test.image.whole()
    k = min(settings.neighbors, len(keys))
    near, numbers = NeighborIndex(keys, count=len(keys), distance="cosine").search(queries, k)
    votes = torch.zeros(len(near), task.data.classes, dtype=torch.float64)
    weight = (near.double() / settings.temperature).exp()
    votes.scatter_add_(1, train.labels[numbers], weight)
    right = votes.argmax(1).eq(test.labels).double()
    by_class = {
        name: float(right[test.labels == index].mean())
        for index, name in enumerate(task.data.part("test").classes)
    }
    details = {"neighbors": k, "class_accuracy": by_class}
    return EngineResult((float(right.mean()),) * len(task.seeds), details)
