"""What one look at the model came to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from densescope.errors import DensescopeError
from densescope.estimate import Estimate
from densescope.monitoring.reading import PREFIX, DenseReading
from densescope.selection.alarm import Alarm
from densescope.selection.words import parts_line


@dataclass(frozen=True)
class Observation:
    """One look at the model; the same on every rank.

    Attributes:
        step: where the run was.
        reading: the numbers; ``None`` where they could not be had.
        alarm: what is wrong with the run as of this step, or ``None``.
        problems: sentences about what failed; the training went on.
        numbers: name -> value as it was logged; empty where there is no reading.
        name: of the record: of the checkpoint file with this state, or ``step 15``.
    """

    step: int
    reading: DenseReading | None
    alarm: Alarm | None = None
    problems: tuple[str, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)
    name: str = ""

    def __str__(self) -> str:
        """One line: name, separability, effective rank and DSE with half their 95 % intervals."""
        said = [] if self.reading is None else [parts_line(self._last_layer(self.reading))]
        said += self.problems
        said += [] if self.alarm is None else [self.alarm.sentence]
        return f"{self.name or self.step}: {'; '.join(said)}"

    def _last_layer(self, reading: DenseReading) -> Mapping[str, Estimate]:
        return reading.scores[list(reading.scores)[-1]]

    @property
    def for_checkpoints(self) -> dict[str, float]:
        """The numbers, or NaN for DSE after a failed look: those who keep the best wait for it."""
        return self.numbers or {f"{PREFIX}dse": math.nan}


class TrainingStopped(DensescopeError):
    """Raised on every rank by a monitor that was asked to stop the training on an alarm.

    Attributes:
        observation: the look that led to it, with its alarm.
    """

    def __init__(self, observation: Observation) -> None:
        assert observation.alarm is not None
        super().__init__(observation.alarm.sentence)
        self.observation = observation
