"""Pixels per image and class, and the intersections over unions of a whole data set in them."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densescope.errors import DataError, InputError, RecordError

ROWS = ("both", "truth", "predicted")
PIECE = 10_000  # characters of base64 on a line of a record, which cuts longer texts off


@dataclass(frozen=True)
class PixelCounts:
    """The part of every image's confusion matrix that IoU and accuracy are made of.

    Attributes:
        counts: int64, ``images 3 classes``: pixels of the class in truth and prediction alike (the
            diagonal of the confusion matrix), in the truth, and in the prediction (its sums).
    """

    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def class_iou(self) -> Tensor:
        """Intersection over union per class over all images, float64 in [0, 1].

        ``iou_c = both_c / (truth_c + predicted_c - both_c)``. It is NaN where a class is absent:
        neither the truth nor the prediction has a pixel of it.
        """
        return iou_of(self.counts.sum(0).double())

    @property
    def mean_iou(self) -> float:
        """Mean of :attr:`class_iou` over the classes that occur; NaN when none does.

        Source: one confusion matrix over the data set, as in mmsegmentation and the DINOv3
            evaluation.
        Deviations: ``torchmetrics.segmentation.MeanIoU`` averages per image and gives other values.
        """
        return float(self.class_iou.nanmean())

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of the counted pixels whose class was predicted; NaN when none was counted."""
        both, truth, _ = self.counts.sum(0).sum(1).tolist()
        return both / truth if truth else float("nan")

    def to_json(self) -> dict[str, Any]:
        """A small document: the counts as compressed 32-bit integers in base64, piece by piece."""
        packed = zlib.compress(self.counts.numpy().astype("<i4").tobytes(), 9)
        text = base64.b64encode(packed).decode("ascii")
        images, _, classes = self.counts.shape
        return {
            "images": images,
            "classes": classes,
            "rows": list(ROWS),
            "zlib": [text[start : start + PIECE] for start in range(0, len(text), PIECE)],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PixelCounts:
        """The inverse of :meth:`to_json`.

        Raises:
            RecordError: the document is damaged.
        """
        try:
            shape = (int(document["images"]), len(ROWS), int(document["classes"]))
            expected = 4 * math.prod(shape)
            packed = base64.b64decode("".join(document["zlib"]))  # once it was one text
            reader = zlib.decompressobj()
            data = reader.decompress(packed, max(expected, 0) + 1)
            if not reader.eof:
                raise ValueError("cut off, or more than its sizes say")
            values = np.frombuffer(data, "<i4")
            return cls(torch.from_numpy(values.astype(np.int64).reshape(shape)))
        except (KeyError, TypeError, ValueError, OverflowError, zlib.error) as cause:
            raise RecordError(f"pixel counts of a probe are damaged: {cause!r}") from cause


def iou_of(totals: Tensor) -> Tensor:
    """Intersection over union of counts ``... 3 classes``; NaN for a class without pixels."""
    both, truth, predicted = totals.unbind(-2)
    return both / (truth + predicted - both)


def joined(parts: Sequence[PixelCounts]) -> PixelCounts:
    """The counts of all images, part by part."""
    return PixelCounts(torch.cat([part.counts for part in parts]))


def count_pixels(
    predicted: Tensor, truth: Tensor, *, classes: int, ignore: int | None = None
) -> PixelCounts:
    """Count the pixels of each image by true and predicted class.

    Args:
        predicted: integer classes, ``images ...``.
        truth: integer classes of the same shape.
        classes: how many classes there are.
        ignore: label of pixels to leave out, whatever is predicted there.

    Returns:
        The counts; join those of all batches before taking a mean.

    Raises:
        InputError: the shapes differ.
        DataError: a label is neither a class nor ``ignore``, or a prediction is no class.

    Example:
        >>> found = count_pixels(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]), classes=3)
        >>> found.class_iou
        tensor([0.5000, 0.5000,    nan], dtype=torch.float64)
        >>> found.mean_iou
        0.5
    """
    if predicted.shape != truth.shape:
        raise InputError(
            f"prediction {tuple(predicted.shape)} and truth {tuple(truth.shape)} differ in shape: "
            "resize the prediction to the size of the labels"
        )
    images = len(truth)
    found, true = (values.cpu().numpy().reshape(images, -1) for values in (predicted, truth))
    tables = [_table(*pair, classes, ignore) for pair in zip(found, true, strict=True)]
    matrix = torch.from_numpy(np.array(tables, np.int64).reshape(images, classes, classes))
    rows = (matrix.diagonal(dim1=1, dim2=2), matrix.sum(2), matrix.sum(1))
    return PixelCounts(torch.stack(rows, 1))


def _table(
    found: np.ndarray[Any, Any], true: np.ndarray[Any, Any], classes: int, ignore: int | None
) -> np.ndarray[Any, Any]:
    """How many pixels of one image have each pair of classes; one image's stay in the caches."""
    if ignore is not None:
        counted = true != ignore
        found, true = found[counted], true[counted]
    for name, values in (("label", true), ("prediction", found)):
        if len(values) and (values.min() < 0 or values.max() >= classes):
            strange = values[(values < 0) | (values >= classes)]
            raise DataError(
                f"{name} {strange[0]} is not one of {classes} classes: give the number of "
                "classes, or the label to ignore, that this data set has"
            )
    pairs = true.astype(np.intp)
    pairs *= classes
    pairs += found
    return np.bincount(pairs, minlength=classes * classes)
