"""One confusion matrix over a data set, and the intersections over unions in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import DataError, InputError


@dataclass(frozen=True)
class Confusion:
    """Counts of pixels by true and predicted class; matrices of parts of a data set add up.

    Attributes:
        counts: int64, ``classes classes``; rows are the truth, columns the prediction.
    """

    counts: Tensor

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts)

    @property
    def class_iou(self) -> Tensor:
        """Intersection over union per class, float64 in [0, 1]; NaN where a class is absent.

        ``iou_c = M_cc / (sum_j M_cj + sum_i M_ic - M_cc)``. A class is absent when neither the
        truth nor the prediction has a pixel of it.
        """
        counts = self.counts.double()
        hits = counts.diagonal()
        return hits / (counts.sum(0) + counts.sum(1) - hits)

    @property
    def mean_iou(self) -> float:
        """Mean of :attr:`class_iou` over the classes that occur; NaN when none does.

        Source: convention of mmsegmentation and the DINOv3 evaluation.
        Deviations: ``torchmetrics.segmentation.MeanIoU`` averages per image and gives other values.
        """
        return float(self.class_iou.nanmean())

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of the counted pixels whose class was predicted; NaN when none was counted."""
        return float(self.counts.diagonal().sum() / self.counts.sum())


def confusion(
    predicted: Tensor, truth: Tensor, *, classes: int, ignore: int | None = None
) -> Confusion:
    """Count pixels by true and predicted class.

    Args:
        predicted: integer classes, any shape.
        truth: integer classes of the same shape.
        classes: how many classes there are.
        ignore: label of pixels to leave out, whatever is predicted there.

    Returns:
        The matrix, on the device of the inputs; add those of all batches before taking a mean.

    Raises:
        InputError: the shapes differ.
        DataError: a label is neither a class nor ``ignore``, or a prediction is no class.

    Example:
        >>> found = confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), classes=3)
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
    predicted, truth = predicted.flatten().long(), truth.flatten().long()
    if ignore is not None:
        counted = truth != ignore
        predicted, truth = predicted[counted], truth[counted]
    for name, values in (("label", truth), ("prediction", predicted)):
        strange = values[(values < 0) | (values >= classes)]
        if len(strange):
            raise DataError(
                f"{name} {int(strange[0])} is not one of {classes} classes: give the number of "
                "classes, or the label to ignore, that this data set has"
            )
    counts = torch.bincount(truth * classes + predicted, minlength=classes * classes)
    return Confusion(counts.view(classes, classes))
