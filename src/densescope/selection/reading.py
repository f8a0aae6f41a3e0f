"""What the alarm reads of each checkpoint, and when a fall counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from densescope.errors import NOT_FINITE, InputError
from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection.parts import parts_of
from densescope.selection.weight import DEFINITIONS


@dataclass(frozen=True)
class Reading:
    """What one checkpoint of a run says of dense structure.

    Attributes:
        name: of the checkpoint.
        step: its position in the run, in ``unit``.
        separability: ``M_inter - M_intra``; NaN where the features have none.
        effective_rank: ``M_dim``, not multiplied by lambda; NaN where the features have none.
        unit: ``"epoch"`` or ``"step"``.
    """

    name: str
    step: int
    separability: Estimate
    effective_rank: Estimate
    unit: str = "step"

    @property
    def is_finite(self) -> bool:
        """Whether both numbers are there."""
        return math.isfinite(self.separability.value) and math.isfinite(self.effective_rank.value)


@dataclass(frozen=True)
class AlarmSettings:
    """When a fall counts; ``docs/how-to/watching.md`` has what each choice costs.

    Attributes:
        definition: ``"released"`` or ``"paper"``; of ``"paper"`` only the run's own lambda counts.
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
        if self.definition not in DEFINITIONS:
            raise InputError(
                f"definition is {self.definition!r}; it must be one of {', '.join(DEFINITIONS)}"
            )
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


def readings_of(
    records: Sequence[ScoreRecord], *, definition: str = "released", layer: int = -1
) -> list[Reading]:
    """Readings of the scored checkpoints, and of those whose features or weights are not finite.

    Checkpoints that failed for another reason say nothing about the run and are left out.

    Raises:
        RecordError: a definition or layer that was not scored.
    """
    readings = []
    for record in records:
        if record.status == "scored":
            parts = parts_of(record, definition, layer)
        elif NOT_FINITE in str(record.error):
            parts = (Estimate(math.nan), Estimate(math.nan))
        else:
            continue
        readings.append(Reading(record.name, record.step, *parts, unit=record.unit))
    return readings
