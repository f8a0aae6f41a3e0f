"""Features and labels of one half of a data set, from the cache or computed into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from densescope.evaluation.cache import ArrayWriter, StoredArray
from densescope.evaluation.probes.inputs import check_probe_labels
from densescope.evaluation.probes.row import ProbeTask
from densescope.features.extraction import extract

LABEL_TYPES = {"segmentation": "uint8", "depth": "float32", "classification": "int64"}
FORMAT = 1


@dataclass(frozen=True)
class SplitFeatures:
    """One half of a data set as a backbone sees it.

    Attributes:
        layers: the layers.
        patches: per layer ``images rows columns dim``.
        image: ``images dim``.
        labels: ``images rows columns`` class ids or meters, or ``images`` class ids.
    """

    layers: tuple[int, ...]
    patches: tuple[StoredArray, ...]
    image: StoredArray
    labels: Tensor

    def some(self, images: Tensor) -> SplitFeatures:
        """Some of the images, in memory."""
        patches = tuple(layer.some(images) for layer in self.patches)
        return replace(
            self, patches=patches, image=self.image.some(images), labels=self.labels[images]
        )

    def of(self, layers: Sequence[int]) -> SplitFeatures:
        """The same with some of the layers."""
        patches = tuple(self.patches[self.layers.index(layer)] for layer in layers)
        return replace(self, layers=tuple(layers), patches=patches)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of the last layer."""
        return self.patches[-1].shape[1], self.patches[-1].shape[2]


def split_features(task: ProbeTask, part: str) -> SplitFeatures:
    """Features and labels of ``"train"`` or ``"test"``; every image is decoded at most once.

    Raises:
        DataError: masks from which classes cannot be told.
    """
    if part in task.known:
        known: SplitFeatures = task.known[part]
        return known.of(task.row.layers)
    keys = _keys(task, part)
    stored = {name: task.cache.find(key) for name, key in keys.items()}
    missing = [name for name, array in stored.items() if array is None]
    if missing:
        stored = {**stored, **_compute(task, part, {name: keys[name] for name in missing})}
    arrays = {name: array for name, array in stored.items() if array is not None}
    patches = tuple(arrays[f"layer {layer}"] for layer in task.row.layers)
    found = SplitFeatures(task.row.layers, patches, arrays["image"], arrays["labels"].whole())
    if task.data.task == "segmentation":
        check_probe_labels(
            found.labels,
            classes=task.data.part(part).classes,
            patches=found.grid[0] * found.grid[1],
            ignore=task.data.ignore,
            part="training" if part == "train" else "test",
        )
    return found


def _keys(task: ProbeTask, part: str) -> dict[str, dict[str, Any]]:
    row = task.row
    seen = {
        "format": FORMAT,
        "data": task.data.fingerprints[part],
        "resize": row.resize,
        "task": task.data.task,
    }
    model = {
        **seen,
        "image_size": row.image_size,
        "precision": task.precision,
        "backbone": dict(task.identity),
    }
    layers = {
        f"layer {layer}": {**model, "array": "patches", "layer": layer} for layer in row.layers
    }
    labels = {**seen, "array": "labels", "label_size": row.label_size or row.image_size}
    return {**layers, "image": {**model, "array": "image"}, "labels": labels}


def _compute(
    task: ProbeTask, part: str, keys: Mapping[str, Mapping[str, Any]]
) -> dict[str, StoredArray]:
    images = len(task.data.part(part))
    writers: dict[str, ArrayWriter] = {}
    with ExitStack() as stack:
        for pieces in _pieces(task, part, features=set(keys) != {"labels"}):
            for name in keys:
                piece = pieces[name]
                if name not in writers:
                    kind = LABEL_TYPES[task.data.task] if name == "labels" else "features"
                    shape = (images, *piece.shape[1:])
                    writing = task.cache.writing(keys[name], shape, dtype=kind)
                    writers[name] = stack.enter_context(writing)
                writers[name].append(piece)
    return {name: writer.finished() for name, writer in writers.items()}


def _pieces(task: ProbeTask, part: str, *, features: bool) -> Iterator[dict[str, Tensor]]:
    row, half = task.row, task.data.part(part)
    for pixels, labels in task.data.decoded.pieces(
        half,
        size=task.piece,
        workers=task.workers,
        image_size=row.image_size,
        label_size=row.label_size or row.image_size,
        resize=row.resize,
    ):
        pieces = {"labels": labels}
        if features:
            extracted = extract(
                task.backbone,
                pixels,
                layers=row.layers,
                batch_size=task.batching,
                device=task.device,
                precision=task.precision,
            )
            pieces["image"] = extracted.image
            for layer, values, grid in zip(
                row.layers, extracted.patches, extracted.grids, strict=True
            ):
                pieces[f"layer {layer}"] = values.unflatten(1, grid)  # type: ignore[no-untyped-call]
        yield pieces


def held_out(images: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the images kept and of those held out of the training half."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    count = min(max(round(fraction * images), 1), images - 1)
    return order[count:].sort().values, order[:count].sort().values
