"""Labels and features from which no probe can learn are refused before one is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densescope.errors import NOT_FINITE, DataError, InputError
from densescope.evaluation.datasets import SegmentationSet

AT_ONCE = 64
LEAST_IMAGES = 2
_NOTHING = (
    "no pixel of the {part} masks has a class (label to ignore: {ignore}): give images whose masks "
    "show at least two of the classes"
)


def check_probe_tensors(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    grid: tuple[int, int],
    classes: Sequence[str],
    ignore: int | None,
) -> None:
    """Refuse features and labels in memory from which no probe can be fitted and measured.

    Args:
        train: features, ``images patches dim``, and labels, ``images rows columns``.
        test: likewise.
        grid: rows and columns of patches.
        classes: their names.
        ignore: label of pixels that count for nothing.

    Raises:
        InputError: shapes or types do not fit each other, or fewer than two classes.
        DataError: too few images, a feature that is NaN or infinite, or labels from which classes
            cannot be told.
    """
    if train[0].ndim == test[0].ndim == 3 and train[0].shape[2] != test[0].shape[2]:
        raise InputError(
            f"training features have {train[0].shape[2]} dimensions and test features "
            f"{test[0].shape[2]}: give features of one checkpoint"
        )
    halves = (("training", train), ("test", test))
    for part, (features, labels) in halves:
        _check_shapes(features, labels, grid=grid, classes=len(classes), part=part)
    check_image_count(len(train[0]))
    for part, (features, labels) in halves:
        patches = features.shape[1]
        check_probe_labels(labels, classes=classes, patches=patches, ignore=ignore, part=part)


def check_image_count(images: int) -> None:
    """Refuse a single training image.

    Raises:
        DataError: there is one only.
    """
    if images < LEAST_IMAGES:
        raise DataError(
            f"there is {images} training image: {LEAST_IMAGES} are the fewest, since some are "
            "held out to choose what the protocol does not fix"
        )


def _check_shapes(
    features: Tensor, labels: Tensor, *, grid: tuple[int, int], classes: int, part: str
) -> None:
    if features.ndim != 3 or features.shape[1] != grid[0] * grid[1]:
        raise InputError(
            f"{part} features have shape {tuple(features.shape)}: expected images x patches x dim "
            f"with {grid[0]} x {grid[1]} patches"
        )
    if labels.ndim != 3 or len(labels) != len(features) or classes < 2:
        raise InputError(
            f"{part} labels have shape {tuple(labels.shape)} for {len(features)} images and "
            f"{classes} classes: expected images x rows x columns, and at least 2 classes"
        )
    if not len(features):
        raise DataError(f"there are no {part} images: a probe needs at least one")
    if not features.is_floating_point():
        raise InputError(f"{part} features are {features.dtype}: give floating-point numbers")
    for start in range(0, len(features), AT_ONCE):
        finite = features[start : start + AT_ONCE].isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            first = start + int((~finite).nonzero()[0])
            raise DataError(
                f"the patch features of {part} image {first} are {NOT_FINITE}: this checkpoint has "
                "diverged, probe an earlier one"
            )


def check_probe_labels(
    labels: Tensor, *, classes: Sequence[str], patches: int, ignore: int | None, part: str
) -> None:
    """Refuse masks from which classes cannot be told, or on which nothing can be measured.

    Args:
        labels: ``images rows columns``, class ids.
        classes: their names.
        patches: of an image.
        ignore: label of pixels that count for nothing.
        part: ``"training"`` or ``"test"``.

    Raises:
        DataError: a label is neither a class nor ``ignore``, or no pixel counts; in training masks
            also a single class, or more classes than patches.
    """
    seen = torch.zeros(max(len(classes), 256), dtype=torch.int64)
    for some in torch.split(labels, AT_ONCE):
        flat = some.flatten().long()
        if ignore is not None and ignore < 0:
            flat = flat[flat != ignore]
        if len(flat) and int(flat.min()) < 0:
            raise DataError(f"label {int(flat.min())} is not one of {len(classes)} classes")
        seen += torch.bincount(flat, minlength=len(seen))[: len(seen)]
    if ignore is not None and ignore >= 0:
        seen[ignore] = 0
    present = [name for name, count in zip(classes, seen.tolist(), strict=False) if count]
    if not present:
        raise DataError(_NOTHING.format(part=part, ignore=ignore))
    if part == "training":
        check_classes(present, len(labels) * patches)


def check_masks(half: SegmentationSet) -> None:
    """Refuse training masks that show a single class; they are read until a second one is seen.

    Raises:
        DataError: as :func:`check_probe_labels`.
    """
    seen: set[int] = set()
    for index in range(len(half)):
        seen |= set(
            torch.bincount(half.mask(index).flatten().long()).nonzero().flatten().tolist()
        ) - {half.ignore_index}
        if len(seen) > 1:
            return
    if not seen:
        raise DataError(_NOTHING.format(part="training", ignore=half.ignore_index))
    check_classes([half.classes[row] for row in seen if row < len(half.classes)], 1)


def check_classes(present: Sequence[str], patches: int) -> None:
    """Refuse a single class, and more classes than labelled patches.

    Raises:
        DataError: either.
    """
    if len(present) == 1:
        raise DataError(
            f"every training label that counts is of one class, {present[0]}: a probe tells "
            "classes apart, so give training images with at least two"
        )
    if patches < len(present):
        raise DataError(
            f"{len(present)} classes cannot be told apart from {patches} labelled training "
            "patches: give more labelled images, larger ones, or fewer classes"
        )
