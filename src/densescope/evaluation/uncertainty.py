"""How far mIoU on test images can be trusted: a bootstrap over blocks, paired over checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densescope.errors import InputError, RecordError
from densescope.estimate import student_quantile
from densescope.evaluation.pixel_counts import PixelCounts, iou_of
from densescope.records import ProbeRecord

RESAMPLES = 1000
FEW_BLOCKS = 8


@dataclass(frozen=True)
class ProbedImages:
    """What a probe found on each of its test images.

    Attributes:
        names: of the images.
        blocks: which images belong together, such as frames of one video.
        folds: the fold in which each image was held out; empty without cross-validation.
        counts: pixels per image, for each seed of the probe.
    """

    names: tuple[str, ...]
    blocks: tuple[str, ...]
    folds: tuple[int, ...]
    counts: tuple[PixelCounts, ...]

    @property
    def block_count(self) -> int:
        """How many blocks there are."""
        return len(set(self.blocks))

    def of_fold(self, fold: int) -> ProbedImages:
        """The images that were held out in one fold."""
        return self.some([row for row, own in enumerate(self.folds) if own == fold])

    def some(self, rows: Sequence[int]) -> ProbedImages:
        """The images at these places."""
        return ProbedImages(
            tuple(self.names[row] for row in rows),
            tuple(self.blocks[row] for row in rows),
            tuple(self.folds[row] for row in rows) if self.folds else (),
            tuple(PixelCounts(part.counts[list(rows)]) for part in self.counts),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            "names": list(self.names),
            "blocks": list(self.blocks),
            "folds": list(self.folds),
            "counts": [part.to_json() for part in self.counts],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ProbedImages:
        """The inverse of :meth:`to_json`.

        Raises:
            RecordError: the document is damaged.
        """
        try:
            names, blocks = tuple(document["names"]), tuple(document["blocks"])
            folds = tuple(int(fold) for fold in document["folds"])
            counts = tuple(PixelCounts.from_json(part) for part in document["counts"])
        except (KeyError, TypeError, ValueError) as cause:
            raise RecordError(f"the test images of a probe are damaged: {cause!r}") from cause
        lengths = {len(names), len(blocks), len(folds) or len(names), *map(len, counts)}
        if len(lengths) != 1:
            raise RecordError(
                f"the test images of a probe are damaged: {sorted(lengths)} names, blocks, folds "
                "and counts"
            )
        return cls(names, blocks, folds, counts)


def probed_images(record: ProbeRecord) -> ProbedImages | None:
    """What a record knows of its test images; ``None`` where it was written without.

    Raises:
        RecordError: the record is damaged.
    """
    if not record.images:
        return None
    try:
        return ProbedImages.from_json(record.images)
    except RecordError as cause:
        whose = f"{record.name}, {record.protocol} on {record.dataset}"
        raise RecordError(f"{whose}: {cause}; remove this record and probe again") from cause


def shared_blocks(probes: Sequence[ProbedImages]) -> tuple[str, ...]:
    """The block of each test image of probes that have the same images.

    Raises:
        RecordError: they are of other images, blocks or folds.
    """
    one = probes[0]
    for other in probes[1:]:
        same = (one.names, one.blocks, one.folds) == (other.names, other.blocks, other.folds)
        if not same:
            raise RecordError(
                "these probes are of other test images, blocks or folds: probe all checkpoints of "
                "the run with the same data and options"
            )
    return one.blocks


def equal_blocks(blocks: Sequence[str]) -> float:
    """How many blocks of equal size would be worth the same: ``(sum n)^2 / sum n^2``."""
    sizes = torch.tensor([blocks.count(block) for block in dict.fromkeys(blocks)]).double()
    return float(sizes.sum() ** 2 / sizes.square().sum())


def block_resamples(
    blocks: Sequence[str], *, count: int = RESAMPLES, generator: torch.Generator
) -> Tensor:
    """How often each image takes part in each resample: blocks are drawn with replacement.

    As many blocks are drawn as there are. All images of a block take part together.

    Args:
        blocks: block of each image.
        count: resamples.
        generator: what is left to chance; the same one pairs checkpoints.

    Returns:
        ``count images``, float64.
    """
    if count < 2 or not blocks:
        raise InputError(f"{count} resamples of {len(blocks)} images: at least 2, of at least 1")
    order = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    place = torch.tensor([order[block] for block in blocks])
    drawn = torch.randint(len(order), (count, len(order)), generator=generator)
    times = torch.zeros(count, len(order), dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(times))
    return times[:, place]


def resampled_miou(counts: PixelCounts | Sequence[PixelCounts], weights: Tensor) -> Tensor:
    """mIoU of each resample; of several seeds, their mean.

    Args:
        counts: of the test images, one or one for each seed.
        weights: ``resamples images``, from :func:`block_resamples`; ones give the mIoU itself.

    Returns:
        ``resamples``, float64.
    """
    seeds = [counts] if isinstance(counts, PixelCounts) else list(counts)
    values = []
    for part in seeds:
        totals = weights @ part.counts.flatten(1).double()
        values.append(iou_of(totals.unflatten(1, part.counts.shape[1:])).nanmean(1))  # type: ignore[no-untyped-call]
    return torch.stack(values).mean(0)


@dataclass(frozen=True)
class PairedDifference:
    """A difference of mIoU on the same images, with its interval over blocks of images.

    Attributes:
        value: fraction, positive where the second is better.
        interval: ``None`` where all images are one block.
        error: standard error; ``None`` likewise.
        blocks: how many there are.
        level: confidence of the interval.
    """

    value: float
    interval: tuple[float, float] | None
    error: float | None
    blocks: int
    level: float

    @property
    def note(self) -> str | None:
        """What to know of an interval from few blocks."""
        if self.interval is None:
            return "all test images are one block, so their noise is not known"
        if self.blocks < FEW_BLOCKS:
            return f"{self.blocks} blocks of test images tell little of their noise"
        return None


def paired_difference(
    first: Sequence[ProbedImages],
    second: Sequence[ProbedImages],
    *,
    level: float = 0.95,
    count: int = RESAMPLES,
    generator: torch.Generator | None = None,
) -> PairedDifference:
    """Mean mIoU of some checkpoints minus that of others, on the same resamples of test images.

    The standard error is that of a bootstrap over blocks, times ``sqrt(B / (B - 1))``; the interval
    takes Student's quantile for ``B - 1`` degrees of freedom. ``B`` is the number of equal blocks
    that would be worth the same, ``(sum n)^2 / sum n^2``. With few blocks it is wide, as it
    should be. Other videos than those of the blocks are not in it.

    Args:
        first: probes that are subtracted: a checkpoint, or a window of several.
        second: probes from which they are.
        level: confidence.
        count: resamples.
        generator: by default one that starts from 0, so that every call draws the same.

    Raises:
        RecordError: the probes are of other images or blocks.
        InputError: no probe, or an impossible level or count.
    """
    if not first or not second or not 0 < level < 1:
        raise InputError(
            f"{len(first)} and {len(second)} probes at level {level}: at least one each, and a "
            "level between 0 and 1"
        )
    probes = [*first, *second]
    blocks = shared_blocks(probes)
    generator = generator or torch.Generator().manual_seed(0)
    once = torch.ones(1, len(blocks), dtype=torch.float64)
    sign = [-1 / len(first)] * len(first) + [1 / len(second)] * len(second)

    def contrast(weights: Tensor) -> Tensor:
        parts = [s * resampled_miou(p.counts, weights) for s, p in zip(sign, probes, strict=True)]
        return torch.stack(parts).sum(0)

    value = float(contrast(once))
    number, effective = len(set(blocks)), equal_blocks(blocks)
    if number < 2:
        return PairedDifference(value, None, None, 1, level)
    draws = contrast(block_resamples(blocks, count=count, generator=generator))
    error = float(draws.std()) * math.sqrt(effective / (effective - 1))
    half = student_quantile(level, effective - 1) * error
    return PairedDifference(value, (value - half, value + half), error, number, level)


def fold_differences(
    first: Sequence[ProbedImages], second: Sequence[ProbedImages]
) -> tuple[float, ...]:
    """The difference on the images of each fold; empty without cross-validation."""
    shared_blocks([*first, *second])
    return tuple(
        paired_difference(
            [probe.of_fold(fold) for probe in first],
            [probe.of_fold(fold) for probe in second],
            count=2,
        ).value
        for fold in sorted(set(first[0].folds))
    )
