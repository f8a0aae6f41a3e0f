"""What labelled probes report: which way it is good, and how its values are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from densescope.errors import RecordError


@dataclass(frozen=True)
class Measure:
    """What a probe reports.

    Attributes:
        name: as in :class:`~densescope.records.ProbeRecord`.
        better: which way it is good; ``None`` where that is not known.
        title: its name in tables and sentences.
        unit: of a value as it is shown.
        difference: unit of a difference.
        scale: what a recorded value is multiplied by to be shown.
    """

    name: str
    better: Literal["higher", "lower"] | None
    title: str
    unit: str = "%"
    difference: str = "points"
    scale: int = 100

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is: times it, higher is always better."""
        return -1 if self.better == "lower" else 1

    def number(self, value: float, digits: int = 2) -> str:
        """A recorded value as it is shown, without its unit.

        Example:
            >>> MEASURES["miou"].number(0.21043), MEASURES["rmse"].number(0.5)
            ('21.04', '0.50')
        """
        return f"{self.scale * value:.{digits}f}"

    def text(self, value: float) -> str:
        """A recorded value with its unit."""
        return f"{self.number(value)} {self.unit}"


MEASURES: dict[str, Measure] = {
    row.name: row
    for row in (
        Measure("miou", "higher", "mIoU"),
        Measure("accuracy", "higher", "accuracy"),
        Measure("pixel_accuracy", "higher", "pixel accuracy"),
        Measure("delta_1", "higher", "δ₁"),
        Measure("rmse", "lower", "RMSE", "m", "m", 1),
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


def measure_of(name: str) -> Measure:
    """The row of a measure; one that is not known is shown as recorded.

    Example:
        >>> measure_of("own").text(0.5)
        '0.50 '
    """
    return MEASURES.get(name) or Measure(name, None, name, "", "", 1)
