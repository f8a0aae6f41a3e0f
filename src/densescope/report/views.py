"""The run seen through one definition of DSE: curves, marks, and what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from densescope.estimate import Estimate
from densescope.metrics import METRICS
from densescope.metrics.lambdas import dse_name
from densescope.records import ScoreRecord
from densescope.report.values import (
    LEVEL,
    Curve,
    Heading,
    ShownValue,
    decimals_for,
    decimals_of_error,
)

if TYPE_CHECKING:
    from densescope.selection import Selection, SelectionRow
from densescope.selection.change import is_beyond_noise
from densescope.selection.headline import answer, headline

NOTHING_SCORED = "No checkpoint has a score to choose by; the table says why."
NOT_FINITE_SCORE = "left out of the choice: a part of its DSE is not finite"


@dataclass(frozen=True)
class Checkpoint:
    """One row of the table: who it is and what the selection made of it.

    Attributes:
        name: its file name.
        step: its position in the run, in ``unit``.
        unit: what a step is.
        error: why it failed, else ``None``.
        left_out: why the selection left it out although it was scored, else ``None``.
        rank: 1 for the highest of the shortlist, ``None`` outside it.
        is_candidate: a local maximum of DSE.
        is_pick: the checkpoint to use.
        is_last: the last scored one.
        is_unscored_end: it comes after the last scored one.
        against_pick: ``"same weights"``, ``"within noise"``, ``"higher"`` or ``"lower"``; ``None``
            for the pick itself and without one.
        images: how many it was scored on, where its record says so.
    """

    name: str
    step: int
    unit: str
    error: str | None
    left_out: str | None = None
    rank: int | None = None
    is_candidate: bool = False
    is_pick: bool = False
    is_last: bool = False
    is_unscored_end: bool = False
    against_pick: str | None = None
    images: int | None = None

    @property
    def within_noise(self) -> bool:
        """Whether its DSE cannot be told from that of the pick."""
        return self.against_pick == "within noise"


@dataclass(frozen=True)
class PartChange:
    """One part of DSE at the pick, at the last checkpoint, and the paired difference."""

    curve: Curve
    pick: ShownValue
    last: ShownValue
    change: ShownValue
    moved: bool

    @property
    def decimals(self) -> int:
        """Those of the curve, or more: a paired difference is surer than either number."""
        half = self.change.half
        own = decimals_of_error(half) if half else decimals_for([self.change.value])
        return max(self.curve.decimals, own)


@dataclass(frozen=True)
class DefinitionPanel:
    """The run seen through one definition of DSE.

    Attributes:
        definition: row of ``DEFINITIONS``.
        layer: which layer's features; -1 is the last.
        lambda_: lambda as text, or ``None`` where it is not defined.
        lambda_note: a sentence about it, or ``None``.
        broken_end: what became of the run after its last scored checkpoint, in two or three
            words; empty where nothing is known to be wrong.
        verdict: the choice in words.
        lead: the same without the sentence that the heading of the page says already.
        answer: the headline of the choice: text, the name of a checkpoint or "", and text.
        level: confidence of the intervals, as text.
        dse: the sum; empty where it is not defined.
        separability: its first part.
        effective_rank: its second part.
        checkpoints: all of the run by step, the failed ones included.
        moved: what moved DSE from the pick to the last checkpoint, in words; ``None`` without a
            change.
        changes: separability, effective rank and DSE from the pick to the last checkpoint.
    """

    definition: str
    layer: int
    lambda_: str | None
    lambda_note: str | None
    broken_end: str
    verdict: str
    lead: str
    answer: tuple[str, str, str]
    level: str
    dse: Curve
    separability: Curve
    effective_rank: Curve
    checkpoints: tuple[Checkpoint, ...]
    moved: str | None
    changes: tuple[PartChange, ...]

    @property
    def pick(self) -> Checkpoint | None:
        """The picked checkpoint, if any."""
        return next((row for row in self.checkpoints if row.is_pick), None)

    @property
    def last(self) -> Checkpoint | None:
        """The last scored checkpoint, if any."""
        return next((row for row in self.checkpoints if row.is_last), None)

    @property
    def last_words(self) -> str:
        """``"last"``, or ``"last scored"`` where checkpoints without a score follow."""
        unscored = any(row.is_unscored_end for row in self.checkpoints)
        return "last scored" if unscored else "last"

    @property
    def shortlist(self) -> tuple[Checkpoint, ...]:
        """The shortlisted checkpoints, highest first."""
        ranked = (row for row in self.checkpoints if row.rank is not None)
        return tuple(sorted(ranked, key=lambda row: row.rank or 0))

    @property
    def images_differ(self) -> bool:
        """Whether some checkpoints were scored on more images than others."""
        return len({row.images for row in self.checkpoints if not row.error}) > 1

    @property
    def noise_known(self) -> bool:
        """Whether the DSE of the pick has an interval."""
        pick = self.pick
        number = self.dse.values[self.checkpoints.index(pick)] if pick else None
        return number is not None and number.half is not None


def build_view(records: Sequence[ScoreRecord], selection: Selection | None) -> DefinitionPanel:
    """What a selection says of the records of a run, which stand in order of step."""
    if selection is None:
        return _empty_view(records)
    rows = {row.name: row for row in selection.rows}
    ordered = [rows.get(record.name) for record in records]
    curves = {
        "dse": _curve(selection, "dse", [row.dse if row else None for row in ordered]),
        "separability": _curve(
            selection, "separability", [row.separability if row else None for row in ordered]
        ),
        "effective_rank": _curve(
            selection, "effective_rank", [row.effective_rank if row else None for row in ordered]
        ),
    }
    return DefinitionPanel(
        definition=selection.definition,
        layer=selection.layer,
        lambda_=None if selection.lambda_ is None else f"{selection.lambda_:.3g}",
        lambda_note=selection.lambda_note,
        broken_end=_broken_end(selection),
        verdict=selection.verdict,
        lead=_lead(selection),
        answer=answer(selection),
        level=f"{100 * selection.level:.4g}%",
        checkpoints=tuple(
            _checkpoint(record, row, selection)
            for record, row in zip(records, ordered, strict=True)
        ),
        moved=_moved(selection),
        changes=_changes(selection, curves, [record.name for record in records]),
        **curves,
    )


def _empty_view(records: Sequence[ScoreRecord]) -> DefinitionPanel:
    nothing: tuple[None, ...] = (None,) * len(records)
    dse, separability, rank = (
        Curve(Heading.of(METRICS[f"released.{part}"]), nothing)
        for part in ("dse_lambda_1", "separability", "effective_rank")
    )
    checkpoints = tuple(_checkpoint(record, None, None) for record in records)
    verdict = NOTHING_SCORED if records else ""
    return DefinitionPanel(
        definition="released",
        layer=-1,
        lambda_=None,
        lambda_note=None,
        broken_end="",
        verdict=verdict,
        lead=verdict,
        answer=("No checkpoint is picked.", "", ""),
        level=f"{100 * LEVEL:.4g}%",
        dse=dse,
        separability=separability,
        effective_rank=rank,
        checkpoints=checkpoints,
        moved=None,
        changes=(),
    )


def _curve(selection: Selection, part: str, estimates: Sequence[Estimate | None]) -> Curve:
    numbers = tuple(ShownValue.of(estimate, selection.level) for estimate in estimates)
    if part != "dse":
        return Curve(Heading.of(METRICS[f"{selection.definition}.{part}"]), numbers)
    metric = METRICS[dse_name(selection.definition, selection.lambda_choice)]
    lambda_ = selection.lambda_
    own = "" if selection.definition == "released" else f"{selection.definition}, "
    title = "" if lambda_ is None else f"DSE ({own}λ = {lambda_:.3g})"
    return Curve(Heading.of(metric, title), numbers)


def _checkpoint(
    record: ScoreRecord, row: SelectionRow | None, selection: Selection | None
) -> Checkpoint:
    scored = record.status == "scored"
    if row is None or selection is None:
        return Checkpoint(
            record.name,
            record.step,
            record.unit,
            error=None if scored else record.error or "no reason was recorded",
            left_out=NOT_FINITE_SCORE if scored else None,
            is_unscored_end=selection is not None and record.name in selection.unscored_after,
        )
    return Checkpoint(
        record.name,
        record.step,
        record.unit,
        error=None,
        rank=row.rank_in_shortlist,
        is_candidate=row.is_candidate,
        is_pick=row.is_pick,
        is_last=record.name == selection.last,
        against_pick=selection.against_pick(row),
        images=row.images,
    )


def _lead(selection: Selection) -> str:
    before, _, after = selection.verdict.partition(headline(selection))
    return f"{before}{after.lstrip()}"


def _broken_end(selection: Selection) -> str:
    if selection.diverged:
        return "Training diverged"
    return "The features collapsed" if selection.collapsed else ""


def _moved(selection: Selection) -> str | None:
    if selection.change is None:
        return None
    if not is_beyond_noise(selection.change.dse, selection.comparison_level):
        return "DSE did not move beyond its noise" if selection.noise_known else "noise not known"
    return {
        "effective_rank": "effective rank moved",
        "separability": "separability moved",
        "both": "both parts moved",
        "neither": "no part moved beyond its noise",
    }[selection.change.moved]


def _changes(
    selection: Selection, curves: Mapping[str, Curve], names: Sequence[str]
) -> tuple[PartChange, ...]:
    change = selection.change
    if change is None or selection.pick not in names or selection.last not in names:
        return ()
    differences = {
        "separability": change.separability,
        "effective_rank": change.effective_rank,
        "dse": change.dse,
    }
    moved = {
        "separability": change.moved in ("separability", "both"),
        "effective_rank": change.moved in ("effective_rank", "both"),
        "dse": False,
    }
    rows = []
    for part, difference in differences.items():
        curve = curves[part]
        pick = curve.values[names.index(selection.pick)]
        last = curve.values[names.index(selection.last)]
        shown = ShownValue.of(difference, selection.comparison_level)
        if pick is not None and last is not None and shown is not None:
            rows.append(PartChange(curve, pick, last, shown, moved[part]))
    return tuple(rows)
