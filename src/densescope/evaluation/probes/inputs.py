"""Labels and features from which no probe can learn are refused before one is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densescope.errors import NOT_FINITE, DataError, InputError
from densescope.evaluation.datasets import SegmentationSet

AT_ONCE = 64
_NOTHING = (
    "no pixel of the {part} masks has a class (label to ignore: {ignore}): give images whose masks "
    "show at least two of the classes"
)


def check_probe_features(
    features: Tensor, labels: Tensor, *, grid: tuple[int, int], classes: int, part: str
) -> None:
    """Refuse features and labels in memory that do not fit each other.

    Args:
        features: ``images patches dim``.
        labels: ``images rows columns``.
        grid: rows and columns of patches.
        classes: how many there are.
        part: ``"training"`` or ``"test"``.

    Raises:
        InputError: shapes do not fit each other, or fewer than two classes.
        DataError: there are no images, or a feature is NaN or infinite.
    """
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
        DataError: no pixel counts; in training masks also a single class, or more classes than
            patches.
    """
    seen = torch.zeros(max(len(classes), 256), dtype=torch.int64)
    for some in torch.split(labels, AT_ONCE):
        seen += torch.bincount(some.flatten().long(), minlength=len(seen))[: len(seen)]
    if ignore is not None:
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
