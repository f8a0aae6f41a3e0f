"""Correlation and regret of a probed run as the rows of two tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from densescope.correlation.kendall import LEAST_FOR_INTERVAL
from densescope.correlation.paper import paper_tau
from densescope.correlation.tau import too_few
from densescope.evaluation.measures import Measure
from densescope.metrics.lambdas import dse_name
from densescope.report.values import MISSING, ShownValue, decimals_for, plain_value

if TYPE_CHECKING:
    from densescope.correlation import Correlation, CorrelationRow, RegretRow, RegretTable


@dataclass(frozen=True)
class TauLine:
    """One row of the correlation table; the places are from 0 (tau -1) to 100 (tau 1)."""

    title: str
    checkpoints: int
    tau: str
    interval: str
    paper: str
    note: int | None
    is_own: bool
    place: float | None
    low: float | None
    high: float | None
    paper_place: float | None


@dataclass(frozen=True)
class ChoiceLine:
    """One row of the regret table."""

    title: str
    name: str | None
    value: str
    regret: str
    gain: str
    seconds: str
    note: str
    is_own: bool


def tau_lines(
    correlation: Correlation, definition: str
) -> tuple[tuple[TauLine, ...], tuple[str, ...]]:
    """The table, and the notes its rows refer to; without any tau that means something, why."""
    if len(correlation.checkpoints) < LEAST_FOR_INTERVAL:
        return (), (too_few(correlation),)
    rows = (correlation.clock, *correlation.rows)
    notes = tuple(dict.fromkeys(row.note for row in rows if row.note))
    if all(row.tau is None for row in correlation.rows):
        return (), notes
    return tuple(_tau(row, notes, definition) for row in rows), notes


def _tau(row: CorrelationRow, notes: Sequence[str], definition: str) -> TauLine:
    tau = None if row.tau is None else row.tau.value
    low, high = row.interval or (None, None)
    paper = paper_tau(row.number).get("mean")
    return TauLine(
        title=row.title,
        checkpoints=row.checkpoints,
        tau=MISSING if tau is None else signed_number(tau, 2),
        interval=MISSING
        if low is None
        else f"{signed_number(low, 2)} to {signed_number(high or 0, 2)}",
        paper="" if paper is None else signed_number(paper, 2),
        note=notes.index(row.note) + 1 if row.note else None,
        is_own=row.number == dse_name(definition),
        place=_place(tau),
        low=_place(low),
        high=_place(high),
        paper_place=_place(paper),
    )


def _place(tau: float | None) -> float | None:
    return None if tau is None else round(50 + 50 * tau, 1)


def choice_lines(regret: RegretTable, measure: Measure, definition: str) -> tuple[ChoiceLine, ...]:
    """The rows of the regret table, with the decimals that tell the choices apart."""
    known = [row.regret for row in regret.shown if row.regret is not None]
    decimals = decimals_for(measure.scale * value for value in known)
    return tuple(_choice(row, measure, decimals, definition) for row in regret.shown)


def _choice(row: RegretRow, measure: Measure, decimals: int, definition: str) -> ChoiceLine:
    scale = measure.scale
    regret = MISSING
    if row.regret is not None:
        half = None if row.error is None else scale * row.error
        regret = ShownValue(scale * row.regret, half).text(decimals)
    return ChoiceLine(
        title=row.title,
        name=row.name,
        value=MISSING if row.value is None else plain_value(scale * row.value, decimals),
        regret=regret,
        gain=MISSING if row.gain is None else signed_number(scale * row.gain, decimals),
        seconds=MISSING if row.seconds is None else f"{row.seconds:,.0f}",
        note=row.note or "",
        is_own=row.way == f"{definition}.pick",
    )


def signed_number(value: float, decimals: int) -> str:
    """A number with its sign; what rounds to zero has none.

    Example:
        >>> signed_number(0.5, 2), signed_number(-0.25, 2), signed_number(0.001, 2)
        ('+0.50', '−0.25', '0.00')
    """
    text = plain_value(value, decimals)
    return f"+{text}" if value > 0 and text.strip("0.") else text
