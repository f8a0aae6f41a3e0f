"""Kendall's tau between two curves of one run, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from densescope.errors import InputError
from densescope.estimate import Estimate, student_quantile

LEAST_CHECKPOINTS = 3
LEAST_FOR_INTERVAL = 6
LEAST_TO_JUDGE = 10  # of 9 checkpoints in random order, 12 % have |tau| of 0.4 or more
BLOCK = 32  # values that are compared one with another
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
    return _tau(ours, theirs)


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
    tau = _tau(ours, theirs)
    if tau is None:
        return None
    if len(first) < LEAST_FOR_INTERVAL:
        return Estimate(tau)
    left: list[float] = []
    for start, stop in blocks_of(len(first)):
        without = slice(start, stop)
        replicate = _tau(np.delete(ours, without), np.delete(theirs, without))
        if replicate is None:
            return Estimate(tau)
        left.append(replicate)
    return Estimate(tau, tuple(left))


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


def _array(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    if len(first) < LEAST_CHECKPOINTS or _is_constant(first) or _is_constant(second):
        return None
    # In order of the first curve, and of the second where the first has ties.
    order = np.lexsort((second, first))
    ours, theirs = first[order], second[order]
    pairs = len(order) * (len(order) - 1) // 2
    tied_in_first, tied_in_second = _tied(ours), _tied(np.sort(theirs))
    untied = pairs - tied_in_first - tied_in_second + _tied(ours, theirs)
    tau = (untied - 2 * _inversions(theirs)) / math.sqrt(pairs - tied_in_first)
    return min(1.0, max(-1.0, tau / math.sqrt(pairs - tied_in_second)))


def _is_constant(values: NDArray[np.float64]) -> bool:
    return bool((values == values[0]).all())


def _tied(*curves: NDArray[np.float64]) -> int:
    """Pairs that are equal in all curves, in an order in which such pairs stand side by side."""
    changes = np.any([curve[1:] != curve[:-1] for curve in curves], axis=0)
    lengths = np.diff(np.flatnonzero(np.concatenate(([True], changes, [True]))))
    return int((lengths * (lengths - 1) // 2).sum())


def _inversions(values: NDArray[np.float64]) -> int:
    """Pairs of which the earlier value is the higher one.

    They are counted in small blocks, and then by a merge sort: whatever comes from the second of
    two sorted blocks moves past the higher values of the first.
    """
    width, blocks = BLOCK, 1 << (max(len(values) - 1, 1) // BLOCK).bit_length()
    rows: NDArray[np.float64] = np.full((blocks, width), np.inf)
    rows.flat[: len(values)] = values
    later = np.triu(np.ones((width, width), dtype=bool), 1)
    found = np.count_nonzero((rows[:, :, None] > rows[:, None, :]) & later)
    rows.sort(axis=1)
    while len(rows) > 1:
        rows = rows.reshape(len(rows) // 2, 2 * width)
        order = np.argsort(rows, axis=1, kind="stable")
        before = len(rows) * sum(range(width, 2 * width))
        found += before - int((np.nonzero(order >= width)[1]).sum())
        rows = np.take_along_axis(rows, order, axis=1)
        width *= 2
    return int(found)
