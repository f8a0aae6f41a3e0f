"""The label-free numbers of a run: one curve per number over its scored checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection import select_checkpoints
from densescope.selection.weight import DEFINITIONS

Better = Literal["higher", "lower", "near 1"]


@dataclass(frozen=True)
class Number:
    """A label-free number.

    Attributes:
        name: as in the records, or ``"released.separability"``, ``"released.dse"`` and so on.
        title: for people.
        better: which way it is held to be good; choices follow it, Kendall's tau does not.
    """

    name: str
    title: str
    better: Better = "higher"

    def badness(self, value: float) -> float:
        """Low for a value that is held to be good."""
        if self.better == "near 1":
            return abs(value - 1)
        return -value if self.better == "higher" else value


_PARTS: tuple[tuple[str, str, Better], ...] = (
    ("dse", "DSE", "higher"),
    ("separability", "separability", "higher"),
    ("effective_rank", "effective rank", "higher"),
    ("inter", "M_inter", "higher"),
    ("intra", "M_intra", "lower"),
)
BASELINES = (
    Number("dense_rankme", "dense RankMe"),
    Number("rankme", "RankMe"),
    Number("alpha_req", "alpha-ReQ", "near 1"),
    Number("lidar", "LiDAR"),
    Number("outlier_fraction", "outlier patches", "lower"),
)
NUMBERS: dict[str, Number] = {
    number.name: number
    for number in (
        *(
            Number(f"{definition}.{part}", f"{title} ({definition})", better)
            for definition in DEFINITIONS
            for part, title, better in _PARTS
        ),
        *BASELINES,
    )
}


@dataclass(frozen=True)
class Curve:
    """One number over the checkpoints of a run.

    Attributes:
        number: row of ``NUMBERS``.
        estimates: checkpoint -> number, finite ones only, in order of step.
        reason: why there are none, else ``None``.
    """

    number: Number
    estimates: Mapping[str, Estimate]
    reason: str | None = None


def curves_of_run(scored: Sequence[ScoreRecord], layer: int) -> dict[str, Curve]:
    """Every row of ``NUMBERS`` over the scored checkpoints of one run.

    DSE and separability are those of :func:`~densescope.selection.select_checkpoints`: the lambda
    is taken over all scored checkpoints, also those without a probe.
    """
    curves: dict[str, Curve] = {}
    for definition in DEFINITIONS:
        curves.update(_structure(scored, definition, layer))
    for number in NUMBERS.values():
        if number.name not in curves:
            curves[number.name] = _stored(scored, number, layer)
    return {name: curves[name] for name in NUMBERS}


def _structure(scored: Sequence[ScoreRecord], definition: str, layer: int) -> dict[str, Curve]:
    """DSE and separability of a definition, which no record holds by itself."""
    names = [f"{definition}.dse", f"{definition}.separability"]
    if not any(f"{definition}.inter" in record.scores.get(str(layer), {}) for record in scored):
        absent = f"{definition}.inter was not scored at layer {layer}"
        return {name: Curve(NUMBERS[name], {}, absent) for name in names}
    selection = select_checkpoints(scored, definition=definition, layer=layer)
    dse = {row.name: row.dse for row in selection.rows if row.dse is not None}
    reason = None if dse else selection.lambda_note
    separability = {row.name: row.separability for row in selection.rows}
    return {
        names[0]: Curve(NUMBERS[names[0]], dse, reason),
        names[1]: Curve(NUMBERS[names[1]], separability),
    }


def _stored(scored: Sequence[ScoreRecord], number: Number, layer: int) -> Curve:
    found = {
        record.name: estimate
        for record in scored
        if (estimate := record.scores.get(str(layer), {}).get(number.name)) is not None
        and math.isfinite(estimate.value)
    }
    reason = None if found else f"{number.name} was not scored at layer {layer}"
    return Curve(number, found, reason)
