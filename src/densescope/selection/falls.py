"""Which readings of a run have fallen below a better one before them, by more than noise."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from densescope.estimate import Estimate, student_quantile
from densescope.selection.parts import weighted_sum
from densescope.selection.reading import AlarmSettings, Reading
from densescope.selection.result import Part
from densescope.selection.weight import run_lambda

LAGS = (1, 2, 4, 8)  # readings between those compared: a slow wobble shows at long ones only
DIFFERENCES_PER_LAG = 4  # times the lag: so many must be there before a lag counts
LEAST_READINGS = 2 + DIFFERENCES_PER_LAG  # before a plain fall
PLAIN_LEVEL = 0.95  # of a rise, which is evidence against an alarm: one look is enough
ROUNDING = 1e-9  # of the larger value: below it a fall is rounding
KEPT = 0.75  # of the differences, the smallest: a bend of the curve makes a few large ones
# A normal scatter s around a straight line has second differences of standard deviation
# s * sqrt(6); the smallest three quarters of them have the mean size 0.515 of that.
TO_SCATTER = 1 / 0.515 / math.sqrt(6)
# Readings of a short run say little of its wobble. It is taken to be like the noise of the images
# with the weight of so many of them (a moderated t statistic).
PRIOR = 4
Status = Literal["fine", "collapsed", "not finite"]


@dataclass(frozen=True)
class View:
    """A linear combination of the separability and the effective rank of a reading."""

    of_separability: float
    of_effective_rank: float

    def value(self, reading: Reading) -> float:
        """That number of one reading."""
        return (
            self.of_separability * reading.separability.value
            + self.of_effective_rank * reading.effective_rank.value
        )

    def change(self, first: Reading, second: Reading) -> Estimate:
        """Second minus first, block by block."""
        if self.of_separability == 0:
            return second.effective_rank.minus(first.effective_rank)
        separability = second.separability.minus(first.separability)
        return weighted_sum(
            separability, second.effective_rank.minus(first.effective_rank), self.of_effective_rank
        )


SEPARABILITY = View(1.0, 0.0)
EFFECTIVE_RANK = View(0.0, 1.0)
EQUAL = View(1.0, 1.0)  # the released definition's own lambda


class History:
    """The readings of a run, and for every prefix its best ones and its wobble.

    Attributes:
        readings: in order of step.
        status: of each reading.
    """

    def __init__(self, readings: Sequence[Reading], settings: AlarmSettings) -> None:
        self.readings = tuple(readings)
        self.status = _statuses(readings, settings.collapse_fraction)
        self._settings = settings
        self._is_released = settings.definition == "released"
        fine = [status == "fine" for status in self.status]
        self._sound = [reading for reading, whole in zip(readings, fine, strict=True) if whole]
        self._counts = [0, *accumulate(fine)]
        self._views = (SEPARABILITY, EFFECTIVE_RANK, *([EQUAL] if self._is_released else []))
        values = {view: [view.value(reading) for reading in self._sound] for view in self._views}
        self._leaders = {view: _leaders(numbers) for view, numbers in values.items()}
        self._wobbles: dict[View, list[float]] = {}
        self._weighted: dict[int, View | None] = {}

    def weighted(self, cut: int) -> View | None:
        """DSE at the lambda that the run had before ``cut``; ``None`` where it is not defined."""
        count = self._counts[cut]
        if count not in self._weighted:
            sound = self._sound[:count]
            lambda_, _ = run_lambda(
                [reading.separability.value for reading in sound],
                [reading.effective_rank.value for reading in sound],
                definition=self._settings.definition,
            )
            view = None if lambda_ is None else View(1.0, lambda_)
            self._weighted[count] = view
        return self._weighted[count]

    def total(self, cut: int) -> View | None:
        """The sum by which a fall is told: both parts alike, or the paper's DSE where defined."""
        return EQUAL if self._is_released else self.weighted(cut)

    def fallen_from(self, cut: int) -> Reading | None:
        """The best sound reading before ``cut`` below which all from ``cut`` on have fallen.

        Compared are the highest before the cut of each part and of their sum; of those below which
        all fell, the one of highest DSE is named. ``None`` where there is none.
        """
        count = self._counts[cut]
        if count == 0:
            return None
        leaders = sorted({leaders[count - 1] for leaders in self._leaders.values()})
        tail = range(len(self.readings) - 1, cut - 1, -1)
        below = [
            self._sound[i]
            for i in leaders
            if all(self._fallen(cut, self._sound[i], index) for index in tail)
        ]
        if not below:
            return None
        dse = self.weighted(cut) or SEPARABILITY
        return max(below, key=dse.value)

    def fell(self, cut: int, best: Reading) -> Part:
        """The parts of the last reading that are below the best one's by more than noise."""
        last = self.readings[-1]
        separability = self._below(cut, best, last, SEPARABILITY)
        effective_rank = (
            self._below(cut, best, last, EFFECTIVE_RANK) or self.status[-1] == "collapsed"
        )
        if separability and effective_rank:
            return "both"
        return "separability" if separability else "effective_rank" if effective_rank else "neither"

    def margin(self, cut: int, change: Estimate, view: View, level: float | None = None) -> float:
        """How large a fall noise explains: of the images, and of the run's wobble before ``cut``.

        At the level that all looks of a run of any length share, unless one is given. Infinite
        where too few readings tell how the run wobbles.
        """
        count = self._counts[cut]
        if count < LEAST_READINGS:
            return math.inf
        if level is None:
            looks = cut + self._settings.patience
            level = 1 - self._settings.false_alarm_rate / (looks * (looks + 1))
        # Second differences overlap: they count as half as many.
        freedom = (count - 2) // 2
        error = change.standard_error
        variance = 2 * self._wobble(view)[count] ** 2
        if error is None:
            return _quantile(level, freedom) * math.sqrt(variance)
        variance = (freedom * variance + PRIOR * error**2) / (freedom + PRIOR)
        wobble = _quantile(level, freedom + PRIOR) * math.sqrt(variance)
        return math.hypot(wobble, _quantile(level, len(change.replicates) - 1) * error)

    def _wobble(self, view: View) -> list[float]:
        if view not in self._wobbles:
            self._wobbles[view] = _wobbles([view.value(reading) for reading in self._sound])
        return self._wobbles[view]

    def _fallen(self, cut: int, best: Reading, index: int) -> bool:
        """Whether a reading is without numbers, or a part and the sum fell and DSE did not rise.

        DSE is that at the lambda the run had before: the rate at which it has exchanged one
        part for the other.
        """
        if self.status[index] != "fine":
            return True
        reading, total = self.readings[index], self.total(cut)
        if total is None or not self._below(cut, best, reading, total):
            return False
        if not any(
            self._below(cut, best, reading, part) for part in (SEPARABILITY, EFFECTIVE_RANK)
        ):
            return False
        weighted = self.weighted(cut) or total
        change = weighted.change(best, reading)
        return change.value <= self.margin(cut, change, weighted, PLAIN_LEVEL)

    def _below(self, cut: int, best: Reading, reading: Reading, view: View) -> bool:
        fall = view.value(best) - view.value(reading)
        rounding = ROUNDING * max(abs(view.value(best)), abs(view.value(reading)))
        if not fall > rounding or self._counts[cut] < LEAST_READINGS:
            return False
        return fall > self.margin(cut, view.change(best, reading), view)


def _statuses(readings: Sequence[Reading], collapse_fraction: float) -> tuple[Status, ...]:
    statuses: list[Status] = []
    highest = 0.0
    for reading in readings:
        if not reading.is_finite:
            statuses.append("not finite")
        elif reading.effective_rank.value < collapse_fraction * highest:
            statuses.append("collapsed")
        else:
            statuses.append("fine")
            highest = max(highest, reading.effective_rank.value)
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


@lru_cache(maxsize=4096)
def _quantile(level: float, degrees_of_freedom: int) -> float:
    return student_quantile(level, degrees_of_freedom)
