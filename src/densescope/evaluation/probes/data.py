"""The two halves of a labelled data set: what a probe is fitted on, and what is reported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.evaluation.blocks import fold_of_images
from densescope.evaluation.datasets import (
    DepthSet,
    LabelledImages,
    SegmentationSet,
    decode_depths,
    decode_split,
    joined_splits,
    overlap,
)

Task = Literal["segmentation", "classification", "depth"]
LabelledSet = SegmentationSet | LabelledImages | DepthSet
PARTS = ("train", "test")
NAMED = 3
DECODED_BYTES = 1 << 30


@dataclass(frozen=True)
class ProbeData:
    """A data set as a probe sees it; made once, used for every checkpoint of a run.

    Attributes:
        name: row of ``DATASETS``, or what the user calls it.
        task: what its labels are.
        train: everything that is fitted or chosen is fitted and chosen here.
        test: read to measure, once.
        fingerprints: sha256 over names, images and labels, of ``"train"`` and ``"test"``.
        notes: what to know before believing a number.
        folds: of cross-validation, the fold of each image; ``train`` and ``test`` are then the
            same images, all of them. Empty without.
        labels: training images that are drawn as the labelled ones; all of them by default.
        decoded: photos and labels, kept from one checkpoint to the next.
    """

    name: str
    task: Task
    train: LabelledSet
    test: LabelledSet
    fingerprints: dict[str, str]
    notes: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    labels: int | None = None
    decoded: DecodedImages = field(
        default_factory=lambda: DecodedImages(), init=False, compare=False, repr=False
    )

    def part(self, name: str) -> Any:
        """``train`` or ``test``."""
        return self.train if name == "train" else self.test

    @property
    def variant(self) -> str:
        """What tells the records of these labels from those of the plain halves."""
        if self.folds:
            return f"-folds{max(self.folds) + 1}"
        return "" if self.labels is None else f"-labels{self.labels}"

    @property
    def classes(self) -> int:
        """How many classes there are; 0 for depth."""
        return len(getattr(self.train, "classes", ()))

    @property
    def ignore(self) -> int | None:
        """Label of pixels that count for nothing."""
        return getattr(self.train, "ignore_index", None)


def probe_data(name: str, train: LabelledSet, test: LabelledSet) -> ProbeData:
    """Check two halves against each other, and read every file once to identify them.

    Args:
        name: what records call the data set.
        train: as :func:`~densescope.evaluation.datasets.open_dataset`, ``open_labelled_images`` or
            ``open_depth`` opened it.
        test: of the same kind, with the same classes.

    Returns:
        The data with fingerprints; a test image whose file is also in the training set is named
        in its notes. Resized copies and neighboring video frames are not found.

    Raises:
        InputError: one half is pixels and the other is not.
        DataError: the classes differ, or a half is empty.
    """
    kinds = [task_of(half) for half in (train, test)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"training data is for {kinds[0]}, test data for {kinds[1]}: give one kind"
        )
    if not len(train) or not len(test):
        raise DataError(
            f"there are no {'test' if len(train) else 'training'} images: a probe needs both "
            "halves, so name a split or a folder that has labelled images"
        )
    if getattr(train, "classes", None) != getattr(test, "classes", None):
        raise DataError("training and test data have unlike classes: open both with the same list")
    notes = [note for note in (getattr(half, "note", None) for half in (train, test)) if note]
    shared = overlap(train, test)
    if shared:
        shown = ", ".join(shared[:NAMED]) + (", ..." if len(shared) > NAMED else "")
        notes.append(
            f"{len(shared)} of {len(test)} test images are also training images ({shown}): the "
            "probe has seen their labels"
        )
    prints = {"train": fingerprint_of(train), "test": fingerprint_of(test)}
    return ProbeData(name, kinds[0], train, test, prints, tuple(dict.fromkeys(notes)))


def cross_validated(name: str, splits: Sequence[SegmentationSet], folds: int) -> ProbeData:
    """All images of several splits, in folds that keep blocks whole.

    Args:
        name: what records call the data set.
        splits: of one data set, with the same classes.
        folds: how many, at least 2.

    Raises:
        InputError: fewer than two folds.
        DataError: fewer blocks than folds.
    """
    whole = joined_splits(splits)
    rule = fold_of_images(whole.blocks, folds)
    digest = whole.fingerprint()
    return ProbeData(
        name,
        "segmentation",
        whole,
        whole,
        {"train": digest, "test": digest},
        () if whole.note is None else (whole.note,),
        rule,
    )


def task_of(half: LabelledSet) -> Task:
    """What the labels of a set are."""
    if isinstance(half, SegmentationSet):
        return "segmentation"
    return "depth" if isinstance(half, DepthSet) else "classification"


def fingerprint_of(half: LabelledSet) -> str:
    """Sha256 over names, images and labels, in order."""
    if isinstance(half, SegmentationSet):
        return half.fingerprint()
    digest = hashlib.sha256()
    for index, name in enumerate(half.names):
        label = (
            half.pairs[index].mask.read_bytes() + repr(half.meters_per_unit).encode()
            if isinstance(half, DepthSet)
            else half.classes[half.labels[index]].encode()
        )
        for piece in (name.encode(), half.image_bytes(index), label):
            digest.update(len(piece).to_bytes(8, "big"))
            digest.update(piece)
    return digest.hexdigest()


class DecodedImages:
    """Photos and labels as they were decoded: kept for the next checkpoint where they fit."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = {}

    def pieces(
        self, half: LabelledSet, *, size: int, workers: int | None, **geometry: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Photos and labels of a half, ``size`` images at a time.

        Args:
            half: of the data whose images these are.
            size: of a piece.
            workers: threads that decode.
            geometry: as :func:`decode_part`.
        """
        key = (id(half), size, *sorted(geometry.items()))
        if key in self._kept:
            yield from self._kept[key]
            return
        made, total = [], 0
        for start in range(0, len(half), size):
            rows = range(start, min(start + size, len(half)))
            piece = decode_part(half, rows, workers=workers, **geometry)
            yield piece
            total += sum(tensor.nbytes for tensor in piece)
            if total <= DECODED_BYTES:
                made.append(piece)
        if total <= DECODED_BYTES:
            self._kept[key] = made


def decode_part(
    half: LabelledSet,
    rows: range,
    *,
    image_size: int,
    label_size: int,
    resize: str,
    workers: int | None,
) -> tuple[Tensor, Tensor]:
    """Photos and labels of some images: class ids, meters, or one class an image."""
    geometry: dict[str, Any] = {"image_size": image_size, "resize": resize, "workers": workers}
    if isinstance(half, SegmentationSet):
        return decode_split(half.subset(rows), label_size=label_size, **geometry)
    if isinstance(half, DepthSet):
        return decode_depths(half.subset(rows), label_size=label_size, **geometry)
    return _decode_labelled(half.subset(rows), image_size, workers)


def _decode_labelled(
    half: LabelledImages, image_size: int, workers: int | None
) -> tuple[Tensor, Tensor]:
    from densescope.features.images import ImageSubset, decode_subset

    subset = ImageSubset(half.source, half.names, 0, "")
    pixels = decode_subset(subset, image_size=image_size, workers=workers)
    return pixels, torch.tensor(half.labels, dtype=torch.int64)
