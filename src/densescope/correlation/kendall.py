"""Kendall's tau between two curves of one run, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from densescope.errors import InputError
from densescope.estimate import Estimate, student_quantile

LEAST_CHECKPOINTS = 3
LEAST_FOR_INTERVAL = 6
LEAST_TO_JUDGE = 10  # of 9 checkpoints in random order, 12 % have |tau| of 0.4 or more
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
    if not all(map(math.isfinite, (*first, *second))):
        raise InputError("a number is not finite; leave such checkpoints out first")
    return _tau(first, second)


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
    tau = _tau(first, second)
    if tau is None:
        return None
    if len(first) < LEAST_FOR_INTERVAL:
        return Estimate(tau)
    left: list[float] = []
    for start, stop in blocks_of(len(first)):
        kept = [i for i in range(len(first)) if not start <= i < stop]
        replicate = _tau([first[i] for i in kept], [second[i] for i in kept])
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


def _tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    from scipy.stats import kendalltau

    if len(first) < LEAST_CHECKPOINTS or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(kendalltau(first, second, method="asymptotic").statistic)
