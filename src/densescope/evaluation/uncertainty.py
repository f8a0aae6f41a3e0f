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
SCALES = 20  # of the uncertain standard error, for each resample


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
        rows = [row for row, own in enumerate(self.folds) if own == fold]
        return ProbedImages(
            tuple(self.names[row] for row in rows),
            tuple(self.blocks[row] for row in rows),
            (fold,) * len(rows),
            tuple(PixelCounts(part.counts[rows]) for part in self.counts),
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
    return ProbedImages.from_json(record.images) if record.images else None


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
    blocks = _same_images(probes)
    generator = generator or torch.Generator().manual_seed(0)
    once = torch.ones(1, len(blocks), dtype=torch.float64)
    sign = [-1 / len(first)] * len(first) + [1 / len(second)] * len(second)

    def contrast(weights: Tensor) -> Tensor:
        parts = [s * resampled_miou(p.counts, weights) for s, p in zip(sign, probes, strict=True)]
        return torch.stack(parts).sum(0)

    value = float(contrast(once))
    sizes = torch.tensor([blocks.count(block) for block in dict.fromkeys(blocks)]).double()
    effective = float(sizes.sum() ** 2 / sizes.square().sum())
    if len(sizes) < 2:
        return PairedDifference(value, None, None, 1, level)
    draws = contrast(block_resamples(blocks, count=count, generator=generator))
    error = float(draws.std()) * math.sqrt(effective / (effective - 1))
    half = student_quantile(level, effective - 1) * error
    return PairedDifference(value, (value - half, value + half), error, len(sizes), level)


@dataclass(frozen=True)
class LastContrasts:
    """Every checkpoint but the last minus the last, on the same resamples of test images.

    Attributes:
        values: differences of mIoU, one per checkpoint, positive where it is better than the last.
        errors: their standard errors over blocks of images.
        largest: the largest deviation of a difference from its mean in units of its standard
            error, of each resample and for errors as uncertain as so few blocks make them: a
            multivariate t distribution.
        blocks: how many there are.
        freedom: degrees of freedom: equal blocks that would be worth the same, less one.
    """

    values: tuple[float, ...]
    errors: tuple[float, ...]
    largest: tuple[float, ...]
    blocks: int
    freedom: float

    def interval(self, level: float) -> tuple[float, float]:
        """Of the largest true difference, at least 0: the last itself stands for 0.

        The lower end holds although the best was looked for: ``max_c (d_c - q se_c)`` with the
        quantile of :attr:`largest`; the upper is ``max_c (d_c + t se_c)``.
        """
        place = min(len(self.largest) - 1, math.ceil((1 + level) / 2 * len(self.largest)) - 1)
        q = sorted(self.largest)[place]
        t = student_quantile(level, self.freedom)
        pairs = list(zip(self.values, self.errors, strict=True))
        low = max(value - q * error for value, error in pairs)
        high = max(value + t * error for value, error in pairs)
        return max(0.0, low), max(0.0, high)

    @property
    def p_value(self) -> float:
        """Share of resamples with as large a difference where no checkpoint is better."""
        seen = max(v / e for v, e in zip(self.values, self.errors, strict=True))
        return sum(draw >= seen for draw in self.largest) / len(self.largest)


def contrasts_with_last(
    probes: Sequence[ProbedImages],
    *,
    count: int = RESAMPLES,
    generator: torch.Generator | None = None,
) -> LastContrasts | None:
    """Compare every checkpoint of a run with the last, paired over blocks of test images.

    Args:
        probes: one per checkpoint in order of step, at least two.
        count: resamples.
        generator: by default one that starts from 0.

    Returns:
        ``None`` where all images are one block, or a difference does not vary with the images.

    Raises:
        RecordError: the probes are of other images or blocks.
    """
    blocks = _same_images(probes)
    sizes = torch.tensor([blocks.count(block) for block in dict.fromkeys(blocks)]).double()
    freedom = float(sizes.sum() ** 2 / sizes.square().sum()) - 1
    if len(sizes) < 2:
        return None
    import numpy as np
    from scipy.stats import chi2

    weights = block_resamples(
        blocks, count=count, generator=generator or torch.Generator().manual_seed(0)
    )
    everything = torch.cat([torch.ones_like(weights[:1]), weights])
    values = torch.stack([resampled_miou(probe.counts, everything) for probe in probes], 1)
    apart = values[:, :-1] - values[:, -1:]
    spread = apart[1:].std(0)
    if not bool((spread > 0).all()):
        return None
    largest = ((apart[1:] - apart[1:].mean(0)) / spread).max(1).values
    shares = (np.arange(SCALES) + 0.5) / SCALES
    scales = torch.from_numpy(np.sqrt(chi2.ppf(shares, freedom) / freedom))
    errors = spread * math.sqrt((freedom + 1) / freedom)
    return LastContrasts(
        tuple(apart[0].tolist()),
        tuple(errors.tolist()),
        tuple((largest[:, None] / scales).flatten().tolist()),
        len(sizes),
        freedom,
    )


def fold_differences(
    first: Sequence[ProbedImages], second: Sequence[ProbedImages]
) -> tuple[float, ...]:
    """The difference on the images of each fold; empty without cross-validation."""
    _same_images([*first, *second])
    return tuple(
        paired_difference(
            [probe.of_fold(fold) for probe in first],
            [probe.of_fold(fold) for probe in second],
            count=2,
        ).value
        for fold in sorted(set(first[0].folds))
    )


def _same_images(probes: Sequence[ProbedImages]) -> tuple[str, ...]:
    one = probes[0]
    for other in probes[1:]:
        same = (one.names, one.blocks, one.folds) == (other.names, other.blocks, other.folds)
        if not same:
            raise RecordError(
                "these probes are of other test images, blocks or folds: probe all checkpoints of "
                "the run with the same data and options"
            )
    return one.blocks
