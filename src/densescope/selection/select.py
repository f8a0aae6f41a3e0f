"""Records of a run in, the choice among its checkpoints out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from densescope.errors import NOT_FINITE, InputError, RecordError
from densescope.metrics.lambdas import lambda_rule
from densescope.records import ScoreRecord
from densescope.selection.change import change_between, exceeds_noise
from densescope.selection.columns import Column, DensePoint
from densescope.selection.headline import advised
from densescope.selection.peaks import SHORTLIST_SIZE, WINDOW, local_maxima, pick_peak, shortlist
from densescope.selection.result import Selection, SelectionRow
from densescope.selection.rounds import images_of, saving
from densescope.selection.run_table import RunTable
from densescope.selection.schedule import stitched
from densescope.selection.verdict import verdict


def select_checkpoints(
    records: Sequence[ScoreRecord] | RunTable,
    *,
    definition: str = "released",
    layer: int = -1,
    lambda_choice: str | None = None,
    window: int = WINDOW,
    shortlist_size: int = SHORTLIST_SIZE,
    level: float = 0.95,
) -> Selection:
    """Choose among the checkpoints of one run by DSE.

    ``DSE = separability + lambda * effective_rank`` with ``separability = M_inter - M_intra`` and
    ``lambda`` of the rule ``lambda_choice``. Candidates are the
    :func:`local_maxima` of DSE over the steps, the :func:`shortlist` holds the highest of them,
    :func:`pick_peak` names one. The order of the records does not matter. Numbers of two methods
    do not compare.

    Noise: the DSE of the pick and of every other checkpoint are compared on the same blocks
    of images (``Estimate.minus``), each at level ``1 - (1 - level) / m`` for ``m``
    comparisons (Bonferroni). The checkpoints whose DSE is not significantly below the pick's
    thus hold the one with the highest true DSE with probability ``level`` or more, although
    the pick was chosen after looking.

    Args:
        records: of one run, in any order, or its table. Failed ones, and those with a score that
            is not finite, are left out and named.
        definition: row of :data:`~densescope.definitions.DEFINITIONS`.
        layer: which layer's scores.
        lambda_choice: row of :data:`~densescope.metrics.lambdas.LAMBDAS`: ``"1"``, ``"run"`` (the
            paper's) or ``"shrunk"``. By default ``"1"`` for ``"released"``; the other definitions
            have ``"run"`` only.
        window: checkpoints on either side of a candidate, at least 1.
        shortlist_size: at least 1.
        level: confidence of intervals, between 0 and 1.

    Returns:
        The choice. Without a lambda (a definition other than ``"released"`` with fewer than three
        checkpoints or no spread) it has rows but no DSE, candidates or pick.

    Raises:
        InputError: an argument out of its range, or a definition and a rule for lambda that do not
            go together.
        RecordError: no scored record, a metric or layer that was not scored, or records that
            differ in format, architecture, weights, images, image size or settings.

    Source: Dai et al. (2025), arXiv 2510.17299.

    Deviations: the paper has lambda of the run, no intervals and no single pick. The replicates of
        DSE hold lambda fixed: an error of lambda of the run, common to all checkpoints, is not in
        them (docs/explanation/selection.md has its size). Spread over clustering seeds is
        carried along but not part of an interval.
    """
    rule = lambda_rule(definition, lambda_choice).name
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must lie between 0 and 1, e.g. 0.95")
    table = RunTable.of(records)
    points = [point for point in table.points(definition, layer) if point.is_finite]
    failed = _left_out(table, points)
    dse = table.dse(definition, layer, rule)
    rows = _rows(table, points, dse)
    left_out = {record.name for record in failed}
    scored = [record for record in table.scored if record.name not in left_out]
    values = [row.dse.value for row in rows if row.dse is not None]
    candidates = local_maxima(values, window=window)
    listed = shortlist(values, window=window, size=shortlist_size)
    pick = pick_peak(values, window=window, size=shortlist_size) if values else None
    comparison_level = 1 - (1 - level) / max(1, len(rows) - 1)
    if pick is not None:
        files = [record.checkpoint.get("sha256") for record in scored]
        rows = _marked(rows, candidates, listed, pick, comparison_level, files)
    change = None
    if pick is not None and dse.lambda_ is not None and pick != len(rows) - 1:
        change = change_between(rows[pick], rows[-1], dse.lambda_, comparison_level)
    after = [record for record in failed if _position(record) > _position(scored[-1])]
    selection = Selection(
        definition=definition,
        layer=layer,
        lambda_=dse.lambda_,
        lambda_note=dse.note,
        rows=rows,
        candidates=tuple(rows[i].name for i in candidates),
        shortlist=tuple(rows[i].name for i in listed),
        pick=None if pick is None else rows[pick].name,
        last=rows[-1].name,
        verdict="",
        change=change,
        failed=_names(failed),
        unscored_after=_names(after),
        diverged=_names([record for record in after if NOT_FINITE in str(record.error)]),
        collapsed=_names([record for record in after if record.status == "scored"]),
        level=level,
        comparison_level=comparison_level,
        images=max((row.images for row in rows if row.images is not None), default=None),
        saving=saving(table.records),
        stitched=stitched(table.schedule_breaks),
        lambda_choice=rule,
    )
    selection = replace(selection, advised=advised(table, selection))
    return replace(selection, verdict=verdict(selection, window=window))


def _left_out(table: RunTable, points: Sequence[DensePoint]) -> list[ScoreRecord]:
    """Records without a score to choose by, in order of step."""
    usable = {point.name for point in points}
    failed = [r for r in table.records if r.status != "scored" or r.name not in usable]
    if not points:
        raise RecordError(_nothing_to_choose(failed))
    return failed


def _rows(table: RunTable, points: Sequence[DensePoint], dse: Column) -> tuple[SelectionRow, ...]:
    """Rows with their numbers; marks are still to come."""
    images = {record.name: images_of(record) for record in table.scored}
    return tuple(
        SelectionRow(**vars(point), dse=dse.series.get(point.name), images=images[point.name])
        for point in points
    )


def _position(record: ScoreRecord) -> tuple[int, str]:
    return record.step, record.name


def _names(records: Sequence[ScoreRecord]) -> tuple[str, ...]:
    return tuple(record.name for record in records)


def _nothing_to_choose(failed: Sequence[ScoreRecord]) -> str:
    if not failed:
        return "there are no records to choose from; score the checkpoints of a run first"
    return (
        f"none of the {len(failed)} checkpoints has a score to choose by; the first, "
        f"{failed[0].name}: {failed[0].error or 'its score is not a finite number'}"
    )


def _marked(
    rows: Sequence[SelectionRow],
    candidates: Sequence[int],
    listed: Sequence[int],
    pick: int,
    level: float,
    files: Sequence[str | None],
) -> tuple[SelectionRow, ...]:
    peaks, ranks = set(candidates), {row: rank for rank, row in enumerate(listed, start=1)}
    return tuple(
        replace(
            row,
            is_candidate=i in peaks,
            rank_in_shortlist=ranks.get(i),
            is_pick=i == pick,
            below_noise_of_pick=i != pick and _below_noise(rows[pick], row, level),
            has_weights_of_pick=i != pick and file is not None and file == files[pick],
        )
        for i, (row, file) in enumerate(zip(rows, files, strict=True))
    )


def _below_noise(pick: SelectionRow, row: SelectionRow, level: float) -> bool:
    if pick.dse is None or row.dse is None:
        return False
    return not exceeds_noise(pick.dse.minus(row.dse), level)
