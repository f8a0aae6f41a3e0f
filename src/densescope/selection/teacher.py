"""Which early checkpoint of a run to anchor the dense features of its later training to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from densescope.errors import InputError, RecordError
from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection.change import exceeds_noise, is_beyond_noise
from densescope.selection.result import Selection
from densescope.selection.run_table import RunTable
from densescope.selection.select import select_checkpoints
from densescope.selection.table import Row, write_rows
from densescope.selection.words import dse_title, phrase, size, with_error

FIRST_PART = 0.5
COLUMNS: dict[str, type] = {
    "step": int,
    "unit": str,
    "name": str,
    "lambda": float,
    "dse": float,
    "dse_low": float,
    "dse_high": float,
    "loss": float,
    "loss_low": float,
    "loss_high": float,
    "in_first_part": bool,
    "tied_with_best": bool,
    "best": bool,
    "teacher": bool,
}


@dataclass(frozen=True)
class TeacherRow:
    """One scored checkpoint as a teacher.

    Attributes:
        name: file name of the checkpoint.
        step: its position in the run, in ``unit``.
        unit: ``"epoch"``, ``"step"`` or ``"checkpoint number"``.
        dse: with lambda of the run.
        loss: DSE of the teacher minus its own, on the same images: what is lost by taking it.
        in_first_part: it is early enough to be a teacher.
        tied_with_best: it is in the first part and not told apart from the best there.
        is_best: it has the highest DSE of the first part.
        is_teacher: it is the one to take.
    """

    name: str
    step: int
    unit: str
    dse: Estimate
    loss: Estimate
    in_first_part: bool
    tied_with_best: bool
    is_best: bool
    is_teacher: bool


@dataclass(frozen=True)
class GramTeacher:
    """The checkpoint to anchor to, and the evidence for it.

    Attributes:
        name: the checkpoint to take.
        best: the checkpoint of the highest DSE in the first part; may be the same.
        rows: every scored checkpoint in order of step.
        first_part: fraction of the run that a teacher may come from.
        definition: of DSE.
        layer: whose features were scored.
        lambda_: lambda of the run.
        comparison_level: confidence of each comparison, so that all hold together at 95 %.
        images: how many were scored, where the records say so.
        sentence: all of it in words.
    """

    name: str
    best: str
    rows: tuple[TeacherRow, ...]
    first_part: float
    definition: str
    layer: int
    lambda_: float
    comparison_level: float
    images: int | None
    sentence: str

    def row(self, name: str) -> TeacherRow:
        """The row of one checkpoint.

        Raises:
            RecordError: no scored checkpoint has this name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise RecordError(f"no scored checkpoint is named {name!r}")

    def table(self) -> list[Row]:
        """One flat row per scored checkpoint; the keys are those of ``COLUMNS``."""
        return [self._flat(row) for row in self.rows]

    def _flat(self, row: TeacherRow) -> Row:
        low, high = row.dse.interval() or (None, None)
        loss_low, loss_high = row.loss.interval(self.comparison_level) or (None, None)
        values = {
            "lambda": self.lambda_,
            "dse": row.dse.value,
            "dse_low": low,
            "dse_high": high,
            "loss": row.loss.value,
            "loss_low": loss_low,
            "loss_high": loss_high,
            "best": row.is_best,
            "teacher": row.is_teacher,
        }
        return {name: values.get(name, getattr(row, name, None)) for name in COLUMNS}

    def to_json(self) -> dict[str, Any]:
        """The document, with plain values only."""
        document = {field.name.rstrip("_"): getattr(self, field.name) for field in fields(self)}
        return {**document, "rows": self.table()}

    def write(self, path: Path | str) -> None:
        """Write it to ``.json`` (all of it), ``.csv`` or ``.parquet`` (the rows).

        Raises:
            InputError: another suffix.
        """
        write_rows(self.table(), COLUMNS, path, document=self.to_json())


def select_gram_teacher(
    records: Sequence[ScoreRecord] | RunTable,
    *,
    definition: str = "released",
    layer: int = -1,
    first_part: float = FIRST_PART,
    level: float = 0.95,
) -> GramTeacher:
    """The early checkpoint whose dense structure later training is to keep.

    Gram anchoring (DINOv3) holds the similarities between the patches of a network to those of an
    early checkpoint of its own run. The teacher is the *earliest* checkpoint of the first part of
    the run that is not told apart from the one of the highest DSE there. Checkpoints are compared
    on the same images, each at level ``1 - (1 - level) / m`` for ``m`` comparisons.

    Args:
        records: of one run, in any order, or its table.
        definition: row of ``DEFINITIONS``.
        layer: which layer's scores.
        first_part: a teacher's step is at most this fraction of the last scored one's; above 0 and
            at most 1.
        level: confidence of all comparisons together, between 0 and 1.

    Returns:
        The teacher with DSE, its interval, and what every other checkpoint would lose.

    Raises:
        InputError: an argument out of its range.
        RecordError: no DSE, or no scored checkpoint in the first part.

    Source: Simeoni et al. (2025), DINOv3, arXiv 2508.10104, take the teacher from 100,000 or
        200,000 of 1,000,000 iterations, and find one of 1,000,000 worse.

    Deviations: they choose by labelled results; the rule by DSE, and the first half, are ours.

    Example:
        >>> from densescope.selection.teacher import select_gram_teacher
        >>> select_gram_teacher(densescope.read_run("scores").records).name  # doctest: +SKIP
        'checkpoint0020.pth'
    """
    if not 0 < first_part <= 1:
        raise InputError(f"first_part is {first_part}; it must be above 0 and at most 1")
    selection = select_checkpoints(records, definition=definition, layer=layer, level=level)
    known = [(row, row.dse) for row in selection.rows if row.dse is not None]
    if not known or selection.lambda_ is None:
        raise RecordError(f"no teacher can be chosen: {selection.lambda_note}")
    bound = first_part * known[-1][0].step
    early = [(row, dse) for row, dse in known if row.step <= bound]
    if not early:
        raise RecordError(
            f"no checkpoint was scored in the first {first_part:.0%} of the run (up to "
            f"{known[-1][0].unit} {bound:.0f}): the first is {phrase(known[0][0])}. Score earlier "
            "ones, or allow a larger part (first_part)"
        )
    best, best_dse = max(early, key=lambda pair: pair[1].value)
    comparison_level = 1 - (1 - level) / max(1, len(early) - 1)
    tied = [
        row.name for row, dse in early if not exceeds_noise(best_dse.minus(dse), comparison_level)
    ]
    teacher_dse = next(dse for row, dse in early if row.name == tied[0])
    rows = tuple(
        TeacherRow(
            name=row.name,
            step=row.step,
            unit=row.unit,
            dse=dse,
            loss=teacher_dse.minus(dse),
            in_first_part=row.step <= bound,
            tied_with_best=row.name in tied,
            is_best=row.name == best.name,
            is_teacher=row.name == tied[0],
        )
        for row, dse in known
    )
    sentence = _sentence(rows, selection, first_part, comparison_level)
    return GramTeacher(
        name=tied[0],
        best=best.name,
        rows=rows,
        first_part=first_part,
        definition=definition,
        layer=layer,
        lambda_=selection.lambda_,
        comparison_level=comparison_level,
        images=selection.images,
        sentence=sentence,
    )


def _sentence(
    rows: Sequence[TeacherRow], selection: Selection, first_part: float, level: float
) -> str:
    teacher = next(row for row in rows if row.is_teacher)
    best = next(row for row in rows if row.is_best)
    last, lambda_ = rows[-1], float(selection.lambda_ or 0)
    value = f"{dse_title(lambda_)} {with_error(teacher.dse)}"
    part = f"the first {first_part:.0%} of the run"
    if sum(row.in_first_part for row in rows) == 1:
        said = [f"Gram teacher: {phrase(teacher)}, the only checkpoint scored in {part} ({value})."]
    elif teacher.is_best:
        said = [
            f"Gram teacher: {phrase(teacher)}, with the best dense structure of {part} ({value})."
        ]
    else:
        said = [
            f"Gram teacher: {phrase(teacher)}, the earliest of {part} that is not told apart from "
            f"the best there ({value}). The best is {phrase(best)}, ahead by "
            f"{size(best.loss, level)}, which is below the noise."
        ]
    if not selection.noise_known:
        said.append("The noise is not known: there are too few images to cut into blocks.")
    said += _later(rows, last, level)
    if selection.stitched is not None:
        said.append(selection.stitched)
    return " ".join(said)


def _later(rows: Sequence[TeacherRow], last: TeacherRow, level: float) -> list[str]:
    """What a later teacher would lose, or gain."""
    if last.is_teacher:
        return ["No later checkpoint was scored."]
    later = [row for row in rows if not row.in_first_part]
    name = phrase(last, "the last checkpoint")
    lost = size(last.loss, level)
    if not is_beyond_noise(last.loss, level):
        said = [f"That {name} would be worse is not shown: the difference in DSE is {lost}."]
    elif last.loss.value > 0:
        said = [f"As a teacher {name} would lose {lost} of DSE."]
    else:
        said = [f"By DSE {name} is better by {lost}."]
    top = min(later, key=lambda row: row.loss.value, default=last)
    if top is not last and top.loss.value < 0 and is_beyond_noise(top.loss, level):
        more = f"higher by {size(top.loss, level)}"
        said.append(f"DSE goes on rising after the first part: {phrase(top)} is {more}.")
    return said
