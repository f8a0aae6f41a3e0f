"""A linear map from patches to classes: its targets, what it draws, and how good that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.pixel_counts import ROWS, PixelCounts, count_pixels
from densescope.evaluation.probes.sources import COPIED, PatchSource, Standardization
from densescope.numerics.workers import map_pieces, slices

SCORES = 2**20  # that are brought to the size of the labels at once


@dataclass(frozen=True)
class PatchHead:
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
        return F.interpolate(maps, size, mode="bilinear", align_corners=False).max(1).indices


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
    for place in slices(len(labels), max(COPIED // labels.shape[1:].numel(), 1)):
        part = labels[place]
        kept = part.long() if ignore is None else part.long().masked_fill(part == ignore, classes)
        strange = part[(kept < 0) | (kept > (classes if ignore is not None else classes - 1))]
        if len(strange):
            raise DataError(f"label {int(strange[0])} is not one of {classes} classes")
        targets[place] = _fractions(kept, classes, grid)
    return targets


def _fractions(labels: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """``images patches classes`` of labels up to ``classes``, which stands for no class."""
    images, rows, columns = labels.shape
    if rows % grid[0] or columns % grid[1]:
        one_hot = F.one_hot(labels, classes + 1)[..., :classes].permute(0, 3, 1, 2)
        return F.adaptive_avg_pool2d(one_hot.float(), grid).flatten(2).transpose(1, 2)
    patch = (
        torch.arange(rows)[:, None] * grid[0] // rows * grid[1]
        + torch.arange(columns) * grid[1] // columns
    )
    bins = grid[0] * grid[1] * (classes + 1)
    places = (patch * (classes + 1) + labels).flatten(1).numpy()
    counts = np.stack([np.bincount(image, minlength=bins) for image in places])
    shares = torch.from_numpy(counts).view(images, -1, classes + 1)[..., :classes].float()
    return shares / (rows * columns / (grid[0] * grid[1]))


def measure_head(
    head: PatchHead,
    source: PatchSource,
    labels: Tensor,
    grid: tuple[int, int],
    ignore: int | None,
    images: Tensor | None = None,
) -> PixelCounts:
    """Counts of a head on every image, or those named."""
    classes = head.weight.shape[1]
    within = torch.arange(source.patches)
    size = (labels.shape[1], labels.shape[2])
    numbers = torch.arange(source.images) if images is None else images

    # Filled in place: results between large temporaries would keep their room from being reused.
    counts = torch.empty(len(numbers), len(ROWS), classes, dtype=torch.int64)

    def fill(place: slice) -> None:
        part = numbers[place]
        patches = source.take(part[:, None] * source.patches + within)
        maps = head.label_maps(patches, grid=grid, size=size)
        counts[place] = count_pixels(maps, labels[part], classes=classes, ignore=ignore).counts

    at_once = min(max(SCORES // (classes * size[0] * size[1]), 1), 32)
    like = torch.empty(1).expand(len(numbers), classes, *size)
    map_pieces(fill, slices(len(numbers), at_once), like)
    return PixelCounts(counts)
