"""The best of many checkpoints against the last, without what the choice of the best adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.estimate import student_quantile
from densescope.evaluation.uncertainty import (
    RESAMPLES,
    ProbedImages,
    block_resamples,
    equal_blocks,
    resampled_miou,
    shared_blocks,
)

SCALES = 20  # of the uncertain standard error, for each resample
WINDOW = 3  # checkpoints in a row


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
    blocks = shared_blocks(probes)
    number, freedom = len(set(blocks)), equal_blocks(blocks) - 1
    if number < 2:
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
        number,
        freedom,
    )


@dataclass(frozen=True)
class SplitContrast:
    """The best checkpoints in a row minus the last ones, chosen and measured on other images.

    Attributes:
        value: difference of mIoU, positive where the best are better than the last.
        interval: of it, over blocks of test images.
        error: its standard error.
        blocks: how many there are.
        window: checkpoints in a row whose mean is compared.
        best: place in the run of the first of the best checkpoints, as each half chose them.
    """

    value: float
    interval: tuple[float, float]
    error: float
    blocks: int
    window: int
    best: tuple[int, int]


def split_contrast(
    probes: Sequence[ProbedImages],
    *,
    level: float = 0.95,
    window: int | None = None,
    count: int = RESAMPLES,
    generator: torch.Generator | None = None,
) -> SplitContrast | None:
    """How much better the best checkpoints in a row are than the last, without the winner's curse.

    The blocks of test images are dealt in two halves at random. On one half the best mean of
    ``window`` checkpoints in a row is found; on the other half that mean minus the mean of the last
    ``window`` is measured; and the other way round. ``value`` is the mean of both. Where the last
    are chosen, the difference is 0. The standard error is that of a bootstrap over the blocks of
    each half, with the choice held: the noise of the choice itself is not in it.

    This removes what the test images add to the choice. What training and the fit of the probe add
    is common to both halves and remains: a run that only fluctuates has a contrast above 0.

    Args:
        probes: one per checkpoint in order of step, at least two.
        level: confidence of the interval.
        window: 3 by default, and 1 with fewer than six checkpoints.
        count: resamples.
        generator: deals the blocks and draws the resamples; by default one that starts from 0.

    Returns:
        ``None`` with fewer than four blocks.

    Raises:
        RecordError: the probes are of other images or blocks.
        InputError: no window fits in so few checkpoints.

    Example:
        >>> import torch
        >>> from densescope.evaluation.pixel_counts import PixelCounts
        >>> def images(right):  # of 10 pixels in each of 8 images of one class
        ...     counts = torch.tensor([[[right], [10], [right]]]).repeat(8, 1, 1)
        ...     names = tuple("abcdefgh")
        ...     return ProbedImages(names, names, (), (PixelCounts(counts),))
        >>> found = split_contrast([images(4), images(9), images(6)])
        >>> round(found.value, 3), found.window, found.best
        (0.3, 1, (1, 1))
    """
    window = window or (WINDOW if len(probes) >= 2 * WINDOW else 1)
    if not 0 < window < len(probes):
        raise InputError(
            f"windows of {window} checkpoints in a run of {len(probes)}: there must be two windows"
        )
    blocks = shared_blocks(probes)
    named = list(dict.fromkeys(blocks))
    if len(named) < 4:
        return None
    generator = generator or torch.Generator().manual_seed(0)
    dealt = torch.randperm(len(named), generator=generator).tolist()
    first = {named[place] for place in dealt[: len(named) // 2]}
    halves = [
        _windows(
            [row for row, block in enumerate(blocks) if (block in first) == own],
            probes,
            window,
            count,
            generator,
        )
        for own in (True, False)
    ]
    best = tuple(int(values[0].argmax()) for values, _ in halves)
    values, squares, freedoms = [], [], []
    for chosen, (measured, equal) in zip(best, reversed(halves), strict=True):
        apart = measured[:, chosen] - measured[:, -1]
        values.append(float(apart[0]))
        squares.append(float(apart[1:].var()) * equal / (equal - 1) / 4)
        freedoms.append(equal - 1)
    value, error = sum(values) / 2, math.sqrt(sum(squares))
    half = 0.0
    if error:
        parts = sum(square**2 / freedom for square, freedom in zip(squares, freedoms, strict=True))
        half = student_quantile(level, error**4 / parts) * error  # Welch and Satterthwaite
    return SplitContrast(
        value, (value - half, value + half), error, len(named), window, (best[0], best[1])
    )


def _windows(
    rows: Sequence[int],
    probes: Sequence[ProbedImages],
    window: int,
    count: int,
    generator: torch.Generator,
) -> tuple[Tensor, float]:
    """mIoU of all windows on some images and on each resample of them: ``1 + count windows``.

    The second is the number of equal blocks that would be worth the same.
    """
    some = [probe.some(rows) for probe in probes]
    weights = block_resamples(some[0].blocks, count=count, generator=generator)
    everything = torch.cat([torch.ones_like(weights[:1]), weights])
    values = torch.stack([resampled_miou(probe.counts, everything) for probe in some], 1)
    return values.unfold(1, window, 1).mean(2), equal_blocks(some[0].blocks)
