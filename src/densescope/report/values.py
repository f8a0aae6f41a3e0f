"""Numbers as the page shows them: value, interval, and the decimals worth value."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from densescope.estimate import Estimate
from densescope.metrics import Metric

LEVEL = 0.95
MISSING = "–"
NOT_FINITE = "not finite"


@dataclass(frozen=True)
class ShownValue:
    """One number of one checkpoint.

    Attributes:
        value: the number; NaN or infinite where the stored one is.
        half: half the width of its interval, or ``None``.
        seed_spread: standard deviation over clustering seeds, or ``None``.
        note: a warning that travels with the number, or ``None``.

    Example:
        >>> ShownValue(-1.25, 0.031).text(2)
        '−1.25 ± 0.03'
    """

    value: float
    half: float | None = None
    seed_spread: float | None = None
    note: str | None = None

    @classmethod
    def of(cls, estimate: Estimate | None, level: float = LEVEL) -> ShownValue | None:
        """What the page shows of an estimate; ``None`` stays ``None``."""
        if estimate is None:
            return None
        interval = estimate.interval(level)
        half = None if interval is None else (interval[1] - interval[0]) / 2
        if half is None or not math.isfinite(half):
            half = None
        return cls(estimate.value, half, estimate.seed_spread, estimate.note)

    @property
    def finite(self) -> bool:
        """Whether there is a number to draw."""
        return math.isfinite(self.value)

    @property
    def low(self) -> float | None:
        """Lower end of the interval, or ``None``."""
        return None if self.half is None else self.value - self.half

    @property
    def high(self) -> float | None:
        """Upper end of the interval, or ``None``."""
        return None if self.half is None else self.value + self.half

    def number(self, decimals: int) -> str:
        """The value alone."""
        return plain_value(self.value, decimals) if self.finite else NOT_FINITE

    def text(self, decimals: int) -> str:
        """The value and, where known, half its interval."""
        if self.half is None or not self.finite:
            return self.number(decimals)
        return f"{plain_value(self.value, decimals)} ± {plain_value(self.half, decimals)}"

    def change(self, decimals: int) -> str:
        """The value with its sign and, where known, its interval in brackets."""
        if not self.finite:
            return NOT_FINITE
        sign = "+" if self.value > 0 else ""
        text = sign + plain_value(self.value, decimals)
        if self.low is None or self.high is None:
            return text
        low, high = plain_value(self.low, decimals), plain_value(self.high, decimals)
        return f"{text} [{low},\N{NO-BREAK SPACE}{high}]"


@dataclass(frozen=True)
class Heading:
    """What a series of numbers is called and how it is read.

    Attributes:
        key: its name in the records.
        title: its name on the page.
        axis: the axis title, with the unit.
        about: one sentence on how to read it.
    """

    key: str
    title: str
    axis: str
    about: str = ""

    @classmethod
    def of(cls, metric: Metric, title: str = "") -> Heading:
        """That of a metric.

        Args:
            metric: row of ``METRICS``.
            title: in place of its own.
        """
        own = metric.short[:1].upper() + metric.short[1:]
        about = f"{metric.summary} {metric.direction}"
        return cls(metric.name, title or own, metric.unit, about)


@dataclass(frozen=True)
class Curve:
    """One series over the checkpoints of a run, in their order; ``None`` where there is none."""

    heading: Heading
    values: tuple[ShownValue | None, ...]

    @functools.cached_property
    def decimals(self) -> int:
        """Decimals that show three digits of the differences within this series.

        Fewer where the surest of its numbers has an error that needs fewer to show two digits.
        """
        shown = [r for r in self.values if r is not None and r.finite]
        halves = [r.half for r in shown if r.half]
        most = decimals_for(r.value for r in shown)
        return min(most, decimals_of_error(min(halves))) if halves else most

    @property
    def empty(self) -> bool:
        """Whether no checkpoint has a finite number here."""
        return not any(value is not None and value.finite for value in self.values)


def decimals_for(values: Iterable[float]) -> int:
    """Decimals that show three digits of the range of some values, or of a lone value.

    Example:
        >>> decimals_for([212.0, 348.0]), decimals_for([0.61, 0.64]), decimals_for([])
        (0, 4, 3)
    """
    numbers = list(values)
    if not numbers:
        return 3
    spread = max(numbers) - min(numbers) or abs(numbers[0])
    if not spread or not math.isfinite(spread):
        return 3
    return min(6, max(0, 2 - math.floor(math.log10(spread))))


def decimals_of_error(half: float) -> int:
    """Decimals that show two digits of an error above 0.

    Example:
        >>> decimals_of_error(0.75743), decimals_of_error(0.0031), decimals_of_error(40.0)
        (2, 4, 0)
    """
    return min(6, max(0, 1 - math.floor(math.log10(half))))


def plain_value(value: float, decimals: int) -> str:
    """A number in digits with a true minus sign; very large ones in scientific notation."""
    text = f"{value:.3g}" if abs(value) >= 1e7 else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")
