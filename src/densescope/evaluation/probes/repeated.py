"""An engine run several times on other parts of the labels: cross-validation, and few labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.evaluation.blocks import drawn_images
from densescope.evaluation.datasets import SegmentationSet
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.probes.row import EngineResult, ProbeProtocol, ProbeTask, measured
from densescope.evaluation.probes.splits import SplitFeatures, split_features

SUBSETS = (0, 1, 2, 3, 4)
LEAST_LABELS = 2


def run_engine(task: ProbeTask) -> EngineResult:
    """The engine of a task: once, once a fold, or once for each subset of few labels.

    Raises:
        InputError: folds or few labels with a protocol that reads crops, or other labels than
            masks.
        DataError: as the engine.
    """
    if task.data.folds:
        return _by_folds(task)
    return _by_subsets(task) if task.data.labels else task.row.engine(task)


def default_seeds(row: ProbeProtocol, labels: int | None) -> tuple[int, ...]:
    """The row's seeds; those of the subsets where a row without chance is given few labels."""
    return row.seeds if labels is None or len(row.seeds) > 1 else SUBSETS


def _by_folds(task: ProbeTask) -> EngineResult:
    """Each image is read by a head that was fitted without its fold."""
    whole, everything = _whole(task, "cross-validation")
    folds = torch.tensor(task.data.folds)
    found: dict[str, Mapping[str, Any]] = {}
    values = []
    counts = [torch.zeros(0)] * len(task.seeds)
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        rows = {"train": (~own).nonzero().flatten(), "test": own.nonzero().flatten()}
        part = _part(task, {name: (whole, everything, at) for name, at in rows.items()})
        made = task.row.engine(part)
        for seed, one in enumerate(made.counts):
            if not len(counts[seed]):
                counts[seed] = one.counts.new_zeros(len(folds), *one.counts.shape[1:])
            counts[seed][own] = one.counts
        found[f"fold {fold}"] = made.details
        values.append(sum(made.values) / len(made.values))
    details = {"folds": len(values), "fold_miou": values, **_together(found)}
    return measured([PixelCounts(one) for one in counts], details)


def check_label_count(labels: int, images: int) -> None:
    """Refuse a number of training images that cannot be drawn.

    Raises:
        InputError: there are fewer, or too few are asked for.
    """
    if not LEAST_LABELS <= labels <= images:
        raise InputError(
            f"{labels} labelled training images cannot be drawn: there are {images}, and "
            f"{LEAST_LABELS} are the fewest, since some are held out to choose the penalty"
        )


def _by_subsets(task: ProbeTask) -> EngineResult:
    """A head for each seed, fitted on as many images as were asked for, drawn by that seed."""
    whole, everything = _whole(task, "a subset of the labels")
    labels, names = task.data.labels or 0, whole.names
    check_label_count(labels, len(names))
    test = split_features(task, "test")
    asked = task.data.part("test")
    found: dict[str, Mapping[str, Any]] = {}
    counts: list[PixelCounts] = []
    head: Any = None
    for seed in task.seeds:
        rows = torch.tensor(drawn_images(names, labels, seed))
        parts = {
            "train": (whole, everything, rows),
            "test": (asked, test, torch.arange(len(asked))),
        }
        made = task.row.engine(replace(_part(task, parts), seeds=(seed,)))
        counts += made.counts
        found[f"subset {seed}"] = made.details
        head = made.head if head is None else head
    details = {"labelled_images": labels, "subsets": list(task.seeds), **_together(found)}
    return measured(counts, details, head)


def _whole(task: ProbeTask, what: str) -> tuple[SegmentationSet, SplitFeatures]:
    if not task.row.cached or not isinstance(task.data.train, SegmentationSet):
        raise InputError(
            f"{what} needs masks and a protocol whose features are computed once, and "
            f"{task.row.name} is none: use linear"
        )
    return task.data.train, split_features(task, "train")


def _part(
    task: ProbeTask, parts: Mapping[str, tuple[SegmentationSet, SplitFeatures, Tensor]]
) -> ProbeTask:
    """The same task on some images, whose features are known."""
    sets = {name: images.subset(rows.tolist()) for name, (images, _, rows) in parts.items()}
    known = {name: features.some(rows) for name, (_, features, rows) in parts.items()}
    data = replace(task.data, folds=(), labels=None, train=sets["train"], test=sets["test"])
    return replace(task, data=data, known=known)


def _together(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Details of every run, and their notes in one."""
    keys = dict.fromkeys(key for details in found.values() for key in details)
    measures = ("class_iou", "pixel_accuracy", "note")
    made = {
        key: {name: details.get(key) for name, details in found.items()}
        for key in keys
        if key not in measures
    }
    notes = [f"{name}: {details['note']}" for name, details in found.items() if "note" in details]
    return {**made, "note": "; ".join(notes)} if notes else made
