"""Which checkpoints of a run need more images before the choice is made: nothing but numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from densescope.errors import InputError
from densescope.estimate import Estimate, student_quantile
from densescope.selection.peaks import TOLERANCE, WINDOW
from densescope.selection.weight import run_weight


@dataclass(frozen=True)
class Race:
    """How a sweep scores images in rounds, and when a checkpoint needs no more of them.

    Attributes:
        round_size: images of a round; a number is a mean over rounds, so it takes the place of
            ``ScoreSettings.images_per_batch``.
        rounds: at most this many; a full sweep scores ``rounds * round_size`` images.
        alpha: the chance, at most, that the checkpoint a full sweep picks is stopped wrongly.
    """

    round_size: int = 256
    rounds: int = 8
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.round_size < 2:
            raise InputError(f"round_size is {self.round_size}; it must be at least 2 images")
        if self.rounds < 1:
            raise InputError(f"rounds is {self.rounds}; it must be at least 1")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}; it must lie between 0 and 1, e.g. 0.05")

    @property
    def images(self) -> int:
        """Of a checkpoint that goes through all rounds."""
        return self.rounds * self.round_size

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {"round_size": self.round_size, "rounds": self.rounds, "alpha": self.alpha}


def undecided(
    separability: Sequence[Estimate],
    dim: Sequence[Estimate],
    done: Sequence[int],
    race: Race,
    *,
    definition: str = "released",
) -> tuple[int, ...]:
    """Checkpoints whose place in the choice of a full sweep is still open.

    Two checkpoints are *told apart* when their difference of DSE, paired block by block, exceeds
    its error ``t * se * sqrt(1 - done / rounds)``: ``se`` is the jackknife's, the root stands for
    the rounds that are still missing, and ``t`` is the quantile of Student's t at
    ``1 - alpha / (pairs * (rounds - 1))``, so that no call is wrong with probability
    ``1 - alpha`` over all pairs and all looks. A checkpoint is *possible* unless one in the window
    around it is surely higher, or it surely lies more than ``TOLERANCE`` of the curve's range
    below the highest. A possible checkpoint is to be told apart from every other possible one and
    from every one in its window; whoever takes part in a pair that is not told apart is open.

    While no call is wrong, the checkpoint that :func:`~densescope.selection.peaks.pick_peak` takes
    on all rounds is possible, and so are the members of its shortlist within ``TOLERANCE``:
    each stays open until its order among the others is settled.

    Args:
        separability: of each checkpoint in order of step, pooled over its rounds; finite.
        dim: ``M_dim``, likewise.
        done: rounds behind each number.
        race: rounds and alpha.
        definition: ``"released"`` or ``"paper"``, for the weight.

    Returns:
        Positions, rising. All of them while there is no weight or no replicate.

    Source: this package; racing with paired differences as in Maron & Moore (1994), "Hoeffding
        Races".

    Deviations: the weight of DSE is taken anew without each block, so its error is in ``se``.
    """
    values = _values(separability, dim, definition)
    if values is None:
        return tuple(range(len(dim)))
    least = _least_differences(values, done, race)
    around = [_window(place, len(values)) for place in range(len(values))]
    possible = [
        place
        for place in _within_reach(values, least)
        if all(least[other][place] <= 0 for other in around[place])
    ]
    needed = {*combinations(possible, 2)}
    needed |= {(place, other) for place in possible for other in around[place]}
    still = {place for a, b in needed if max(least[a][b], least[b][a]) <= 0 for place in (a, b)}
    return tuple(sorted(still))


def _values(
    separability: Sequence[Estimate], dim: Sequence[Estimate], definition: str
) -> list[Estimate] | None:
    """DSE with replicates whose weight is taken without the block as well."""
    blocks = min((len(estimate.replicates) for estimate in (*separability, *dim)), default=0)
    if blocks < 2:
        return None
    columns = []
    for place in range(-1, blocks):
        first, second = (
            [estimate.value if place < 0 else estimate.replicates[place] for estimate in part]
            for part in (separability, dim)
        )
        weight, _ = run_weight(first, second, definition=definition)
        if weight is None:
            return None
        columns.append([a + weight * b for a, b in zip(first, second, strict=True)])
    return [Estimate(row[0], row[1:]) for row in zip(*columns, strict=True)]


def _least_differences(
    values: Sequence[Estimate], done: Sequence[int], race: Race
) -> list[list[float]]:
    """``[a][b]``: what value ``a`` minus value ``b`` on all rounds surely is not below."""
    count = len(values)
    pairs = max(1, count * (count - 1) // 2)
    looks = max(1, race.rounds - 1)
    t = student_quantile(1 - race.alpha / (pairs * looks), len(values[0].replicates) - 1)
    least = [[0.0] * count for _ in range(count)]
    for a, b in combinations(range(count), 2):
        difference = values[a].minus(values[b])
        missing = 1 - min(done[a], done[b]) / race.rounds
        half = t * (difference.standard_error or 0.0) * math.sqrt(missing)
        least[a][b], least[b][a] = difference.value - half, -difference.value - half
    return least


def _within_reach(values: Sequence[Estimate], least: Sequence[Sequence[float]]) -> list[int]:
    """Those that may lie within ``TOLERANCE`` of the range below the highest value."""
    highest = max(range(len(values)), key=lambda place: values[place].value)
    widest = -min(row[highest] for row in least)
    bar = TOLERANCE * widest
    return [place for place in range(len(values)) if least[highest][place] <= bar]


def _window(place: int, count: int) -> list[int]:
    around = range(max(0, place - WINDOW), min(count, place + WINDOW + 1))
    return [other for other in around if other != place]
