"""Which checkpoints of a run have fallen below a better one before them, by more than noise."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from densescope.definitions import DEFINITIONS, check_definition
from densescope.errors import InputError
from densescope.estimate import Estimate, student_quantile
from densescope.metrics.lambdas import linear_combination, run_lambda
from densescope.selection.columns import DensePoint
from densescope.selection.result import Part

LAGS = (1, 2, 4, 8)  # points between those compared: a slow wobble shows at long ones only
DIFFERENCES_PER_LAG = 4  # times the lag: so many must be there before a lag counts
LEAST_POINTS = 2 + DIFFERENCES_PER_LAG  # before a plain fall
PLAIN_LEVEL = 0.95  # of a rise, which is evidence against an alarm: one look is enough
ROUNDING = 1e-9  # of the larger value: below it a fall is rounding
KEPT = 0.75  # of the differences, the smallest: a bend of the curve makes a few large ones
# A normal scatter s around a straight line has second differences of standard deviation
# s * sqrt(6); the smallest three quarters of them have the mean size 0.515 of that.
TO_SCATTER = 1 / 0.515 / math.sqrt(6)
# A short run says little of its wobble. It is taken to be like the noise of the images with the
# weight of so many of them (a moderated t statistic).
PRIOR = 4
Status = Literal["fine", "collapsed", "not finite"]


@dataclass(frozen=True)
class AlarmSettings:
    """When a fall counts; the guide to watching a run says what each choice costs.

    Attributes:
        definition: row of ``DEFINITIONS``; of others than ``"released"`` only lambda of the run
            counts.
        patience: checkpoints in a row that must all have fallen, at least 1.
        false_alarm_rate: of a run of any length that does not degrade, between 0 and 1.
        collapse_fraction: an effective rank below this part of the highest so far is a collapse,
            whatever separability says; 0 turns that off.
    """

    definition: str = "released"
    patience: int = 2
    false_alarm_rate: float = 0.01
    collapse_fraction: float = 0.25

    def __post_init__(self) -> None:
        check_definition(self.definition)
        if self.patience < 1:
            raise InputError(f"patience is {self.patience}; it must be at least 1 checkpoint")
        if not 0 < self.false_alarm_rate < 1:
            raise InputError(
                f"false_alarm_rate is {self.false_alarm_rate}; it must lie between 0 and 1"
            )
        if not 0 <= self.collapse_fraction < 1:
            raise InputError(
                f"collapse_fraction is {self.collapse_fraction}; it must be at least 0 and below 1"
            )


@dataclass(frozen=True)
class Combination:
    """A number of a checkpoint: ``of_separability * separability + of_rank * effective_rank``."""

    of_separability: float
    of_rank: float

    def value(self, point: DensePoint) -> float:
        """That number of one point."""
        return (
            self.of_separability * point.separability.value
            + self.of_rank * point.effective_rank.value
        )

    def change(self, first: DensePoint, second: DensePoint) -> Estimate:
        """Second minus first, block by block."""
        if self.of_separability == 0:
            return second.effective_rank.minus(first.effective_rank)
        separability = second.separability.minus(first.separability)
        return linear_combination(
            separability, second.effective_rank.minus(first.effective_rank), self.of_rank
        )


SEPARABILITY = Combination(1.0, 0.0)
EFFECTIVE_RANK = Combination(0.0, 1.0)
EQUAL = Combination(1.0, 1.0)  # DSE with lambda = 1


class Falls:
    """The points of a run, and for every prefix its best ones and its wobble.

    Attributes:
        points: in order of step.
        status: of each point.
    """

    def __init__(self, points: Sequence[DensePoint], settings: AlarmSettings) -> None:
        self.points = tuple(points)
        self.status = _statuses(points, settings.collapse_fraction)
        self._settings = settings
        self._has_lambda = DEFINITIONS[settings.definition].lambda_by_default is not None
        fine = [status == "fine" for status in self.status]
        self._sound = [point for point, whole in zip(points, fine, strict=True) if whole]
        self._counts = [0, *accumulate(fine)]
        self._combinations = (SEPARABILITY, EFFECTIVE_RANK, *([EQUAL] if self._has_lambda else []))
        values = {
            combination: [combination.value(point) for point in self._sound]
            for combination in self._combinations
        }
        self._leaders = {combination: _leaders(numbers) for combination, numbers in values.items()}
        self._wobbles: dict[Combination, list[float]] = {}
        self._dse: dict[int, Combination | None] = {}

    def dse(self, cut: int) -> Combination | None:
        """DSE with lambda of the run before ``cut``; ``None`` where it is not defined."""
        count = self._counts[cut]
        if count not in self._dse:
            sound = self._sound[:count]
            lambda_, _ = run_lambda(
                [point.separability.value for point in sound],
                [point.effective_rank.value for point in sound],
                definition=self._settings.definition,
            )
            combination = None if lambda_ is None else Combination(1.0, lambda_)
            self._dse[count] = combination
        return self._dse[count]

    def total(self, cut: int) -> Combination | None:
        """The sum by which a fall is told: with lambda = 1, or DSE where that has no meaning."""
        return EQUAL if self._has_lambda else self.dse(cut)

    def fallen_from(self, cut: int, end: int | None = None) -> DensePoint | None:
        """The best sound point before ``cut`` below which all from there to ``end`` have fallen.

        Compared are the highest before the cut of each part and of their sum; of those below which
        all fell, the one of highest DSE is named. ``None`` where there is none.
        """
        count = self._counts[cut]
        if count == 0:
            return None
        leaders = sorted({leaders[count - 1] for leaders in self._leaders.values()})
        tail = range((len(self.points) if end is None else end) - 1, cut - 1, -1)
        below = [
            self._sound[i]
            for i in leaders
            if all(self._fallen(cut, self._sound[i], index) for index in tail)
        ]
        if not below:
            return None
        dse = self.dse(cut) or SEPARABILITY
        return max(below, key=dse.value)

    def fell(self, cut: int, best: DensePoint) -> Part:
        """The parts of the last point that are below the best one's by more than noise."""
        last = self.points[-1]
        separability = self._below(cut, best, last, SEPARABILITY)
        rank = self._below(cut, best, last, EFFECTIVE_RANK) or self.status[-1] == "collapsed"
        if separability and rank:
            return "both"
        return "separability" if separability else "effective_rank" if rank else "neither"

    def margin(
        self, cut: int, change: Estimate, combination: Combination, level: float | None = None
    ) -> float:
        """How large a fall noise explains: of the images, and of the run's wobble before ``cut``.

        At the level that all looks of a run of any length share, unless one is given. Infinite
        where too few points tell how the run wobbles.
        """
        count = self._counts[cut]
        if count < LEAST_POINTS:
            return math.inf
        if level is None:
            looks = cut + self._settings.patience
            level = 1 - self._settings.false_alarm_rate / (looks * (looks + 1))
        # Second differences overlap: they count as half as many.
        freedom = (count - 2) // 2
        error = change.standard_error
        variance = 2 * self._wobble(combination)[count] ** 2
        if error is None:
            return student_quantile(level, freedom) * math.sqrt(variance)
        variance = (freedom * variance + PRIOR * error**2) / (freedom + PRIOR)
        wobble = student_quantile(level, freedom + PRIOR) * math.sqrt(variance)
        return math.hypot(wobble, student_quantile(level, len(change.replicates) - 1) * error)

    def _wobble(self, combination: Combination) -> list[float]:
        if combination not in self._wobbles:
            self._wobbles[combination] = _wobbles(
                [combination.value(point) for point in self._sound]
            )
        return self._wobbles[combination]

    def _fallen(self, cut: int, best: DensePoint, index: int) -> bool:
        """Whether a point is without numbers, or a part and the sum fell and DSE did not rise.

        DSE has lambda of the run before: the rate at which it has exchanged one part for the
        other.
        """
        if self.status[index] != "fine":
            return True
        point, total = self.points[index], self.total(cut)
        if total is None or not self._below(cut, best, point, total):
            return False
        if not any(self._below(cut, best, point, part) for part in (SEPARABILITY, EFFECTIVE_RANK)):
            return False
        weighted = self.dse(cut) or total
        change = weighted.change(best, point)
        return change.value <= self.margin(cut, change, weighted, PLAIN_LEVEL)

    def _below(
        self, cut: int, best: DensePoint, point: DensePoint, combination: Combination
    ) -> bool:
        fall = combination.value(best) - combination.value(point)
        rounding = ROUNDING * max(abs(combination.value(best)), abs(combination.value(point)))
        if not fall > rounding or self._counts[cut] < LEAST_POINTS:
            return False
        return fall > self.margin(cut, combination.change(best, point), combination)


def _statuses(points: Sequence[DensePoint], collapse_fraction: float) -> tuple[Status, ...]:
    statuses: list[Status] = []
    highest = 0.0
    for point in points:
        if not point.is_finite:
            statuses.append("not finite")
        elif point.effective_rank.value < collapse_fraction * highest:
            statuses.append("collapsed")
        else:
            statuses.append("fine")
            highest = max(highest, point.effective_rank.value)
    return tuple(statuses)


def _leaders(values: Sequence[float]) -> list[int]:
    """Position of the highest value so far; of equal ones the first."""
    leaders: list[int] = []
    for i, value in enumerate(values):
        leaders.append(leaders[-1] if i and value <= values[leaders[-1]] else i)
    return leaders


def _wobbles(values: Sequence[float]) -> list[float]:
    """For every number of first values, the scatter around straight lines, of the worst lag."""
    worst = [0.0] * (len(values) + 1)
    for lag in LAGS:
        ordered: list[float] = []
        for i in range(len(values) - 2 * lag):
            insort(ordered, abs(values[i] - 2 * values[i + lag] + values[i + 2 * lag]))
            if len(ordered) >= DIFFERENCES_PER_LAG * lag:
                kept = ordered[: math.ceil(KEPT * len(ordered))]
                end = i + 2 * lag + 1
                worst[end] = max(worst[end], TO_SCATTER * math.fsum(kept) / len(kept))
    return worst
