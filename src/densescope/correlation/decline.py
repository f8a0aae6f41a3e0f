"""Is the last checkpoint of a run worse than an earlier one, beyond the noise of the probe?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from densescope.correlation.degradation import Degradation, degradation_verdict
from densescope.correlation.noise import (
    SeedNoise,
    chance_of_larger,
    many_to_one_quantile,
    seed_noise,
)
from densescope.correlation.pairing import (
    ProbedRun,
    check_pairs,
    drawn_labels,
    probed_run,
    scored_table,
)
from densescope.errors import InputError
from densescope.estimate import student_quantile
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection import Change, RunTable
from densescope.selection.change import change_between

if TYPE_CHECKING:
    from densescope.evaluation.uncertainty import ProbedImages


def find_degradation(
    probes: Sequence[ProbeRecord],
    scores: Sequence[ScoreRecord] | RunTable | None = None,
    *,
    definition: str = "released",
    layer: int = -1,
    level: float = 0.95,
) -> Degradation:
    """Compare the best probed checkpoint of a run with the last.

    ``drop = max_c mu_c - mu_last``, in units of the measure, at least 0. The best of many noisy
    values is too good (winner's curse), so every checkpoint is compared with the last at once: the
    lower end of the interval is ``max_c (d_c - q se_c)`` with Dunnett's quantile for that many
    differences from one checkpoint, the upper ``max_c (d_c + t se_c)`` with Student's. A run
    without degradation is called degraded in at most ``(1 - level) / 2`` of the cases, 2.5 % by
    default (3.8 % in simulations with six blocks of test images); least often when it was still
    rising.

    Where the probes hold the pixel counts of their test images (mIoU), the noise is that of the
    images: a bootstrap over their blocks, on the same resamples for all checkpoints, with the
    quantile of the largest deviation in place of Dunnett's. Else, and where each seed has training
    images of its own (``--labels``), it is that of the probe's seeds,
    taken to be normal and alike for all checkpoints; where all have equally many seeds, seed ``i``
    is taken to be the same for all.

    Args:
        probes: of one run, protocol, data set and measure, in any order.
        scores: of the same run, or its table, to say which label-free part moved.
        definition: of those parts, a row of ``DEFINITIONS``.
        layer: whose scores.
        level: confidence of the interval, between 0 and 1.

    Returns:
        The comparison. With one seed per probe and no counts of images the noise is unknown and
        nothing is claimed.

    Raises:
        InputError: ``level`` out of its range, or an unknown definition.
        RecordError: no probe with a value, probes that do not belong in one table, or score and
            probe of two files under one name.

    Source: Dunnett (1955) for the quantile. Dai et al. (2025) compare best and last values as
        they are.

    Deviations: one labelled set makes and unmakes declines; see
        :func:`~densescope.correlation.sets.verdict_over_sets`.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must lie between 0 and 1, e.g. 0.95")
    run = probed_run(probes)
    goodness = [run.goodness(probe) for probe in run.probes]
    means = [_mean(values) for values in goodness]
    best = len(means) - 1 if means[-1] == max(means) else means.index(max(means))
    noise, images = seed_noise(goodness), _images(run)
    interval = None if noise is None else _interval(goodness, noise, level)
    p_value = None if noise is None else _chance(goodness, noise)
    contrasts, halves = None, None
    if images is not None:
        from densescope.evaluation.contrasts import contrasts_with_last, split_contrast

        contrasts, halves = contrasts_with_last(images), split_contrast(images, level=level)
    if contrasts is not None:
        interval, p_value = contrasts.interval(level), contrasts.p_value
    first, last = run.probes[best], run.probes[-1]
    found = Degradation(
        protocol=run.protocol,
        dataset=run.dataset,
        measure=run.measure.name,
        unit=run.unit,
        checkpoints=len(run.probes),
        seeds=min(len(values) for values in goodness),
        best=first.name,
        best_step=first.step,
        best_value=first.value,
        last=last.name,
        last_step=last.step,
        last_value=last.value,
        drop=means[best] - means[-1],
        held_out_drop=_held_out_drop(goodness) if halves is None else halves.value,
        held_out_interval=None if halves is None else halves.interval,
        held_out_window=1 if halves is None else halves.window,
        interval=interval,
        level=level,
        p_value=p_value,
        noise=None if noise is None else noise.deviation,
        blocks=None if contrasts is None else contrasts.blocks,
        degraded=None if interval is None else interval[0] > 0,
        change=_change(run, scores, first.name, definition, layer, level),
        left_out=run.left_out,
        verdict="",
    )
    return replace(found, verdict=degradation_verdict(found))


def _images(run: ProbedRun) -> list[ProbedImages] | None:
    """What every probe found on its test images, where all hold that and it is their noise."""
    if run.measure.name != "miou" or len(run.probes) < 2:
        return None
    if any(drawn_labels(probe) for probe in run.probes):
        return None  # each seed has other training images: their noise is larger, and that of seeds
    if not all(probe.images for probe in run.probes):
        return None
    from densescope.evaluation.uncertainty import probed_images

    return [images for images in map(probed_images, run.probes) if images is not None]


def _interval(
    goodness: Sequence[tuple[float, ...]], noise: SeedNoise, level: float
) -> tuple[float, float] | None:
    """Bounds of ``max_c mu_c - mu_last``; the last itself stands for 0."""
    *others, last = goodness
    if not others:
        return None
    counts = [len(values) for values in others]
    q = many_to_one_quantile((1 - level) / 2, counts, len(last), noise.degrees_of_freedom)
    t = student_quantile(level, noise.degrees_of_freedom)
    differences = [(_mean(v) - _mean(last), _error(v, last, noise)) for v in others]
    low = max(d - q * error for d, error in differences)
    high = max(d + t * error for d, error in differences)
    return max(0.0, low), max(0.0, high)


def _chance(goodness: Sequence[tuple[float, ...]], noise: SeedNoise) -> float | None:
    *others, last = goodness
    if not others:
        return None
    largest = max((_mean(v) - _mean(last)) / _error(v, last, noise) for v in others)
    counts = [len(values) for values in others]
    return max(0.0, chance_of_larger(largest, counts, len(last), noise.degrees_of_freedom))


def _held_out_drop(goodness: Sequence[tuple[float, ...]]) -> float | None:
    """Best by all seeds but one against last, on that one; the mean over which is held out."""
    count = len(goodness[0])
    if count < 2 or any(len(values) != count for values in goodness):
        return None
    drops = []
    for seed in range(count):
        by_others = [math.fsum(v for i, v in enumerate(row) if i != seed) for row in goodness]
        chosen = by_others.index(max(by_others))
        drops.append(goodness[chosen][seed] - goodness[-1][seed])
    return _mean(drops)


def _change(
    run: ProbedRun,
    scores: Sequence[ScoreRecord] | RunTable | None,
    best: str,
    definition: str,
    layer: int,
    level: float,
) -> Change | None:
    """Last minus best in the label-free numbers, where both were scored."""
    if scores is None:
        return None
    table = scored_table(scores)
    check_pairs(table, run)
    points = {p.name: p for p in table.points(definition, layer) if p.is_finite}
    lambda_ = table.dse(definition, layer).lambda_
    last = run.probes[-1].name
    if best == last or best not in points or last not in points or lambda_ is None:
        return None
    return change_between(points[best], points[last], lambda_, level)


def _error(first: tuple[float, ...], second: tuple[float, ...], noise: SeedNoise) -> float:
    return noise.error_of_difference(len(first), len(second))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
