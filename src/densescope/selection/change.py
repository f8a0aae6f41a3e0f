"""What moved DSE between two checkpoints, and whether it is more than noise."""

from __future__ import annotations

from densescope.estimate import Estimate
from densescope.selection.parts import weighted_sum
from densescope.selection.result import Change, Part, SelectionRow

LEADING_RATIO = 2.0  # a part that moved DSE this many times as far as the other moved it alone


def change_between(
    first: SelectionRow, second: SelectionRow, weight: float, level: float
) -> Change:
    """Second minus first, block by block, and which part of DSE moved it."""
    separability = second.separability.minus(first.separability)
    dim = second.dim.minus(first.dim)
    dse = weighted_sum(separability, dim, weight)
    return Change(separability, dim, dse, leading_part(separability, dim, weight, level))


def leading_part(separability: Estimate, dim: Estimate, weight: float, level: float) -> Part:
    """The part that moved DSE: see :class:`~densescope.selection.result.Change`.

    Where the noise is not known, every change counts as larger than it.
    """
    moves = {"separability": separability.value, "dimension": weight * dim.value}
    total = sum(moves.values())
    real = {
        "separability": exceeds_noise(separability, level),
        "dimension": exceeds_noise(dim, level),
    }
    sizes = {part: abs(move) for part, move in moves.items() if real[part] and move * total > 0}
    if not sizes:
        return "neither"
    first = max(sizes, key=lambda part: sizes[part])
    if len(sizes) == 2 and sizes[first] < LEADING_RATIO * min(sizes.values()):
        return "both"
    return "separability" if first == "separability" else "dimension"


def moved_otherwise(change: Change, level: float) -> str | None:
    """Where no part moved DSE: the one that moved beyond its noise all the same, and which way.

    Returns:
        ``"separability rose"``, ``"the dimension fell"``, ..., or ``None``.
    """
    if change.moved != "neither":
        return None
    for name, part in (("separability", change.separability), ("the dimension", change.dim)):
        if exceeds_noise(part, level):
            return f"{name} {'rose' if part.value > 0 else 'fell'}"
    return None


def exceeds_noise(difference: Estimate, level: float) -> bool:
    """Whether the interval of a difference leaves out 0; without one, whether it is not 0."""
    interval = difference.interval(level)
    if interval is None:
        return difference.value != 0
    return not interval[0] <= 0 <= interval[1]
