"""Which readings of a run have fallen below the best before them, by more than noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from densescope.estimate import Estimate, student_quantile
from densescope.selection.parts import weighted_sum
from densescope.selection.reading import AlarmSettings, Reading
from densescope.selection.result import Part

LEAST_READINGS = 5  # before a plain fall: fewer say too little of how the run wobbles
LAGS = (1, 2, 4)  # readings between those compared; a slow wobble shows at the longer ones only
ROUNDING = 1e-9  # of the larger value: below it a fall is rounding
# A normal scatter s around a straight line gives second differences of mean size
# s * sqrt(6) * sqrt(2 / pi).
TO_SCATTER = math.sqrt(math.pi / 2) / math.sqrt(6)
Status = Literal["fine", "collapsed", "not finite"]


@dataclass(frozen=True)
class View:
    """One number of a reading: ``of_separability * separability + of_dim * dim``."""

    of_separability: float
    of_dim: float

    def value(self, reading: Reading) -> float:
        """That number of one reading."""
        return self.of_separability * reading.separability.value + self.of_dim * reading.dim.value

    def change(self, first: Reading, second: Reading) -> Estimate:
        """Second minus first, block by block."""
        if self.of_separability == 0:
            return second.dim.minus(first.dim)
        separability = second.separability.minus(first.separability)
        return weighted_sum(separability, second.dim.minus(first.dim), self.of_dim)


SEPARABILITY = View(1.0, 0.0)
DIMENSION = View(0.0, 1.0)
EQUAL = View(1.0, 1.0)  # the released definition's own weight


class History:
    """The readings of a run, and for every prefix its best one and its wobble.

    Attributes:
        readings: in order of step.
        weight: lambda of the run.
        weighted: the view that is DSE at that weight.
        status: of each reading.
    """

    def __init__(self, readings: Sequence[Reading], weight: float, settings: AlarmSettings) -> None:
        self.readings = tuple(readings)
        self.weight = weight
        self.weighted = View(1.0, weight)
        self.status = _statuses(readings, settings.collapse_fraction)
        self._settings = settings
        released = settings.definition == "released"
        self._sums = (self.weighted, EQUAL) if released else (self.weighted,)
        fine = [status == "fine" for status in self.status]
        self._healthy = [reading for reading, sound in zip(readings, fine, strict=True) if sound]
        self._counts = [0, *accumulate(fine)]
        self._best = _leaders([self.weighted.value(reading) for reading in self._healthy])
        self._wobbles = {
            view: _wobbles([view.value(reading) for reading in self._healthy])
            for view in {*self._sums, SEPARABILITY, DIMENSION}
        }

    def best(self, cut: int) -> Reading:
        """The reading of highest DSE among the sound ones before ``cut``."""
        return self._healthy[self._best[self._counts[cut] - 1]]

    def all_fallen_from(self, cut: int) -> bool:
        """Whether no reading from ``cut`` on is as good as the best one before it."""
        if self._counts[cut] == 0:
            return False
        return all(self._fallen(cut, index) for index in reversed(range(cut, len(self.readings))))

    def fell(self, cut: int) -> Part:
        """The parts of the last reading that are below the best one's by more than noise."""
        separability = self._below(cut, self.readings[-1], SEPARABILITY)
        dim = self._below(cut, self.readings[-1], DIMENSION) or self.status[-1] == "collapsed"
        if separability and dim:
            return "both"
        return "separability" if separability else "dimension" if dim else "neither"

    def margin(self, cut: int, change: Estimate, view: View) -> float:
        """How large a fall noise explains: of the images, and of the run's wobble before ``cut``.

        Infinite where too few readings tell how the run wobbles.
        """
        count = self._counts[cut]
        if count < LEAST_READINGS:
            return math.inf
        looks = cut + self._settings.patience
        level = 1 - 2 * self._settings.false_alarm_rate / (looks * (looks + 1))
        wobble = student_quantile(level, count - 2) * math.sqrt(2) * self._wobbles[view][count]
        error = change.standard_error
        if error is None:
            return wobble
        return math.hypot(wobble, student_quantile(level, len(change.replicates) - 1) * error)

    def _fallen(self, cut: int, index: int) -> bool:
        if self.status[index] != "fine":
            return True
        reading = self.readings[index]
        return all(self._below(cut, reading, view) for view in self._sums) and any(
            self._below(cut, reading, view) for view in (SEPARABILITY, DIMENSION)
        )

    def _below(self, cut: int, reading: Reading, view: View) -> bool:
        best = self.best(cut)
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
        elif reading.dim.value < collapse_fraction * highest:
            statuses.append("collapsed")
        else:
            statuses.append("fine")
            highest = max(highest, reading.dim.value)
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
        sizes = [
            abs(values[i] - 2 * values[i + lag] + values[i + 2 * lag])
            for i in range(len(values) - 2 * lag)
        ]
        for count, total in enumerate(accumulate(sizes), start=1):
            if count >= LEAST_READINGS - 2:
                end = count + 2 * lag
                worst[end] = max(worst[end], total / count * TO_SCATTER)
    return worst
