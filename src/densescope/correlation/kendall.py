"""Kendall's tau between two curves of one run, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from densescope.errors import InputError
from densescope.estimate import Estimate, student_quantile

LEAST_CHECKPOINTS = 3
LEAST_FOR_INTERVAL = 6
LEAST_TO_JUDGE = 10  # of 9 checkpoints in random order, 12 % have |tau| of 0.4 or more
BLOCK = 32  # values that are compared one with another
LATER = np.triu(np.ones((BLOCK, BLOCK), dtype=bool), 1)
BLOCKS = 4  # docs/explanation/correlation.md has the simulation that chose it


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b of two curves.

    ``tau = (concordant - discordant) / sqrt((pairs - ties in first) (pairs - ties in second))``

    From -1 (opposite orders) to 1 (one order), 0 expected for independent curves. Only orders
    matter: unchanged by rising transformations of either curve and by the order of the
    checkpoints; it changes sign with either curve.

    Args:
        first: one number per checkpoint, finite.
        second: another per checkpoint, in the same order.

    Returns:
        tau, or ``None`` for fewer than three checkpoints or a curve that is constant.

    Raises:
        InputError: two lengths, or a value that is not finite.

    Source: Kendall (1945), "The treatment of ties in ranking problems".

    Example:
        >>> round(kendall_tau([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0]), 4)
        0.6667
    """
    if len(first) != len(second):
        raise InputError(
            f"{len(first)} numbers and {len(second)} of the other kind; give one of each per "
            "checkpoint"
        )
    ours, theirs = _array(first), _array(second)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise InputError("a number is not finite; leave such checkpoints out first")
    return _known(_taus(ours[None], theirs[None])[0])


def kendall_taus(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]
) -> list[float] | None:
    """``kendall_tau`` of many pairs of curves over the same checkpoints, all at once.

    Args:
        first: ``pairs x checkpoints``.
        second: of the same shape.

    Returns:
        One tau per pair; ``None`` if a number is not finite or a tau is not defined.
    """
    ours, theirs = _array(first), _array(second)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None
    taus = _taus(ours, theirs)
    return None if np.isnan(taus).any() else taus.tolist()


def tau_over_checkpoints(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    """tau with its leave-one-block-of-checkpoints-out replicates.

    Args:
        first: one number per checkpoint in order of step.
        second: another per checkpoint.

    Returns:
        ``None`` where tau is not defined. Replicates are empty below six checkpoints, and where
        tau is not defined without one of the blocks. Blocks depend on the number of checkpoints
        only, so two taus over the same checkpoints can be paired by ``Estimate.minus``.
    """
    ours, theirs = _array(first), _array(second)
    tau = _known(_taus(ours[None], theirs[None])[0])
    if tau is None:
        return None
    if len(first) < LEAST_FOR_INTERVAL:
        return Estimate(tau)
    left: list[float] = []
    blocks = [np.r_[start:stop] for start, stop in blocks_of(len(first))]
    for _, alike in groupby(blocks, key=len):
        without = list(alike)
        rest = [np.delete(np.stack((ours, theirs)), block, axis=1) for block in without]
        left.extend(_taus(*np.stack(rest, axis=1)).tolist())
    return Estimate(tau, () if any(map(math.isnan, left)) else tuple(left))


def tau_interval(tau: Estimate, level: float) -> tuple[float, float] | None:
    """Interval of tau over runs of checkpoints like these: within [-1, 1].

    ``tanh(artanh(tau) +- t se / (1 - tau^2))`` with the jackknife error over blocks of checkpoints
    and Student's quantile; ``None`` without replicates, or where they do not differ.
    """
    error = tau.standard_error
    if error is None or error < 1e-12 or abs(tau.value) > 1 - 1e-12:
        return None
    center = math.atanh(tau.value)
    half = student_quantile(level, len(tau.replicates) - 1) * error / (1 - tau.value**2)
    return math.tanh(center - half), math.tanh(center + half)


def blocks_of(count: int, blocks: int = BLOCKS) -> list[tuple[int, int]]:
    """Bounds of consecutive blocks that differ in length by one at most, the longer first."""
    size, extra = divmod(count, blocks)
    bounds, start = [], 0
    for block in range(blocks):
        stop = start + size + (block < extra)
        bounds.append((start, stop))
        start = stop
    return bounds


def _array(values: Sequence[float] | Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _known(tau: np.float64) -> float | None:
    return None if np.isnan(tau) else float(tau)


def _taus(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """tau of each row (``pairs x checkpoints``, finite); NaN where it is not defined."""
    pairs, checkpoints = first.shape
    if checkpoints < LEAST_CHECKPOINTS:
        return np.full(pairs, np.nan)
    # In order of the first curve, and of the second where the first has ties.
    order = np.lexsort((second, first), axis=-1)
    ours, theirs = (np.take_along_axis(curves, order, axis=-1) for curves in (first, second))
    compared = checkpoints * (checkpoints - 1) // 2
    tied_in_first, tied_in_second = _tied(ours), _tied(np.sort(theirs, axis=-1))
    untied = compared - tied_in_first - tied_in_second + _tied(ours, theirs)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a curve is constant
        tau = (untied - 2 * _inversions(theirs)) / np.sqrt(compared - tied_in_first)
        tau = tau / np.sqrt(compared - tied_in_second)
    inside: NDArray[np.float64] = np.clip(tau, -1.0, 1.0)
    return inside


def _tied(*curves: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pairs of each row that are equal in all curves, where such pairs stand side by side."""
    places = np.arange(curves[0].shape[-1])
    changes = reduce(np.logical_or, [curve[:, 1:] != curve[:, :-1] for curve in curves])
    starts = np.zeros(curves[0].shape, dtype=np.int64)  # of the stretch that a value lies in
    starts[:, 1:] = np.maximum.accumulate(np.where(changes, places[1:], 0), axis=-1)
    tied: NDArray[np.int64] = (places - starts).sum(axis=-1)
    return tied


def _inversions(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pairs of each row of which the earlier value is the higher one.

    They are counted in small blocks, and then by a merge sort: whatever comes from the second of
    two sorted blocks moves past the higher values of the first.
    """
    many, count = values.shape
    width, blocks = BLOCK, 1 << (max(count - 1, 1) // BLOCK).bit_length()
    rows: NDArray[np.float64] = np.full((many, blocks * width), np.inf)
    rows[:, :count] = values
    rows = rows.reshape(many, blocks, width)
    higher = (rows[..., :, None] > rows[..., None, :]) & LATER
    found: NDArray[np.int64] = np.count_nonzero(higher.reshape(many, -1), axis=-1)
    rows.sort(axis=-1)
    while (blocks := blocks // 2) > 0:
        rows = rows.reshape(many, blocks, 2 * width)
        order = np.argsort(rows, axis=-1, kind="stable")
        before = blocks * sum(range(width, 2 * width))
        found += before - (np.arange(2 * width) * (order >= width)).sum(axis=(1, 2))
        rows = np.take_along_axis(rows, order, axis=-1)
        width *= 2
    return found
