"""Trained heads read the test half: in windows at an image's own size, or whole."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import InputError
from densescope.evaluation.datasets import SegmentationSet
from densescope.evaluation.pixel_counts import PixelCounts, count_pixels, joined
from densescope.evaluation.probes.augment import short_side_size
from densescope.evaluation.probes.data import decode_part
from densescope.evaluation.probes.heads import LinearHead
from densescope.evaluation.probes.row import ProbeTask
from densescope.features.extraction import extract

Grids = list[Tensor]


def windows(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that they cover a side; the last one ends where the side ends.

    Example:
        >>> windows(683, 512, 341)
        [0, 171]
        >>> windows(512, 512, 341)
        [0]
    """
    count = max(-(-(length - window) // stride), 0) + 1
    return [max(min(index * stride, length - window), 0) for index in range(count)]


def grids_of(task: ProbeTask, pixels: Tensor) -> Grids:
    """Features of a batch of photos, one grid ``images dim rows columns`` per layer of the row."""
    extracted = extract(
        task.backbone,
        pixels,
        layers=task.row.layers,
        batch_size=task.batching,
        device=task.device,
        precision=task.precision,
    )
    return [
        values.transpose(1, 2).unflatten(2, grid)  # type: ignore[no-untyped-call]
        for values, grid in zip(extracted.patches, extracted.grids, strict=True)
    ]


@torch.no_grad()
def read_in_windows(
    task: ProbeTask, heads: list[LinearHead], half: SegmentationSet
) -> list[PixelCounts]:
    """Windows over the image at its own aspect ratio; scores are compared with the stored mask."""
    from PIL import Image

    size = task.row.image_size
    stride = task.row.settings.stride
    if stride is None or not 1 <= stride <= size:
        raise InputError(f"windows of {size} pixels cannot be {stride} pixels apart: 1 to {size}")
    parts: list[list[PixelCounts]] = [[] for _ in heads]
    for index in range(len(half)):
        photo, mask = half.photo_and_mask(index)
        columns, rows = short_side_size(photo.size, size, task.row.settings.augmentation.long_side)
        columns, rows = max(columns, size), max(rows, size)
        resized = photo.resize((columns, rows), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        places = [
            (y, x) for y in windows(rows, size, stride) for x in windows(columns, size, stride)
        ]
        cuts = torch.stack([pixels[:, y : y + size, x : x + size] for y, x in places])
        grids = grids_of(task, cuts)
        truth = torch.from_numpy(np.array(mask))
        for own, head in zip(parts, heads, strict=True):
            scores = assembled(head, grids, places, (rows, columns), size)
            found = F.interpolate(scores, tuple(truth.shape), mode="bilinear", align_corners=False)
            own.append(_compared(task, found.argmax(1), truth[None]))
    return [joined(own) for own in parts]


def assembled(
    head: LinearHead, grids: Grids, places: list[tuple[int, int]], shape: tuple[int, int], size: int
) -> Tensor:
    """Mean score of all windows over a pixel, ``1 classes rows columns``."""
    total = torch.zeros(1, len(head.bias), *shape, device=head.bias.device)
    times = torch.zeros(1, 1, *shape, device=head.bias.device)
    for number, (y, x) in enumerate(places):
        scores = head([grid[number : number + 1].to(head.bias.device) for grid in grids])
        scores = F.interpolate(scores, (size, size), mode="bilinear", align_corners=False)
        total[:, :, y : y + size, x : x + size] += scores
        times[:, :, y : y + size, x : x + size] += 1
    return total / times


def read_whole(
    task: ProbeTask, heads: list[LinearHead], half: SegmentationSet
) -> list[PixelCounts]:
    """Every image in one square, compared at the row's label size."""
    row = task.row
    batches = []
    for start in range(0, len(half), task.piece):
        pixels, truth = decode_part(
            half,
            range(start, min(start + task.piece, len(half))),
            image_size=row.image_size,
            label_size=row.label_size or row.image_size,
            resize=row.resize,
            workers=task.workers,
        )
        batches.append(predictions(task, heads, grids_of(task, pixels), truth))
    return [joined(parts) for parts in zip(*batches, strict=True)]


@torch.no_grad()
def predictions(
    task: ProbeTask, heads: list[LinearHead], grids: Grids, truth: Tensor
) -> list[PixelCounts]:
    """Counts of every head on one batch of whole images."""
    size = (int(truth.shape[1]), int(truth.shape[2]))
    made = []
    for head in heads:
        scores = head([grid.to(head.bias.device) for grid in grids])
        found = F.interpolate(scores, size, mode="bilinear", align_corners=False).argmax(1)
        made.append(_compared(task, found, truth))
    return made


def _compared(task: ProbeTask, found: Tensor, truth: Tensor) -> PixelCounts:
    return count_pixels(found, truth, classes=task.data.classes, ignore=task.data.ignore)
