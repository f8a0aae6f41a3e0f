"""What moved DSE between two checkpoints, and whether it is more than noise."""

from __future__ import annotations

from densescope.estimate import Estimate
from densescope.metrics.lambdas import linear_combination
from densescope.selection.columns import DensePoint
from densescope.selection.result import Change, Part

LEADING_RATIO = 2.0  # a part that moved DSE this many times as far as the other moved it alone


def change_between(first: DensePoint, second: DensePoint, lambda_: float, level: float) -> Change:
    """Second minus first, block by block, and which part of DSE moved it."""
    separability = second.separability.minus(first.separability)
    effective_rank = second.effective_rank.minus(first.effective_rank)
    dse = linear_combination(separability, effective_rank, lambda_)
    moved = leading_part(separability, effective_rank, lambda_, level)
    return Change(separability, effective_rank, dse, moved)


def leading_part(
    separability: Estimate, effective_rank: Estimate, lambda_: float, level: float
) -> Part:
    """The part that moved DSE: see :class:`~densescope.selection.result.Change`.

    No part is named where DSE itself did not move beyond its noise, or the noise is not known.
    """
    if not is_beyond_noise(linear_combination(separability, effective_rank, lambda_), level):
        return "neither"
    moves = {"separability": separability.value, "effective_rank": lambda_ * effective_rank.value}
    total = sum(moves.values())
    real = {
        "separability": is_beyond_noise(separability, level),
        "effective_rank": is_beyond_noise(effective_rank, level),
    }
    sizes = {part: abs(move) for part, move in moves.items() if real[part] and move * total > 0}
    if not sizes:
        return "neither"
    first = max(sizes, key=lambda part: sizes[part])
    if len(sizes) == 2 and sizes[first] < LEADING_RATIO * min(sizes.values()):
        return "both"
    return "separability" if first == "separability" else "effective_rank"


def is_beyond_noise(difference: Estimate, level: float) -> bool:
    """Whether the noise of a difference is known and smaller than the difference."""
    return difference.interval(level) is not None and exceeds_noise(difference, level)


def exceeds_noise(difference: Estimate, level: float) -> bool:
    """Whether the interval of a difference leaves out 0; without one, whether it is not 0."""
    interval = difference.interval(level)
    if interval is None:
        return difference.value != 0
    return not interval[0] <= 0 <= interval[1]
