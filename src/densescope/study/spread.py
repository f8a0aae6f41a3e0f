"""The mean of a number over runs, with Student's interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from densescope.estimate import student_quantile


@dataclass(frozen=True)
class Spread:
    """The mean of a number over runs, and what their scatter says of it.

    Attributes:
        value: the mean.
        runs: how many.
        half: half of Student's 95 % interval; ``None`` for one run.
    """

    value: float
    runs: int
    half: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Of the finite values; ``None`` without any."""
        known = [value for value in values if math.isfinite(value)]
        if not known:
            return None
        half = None
        if len(known) > 1:
            error = statistics.stdev(known) / math.sqrt(len(known))
            half = student_quantile(0.95, len(known) - 1) * error
        return cls(statistics.fmean(known), len(known), half)

    def text(self, scale: float = 1.0, digits: int = 2, *, sign: bool = False) -> str:
        """``12.30 +- 0.40``."""
        value = f"{scale * self.value:{'+' if sign else ''}.{digits}f}"
        return value if self.half is None else f"{value} ± {scale * self.half:.{digits}f}"
