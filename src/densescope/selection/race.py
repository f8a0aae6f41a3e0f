"""Which checkpoints of a run need more images before the choice is made: nothing but numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densescope.errors import InputError
from densescope.estimate import Estimate, student_quantile
from densescope.metrics.lambdas import lambda_rule
from densescope.selection.peaks import TOLERANCE, WINDOW
from densescope.selection.rounds import pooled

Array = NDArray[np.float64]


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
    separability: Sequence[Sequence[Estimate]],
    effective_rank: Sequence[Sequence[Estimate]],
    race: Race,
    *,
    definition: str = "released",
) -> tuple[int, ...]:
    """Checkpoints whose place in the choice of a full sweep is still open.

    Two checkpoints are *told apart* when their difference of DSE, paired block by block, exceeds
    its error ``t * se * sqrt(1 - done / rounds)``: ``se`` is the jackknife's, the root stands for
    the rounds that are still missing, and ``t`` is the two-sided quantile of Student's t at level
    ``1 - alpha / (pairs * (rounds - 1))``, so that with probability ``1 - alpha`` no call is wrong
    over all pairs and all looks. A checkpoint is *ruled out* when

    - one in the window around it is surely higher: it is no local maximum; or
    - it surely lies below a *hill*: a stretch of checkpoints of which one is surely higher
      than each of those up to a window away on either side, with a whole window after it. The
      hill holds a local maximum that was seen to fall, and it comes first; or
    - it surely lies more than ``TOLERANCE`` of the curve's range below the highest.

    So, while no call is wrong, the checkpoint that
    :func:`~densescope.selection.peaks.pick_peak` takes on all rounds is never ruled out. Where
    several are left, each has to be told apart from the others and from those in its window; who
    takes part in a pair that is not told apart is open.

    Args:
        separability: of each checkpoint in order of step its rounds, of which it has the first
            few; finite, at least one each.
        effective_rank: ``M_dim``, likewise.
        race: rounds and alpha.
        definition: row of ``DEFINITIONS``, for lambda.

    Returns:
        Positions, rising. All of them while there is no lambda, or no two replicates.

    Source: this package; races of paired differences are those of Moore and Lee (1994), "Efficient
        algorithms for minimizing cross validation error".

    Deviations: lambda of the run, where a definition has it, is taken anew without each block, so
        its error is in ``se``. Noise of clustering is not.
    """
    values = _values(separability, effective_rank, definition)
    if values is None:
        return tuple(range(len(effective_rank)))
    least = _least_differences(values, [len(row) for row in effective_rank], race)
    possible = [int(place) for place in (~_ruled_out(values[:, 0], least)).nonzero()[0]]
    if len(possible) == 1:
        return ()
    needed = {*combinations(possible, 2)}
    needed |= {
        (place, other) for place in possible for other in _around(place, place, len(effective_rank))
    }
    still = {place for a, b in needed if max(least[a, b], least[b, a]) <= 0 for place in (a, b)}
    return tuple(sorted(still))


def _values(
    separability: Sequence[Sequence[Estimate]],
    effective_rank: Sequence[Sequence[Estimate]],
    definition: str,
) -> Array | None:
    """DSE of each checkpoint, then without each block of each round: ``checkpoints 1 + blocks``."""
    blocks = {
        len(one.replicates)
        for part in (separability, effective_rank)
        for row in part
        for one in row
    }
    if min(blocks, default=0) < 2:
        return None
    first, second = (_columns(part) for part in (separability, effective_rank))
    pairs = zip(first.T.tolist(), second.T.tolist(), strict=True)
    find = lambda_rule(definition).find
    lambdas = [find(a, b, definition=definition)[0] for a, b in pairs]
    if None in lambdas:
        return None
    return first + np.array(lambdas, dtype=float) * second


def _columns(rounds: Sequence[Sequence[Estimate]]) -> Array:
    """Pooled values and replicates, each block of each round a block of its own."""
    most = max(len(row) for row in rounds)
    wide = [[_widened(one, number, most) for number, one in enumerate(row)] for row in rounds]
    return np.array([(one.value, *one.replicates) for one in pooled(wide) if one is not None])


def _widened(one: Estimate, number: int, rounds: int) -> Estimate:
    before, after = number * len(one.replicates), (rounds - number - 1) * len(one.replicates)
    return Estimate(one.value, (one.value,) * before + one.replicates + (one.value,) * after)


def _least_differences(values: Array, done: Sequence[int], race: Race) -> Array:
    """``[a, b]``: what value ``a`` minus value ``b`` on all rounds surely is not below."""
    count, blocks = len(values), (values.shape[1] - 1) // max(done)
    pairs, looks = max(1, count * (count - 1) // 2), max(1, race.rounds - 1)
    level = 1 - race.alpha / (pairs * looks)
    apart = values[:, None] - values[None]
    moved = apart[..., 1:] - apart[..., 1:].mean(-1, keepdims=True)
    error = np.sqrt((blocks - 1) / blocks * np.square(moved).sum(-1))
    both = np.minimum.outer(done, done)
    t = {number: student_quantile(level, number * (blocks - 1)) for number in set(done)}
    wide = np.vectorize(t.__getitem__, otypes=[float])(both)
    return np.asarray(apart[..., 0] - wide * error * np.sqrt(1 - both / race.rounds))


def _ruled_out(values: Array, least: Array) -> NDArray[np.bool_]:
    """Which checkpoints surely are not the pick on all rounds."""
    count, highest = len(values), int(values.argmax())
    widest = -least[:, highest].min()
    ruled = np.asarray(least[highest] > TOLERANCE * widest)
    for first in range(count):
        ruled[first] |= (least[_around(first, first, count), first] > 0).any()
        for last in range(first, count - WINDOW):
            below = least[first : last + 1].max(0) > 0
            if below[_around(first, last, count)].all():
                ruled |= below
    return ruled


def _around(first: int, last: int, count: int) -> list[int]:
    """Places up to a window away from a stretch."""
    return [*range(max(0, first - WINDOW), first), *range(last + 1, min(count, last + WINDOW + 1))]
