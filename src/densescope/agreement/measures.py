"""Which way the measure of a labelled probe is good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from densescope.errors import RecordError


@dataclass(frozen=True)
class Measure:
    """What a probe reports.

    Attributes:
        name: as in :class:`~densescope.records.ProbeRecord`.
        better: which way it is good.
    """

    name: str
    better: Literal["higher", "lower"]

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is: times it, higher is always better."""
        return 1 if self.better == "higher" else -1


MEASURES: dict[str, Measure] = {
    row.name: row
    for row in (
        Measure("miou", "higher"),
        Measure("accuracy", "higher"),
        Measure("pixel_accuracy", "higher"),
        Measure("delta_1", "higher"),
        Measure("rmse", "lower"),
    )
}


def find_measure(name: str) -> Measure:
    """The row of ``MEASURES``.

    Raises:
        RecordError: it is not known which way this measure is good.
    """
    if name not in MEASURES:
        raise RecordError(
            f"it is not known whether a higher {name!r} is better; known measures are "
            f"{', '.join(MEASURES)}: add a row to MEASURES"
        )
    return MEASURES[name]
