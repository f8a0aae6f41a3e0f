"""A linear map from patches to classes: its targets, what it draws, and how good that is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.confusion import Confusion, confusion
from densescope.evaluation.probes.sources import PatchSource, Standardization


@dataclass(frozen=True)
class QuickHead:
    """A linear map from standardized patches to classes.

    Attributes:
        weight: ``dim+1 classes``; the last row is the bias.
        standardize: what features go through first.
    """

    weight: Tensor
    standardize: Standardization

    def logits(self, patches: Tensor) -> Tensor:
        """Scores of every class, ``images patches classes``."""
        return self.standardize(patches) @ self.weight[:-1] + self.weight[-1]

    def label_maps(
        self, patches: Tensor, *, grid: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """Predicted class of every pixel.

        Args:
            patches: ``images patches dim``, patches row by row.
            grid: their rows and columns.
            size: rows and columns of pixels; scores are brought to it bilinearly.

        Returns:
            ``images rows columns``, int64.
        """
        maps = self.logits(patches).transpose(1, 2).unflatten(2, grid)  # type: ignore[no-untyped-call]
        return F.interpolate(maps, size, mode="bilinear", align_corners=False).argmax(1)


def patch_targets(
    labels: Tensor, *, classes: int, grid: tuple[int, int], ignore: int | None = None
) -> Tensor:
    """Fraction of the pixels of each patch that each class has.

    Args:
        labels: ``images rows columns``, integers.
        classes: number of classes.
        grid: rows and columns of patches; where they do not divide the labels, neighboring
            patches share pixels.
        ignore: label left out; the fractions of a patch then sum to less than 1.

    Returns:
        ``images patches classes``, float32.

    Raises:
        DataError: a label is neither a class nor ``ignore``.
    """
    targets = torch.empty(len(labels), grid[0] * grid[1], classes)
    rows = torch.arange(classes)
    for index in range(0, len(labels), 64):
        part = labels[index : index + 64].long()
        counted = part != ignore if ignore is not None else torch.ones_like(part, dtype=torch.bool)
        strange = part[counted & ((part < 0) | (part >= classes))]
        if len(strange):
            raise DataError(f"label {int(strange[0])} is not one of {classes} classes")
        one_hot = (part[:, None] == rows[:, None, None]) & counted[:, None]
        fractions = F.adaptive_avg_pool2d(one_hot.float(), grid)
        targets[index : index + 64] = fractions.flatten(2).transpose(1, 2)
    return targets


def measure_head(
    head: QuickHead,
    source: PatchSource,
    labels: Tensor,
    grid: tuple[int, int],
    ignore: int | None,
    images: Tensor | None = None,
) -> Confusion:
    """One confusion matrix of a head over all images, or those named."""
    classes = head.weight.shape[1]
    total = Confusion(torch.zeros(classes, classes, dtype=torch.int64))
    within = torch.arange(source.patches)
    for part in torch.split(torch.arange(source.images) if images is None else images, 64):
        patches = source.take(part[:, None] * source.patches + within)
        truth = labels[part]
        size = (truth.shape[1], truth.shape[2])
        maps = head.label_maps(patches, grid=grid, size=size)
        total += confusion(maps, truth, classes=classes, ignore=ignore)
    return total
