"""What one look at the model came to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from densescope.errors import DensescopeError
from densescope.monitoring.reading import PREFIX, DenseReading
from densescope.selection.alarm import Alarm

_SHOWN = ("inter", "intra", "dim", "dse")


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
        """One line: name, separability, dimension and DSE with its standard error."""
        said = [self._line()] if self.numbers else []
        said += self.problems
        said += [] if self.alarm is None else [self.alarm.sentence]
        return f"{self.name or self.step}: {'; '.join(said)}"

    def _line(self) -> str:
        inter, intra, dim, dse = (self.numbers[f"{PREFIX}{name}"] for name in _SHOWN)
        error = self.numbers.get(f"{PREFIX}dse_error")
        doubt = "" if error is None else f" ± {error:.3f}"
        return f"separability {inter - intra:.3f}, dim {dim:.3f}, DSE {dse:.3f}{doubt}"

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
