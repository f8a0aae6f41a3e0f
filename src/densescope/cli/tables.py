"""Records and choices as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.table import Table
from rich.text import Text

from densescope.cli.screen import name_cells, table
from densescope.definitions import DEFINITIONS
from densescope.evaluation.measures import measure_of
from densescope.metrics import METRICS
from densescope.metrics.lambdas import linear_combination
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection.columns import Column
from densescope.selection.rounds import images_of
from densescope.selection.run_table import RunTable
from densescope.selection.words import dse_title, signed, with_error

if TYPE_CHECKING:
    from densescope.selection import Alarm, GramTeacher, Selection


MOST_ROWS = 200  # of a table on a terminal
Row = TypeVar("Row")


FEW_LAYERS = 4  # that fit on a line


def sweep_tables(records: Sequence[ScoreRecord], named: Sequence[str] = ()) -> list[Table]:
    """The metrics of the overview, and last minus best layer where several were scored."""
    overview = [metric.name for metric in METRICS.values() if metric.overview]
    layers = layer_table(RunTable.of(records), overview)
    return [sweep_table(records, named=named), *([] if layers is None else [layers])]


def sweep_table(
    records: Sequence[ScoreRecord], layer: int = -1, named: Sequence[str] = ()
) -> Table:
    """One line per checkpoint with the metrics of the overview, and those that are named."""
    run = RunTable.of(records)
    counts = {record.name: images_of(record) for record in run.scored}
    differ = len(set(counts.values())) > 1
    if run.scored and str(layer) not in run.scored[0].scores:
        layer = run.last_layer
    rows = [m for m in METRICS.values() if m.overview or m.name in named]
    columns = [run.column(m.name, layer) for m in rows]
    shown = [column for column in columns if column.series]
    made = table(
        "scores (± half of the 95 % interval)",
        [
            *("checkpoint", run.unit, *(["images"] if differ else [])),
            *(column.metric.short for column in shown),
        ],
    )
    names = name_cells(record.name for record in run.records)
    for record in _some(made, run.records, [record.status == "failed" for record in run.records]):
        if record.status == "failed":
            made.add_row(names[record.name], str(record.step), Text("failed", "red"))
            continue
        known = [f"{counts[record.name]:,}"] if differ else []
        cells = [with_error(column.series.get(record.name)) for column in shown]
        made.add_row(names[record.name], str(record.step), *known, *cells)
    return made


def layer_table(run: RunTable, names: Sequence[str]) -> Table | None:
    """Last minus best layer: a line per checkpoint, a column per metric or set of probes.

    Returns:
        ``None`` where fewer than two layers were measured.
    """
    gaps = {name: found for name in names if (found := run.layer_gaps(name))}
    if not gaps:
        return None
    probed = {name: measure_of(run.probes[name][0].measure) for name in gaps if name in run.probes}
    titles = {name: f"{measure.title} ({measure.difference})" for name, measure in probed.items()}
    heads = [titles[name] if name in probed else METRICS[name].short for name in gaps]
    rows: Sequence[ScoreRecord | ProbeRecord] = run.records
    rows = rows or run.probes[next(iter(gaps))]
    made = table(
        "last minus best layer (the best in brackets)",
        ["checkpoint", rows[0].unit, *heads],
    )
    names_shown = name_cells(row.name for row in rows)
    for row in rows:
        cells = [
            found[row.name].text(probed[name].scale if name in probed else 1)
            if row.name in found
            else "–"
            for name, found in gaps.items()
        ]
        made.add_row(names_shown[row.name], str(row.step), *cells)
    return made


def column_table(run: RunTable, column: Column) -> Table:
    """One line per checkpoint with one metric."""
    made = table(str(column.note), ["checkpoint", run.unit, column.metric.short])
    names = name_cells(record.name for record in run.scored)
    for record in run.scored:
        cell = with_error(column.series.get(record.name))
        made.add_row(names[record.name], str(record.step), cell)
    return made


def _some(made: Table, rows: Sequence[Row], marked: Sequence[bool]) -> list[Row]:
    """All rows, or of a long run those that are marked and others at equal distances."""
    if len(rows) <= MOST_ROWS:
        return list(rows)
    step = -(-len(rows) // (MOST_ROWS // 2))
    chosen = [place for place, mark in enumerate(marked) if mark][: MOST_ROWS // 2]
    shown = sorted({*range(0, len(rows), step), len(rows) - 1, *chosen})
    made.caption = (
        f"{len(shown)} of {len(rows):,} checkpoints; all of them: "
        "densescope select SCORES --write table.csv"
    )
    made.caption_justify = "left"
    return [rows[place] for place in shown]


def score_table(record: ScoreRecord) -> Table:
    """Every stored metric of one checkpoint: at its layers, and last minus best of them.

    Of more than four layers only the last is shown; the record holds all.
    """
    run = RunTable.of([record])
    shown = run.layers if len(run.layers) <= FEW_LAYERS else run.layers[-1:]
    layers = [str(layer) for layer in shown]
    several = ["last minus best layer"] if len(run.layers) > 1 else []
    heads = ["metric", *(f"layer {layer}" for layer in layers), *several, "seed spread"]
    made = table(record.name, heads)
    for metric in record.scores[layers[-1]]:
        estimates = [record.scores[layer].get(metric) for layer in layers]
        gap = run.layer_gaps(metric).get(record.name) if several else None
        spread = estimates[-1].seed_spread if estimates[-1] else None
        made.add_row(
            metric,
            *(with_error(estimate) for estimate in estimates),
            *(["" if gap is None else gap.text()] if several else []),
            "" if spread is None else f"{spread:.2g}",
        )
    return made


def selection_table(selection: Selection, alarm: Alarm | None = None) -> Table:
    """One line per checkpoint with its DSE, its parts and its place in the choice.

    By another rule than lambda 1, DSE of the released definition is shown with that, too. Those
    from which on an alarm stands are marked as fallen.
    """
    lambdas = _lambdas(selection)
    images = ["images"] if selection.images_differ else []
    made = table(
        f"DSE ({selection.definition}) at layer {selection.layer}",
        [
            *("checkpoint", selection.rows[0].unit, *images, "separability", "effective rank"),
            *(map(dse_title, lambdas) if lambdas else ("DSE",)),
            *("choice", "against pick"),
        ],
    )
    marked = [row.is_pick or row.rank_in_shortlist is not None for row in selection.rows]
    names = name_cells(row.name for row in selection.rows)
    for row in _some(made, selection.rows, marked):
        place = "" if row.rank_in_shortlist is None else f"shortlist {row.rank_in_shortlist}"
        if row.is_pick:
            place = f"PICK, {place}" if place else "PICK"
        elif not place and row.is_candidate:
            place = "candidate"
        noise = selection.against_pick(row) or ""
        if alarm is not None and row.step >= alarm.since_step:
            noise = "fallen (alarm)"
        sums = [
            with_error(linear_combination(row.separability, row.effective_rank, lambda_))
            for lambda_ in lambdas
        ]
        cells = [with_error(row.separability), with_error(row.effective_rank), *(sums or ["–"])]
        known = ["–" if row.images is None else f"{row.images:,}"] * len(images)
        style = "bold green" if row.is_pick else ""
        made.add_row(names[row.name], str(row.step), *known, *cells, place, noise, style=style)
    return made


def teacher_table(found: GramTeacher) -> Table:
    """One line per checkpoint with its DSE and what it would lose as a teacher."""
    made = table(
        f"teachers for Gram anchoring, {found.definition} definition, layer {found.layer}",
        ["checkpoint", found.rows[0].unit, dse_title(found.lambda_), "loss as a teacher", "", ""],
    )
    names = name_cells(row.name for row in found.rows)
    for row in found.rows:
        mark = "TEACHER" if row.is_teacher else "best of the first part" if row.is_best else ""
        where = "too late" if not row.in_first_part else ""
        note = "tied with the best" if row.tied_with_best and not row.is_best else where
        loss = signed(row.loss, found.comparison_level) if not row.is_teacher else "–"
        style = "bold green" if row.is_teacher else ""
        cells = [str(row.step), with_error(row.dse), loss.replace("[", "\\["), mark, note]
        made.add_row(names[row.name], *cells, style=style)
    return made


def _lambdas(selection: Selection) -> list[float]:
    """Of a checkpoint by itself, where that has a meaning, then that of the run."""
    of_one = DEFINITIONS[selection.definition].lambda_by_default
    known = [lambda_ for lambda_ in (of_one, selection.lambda_) if lambda_ is not None]
    return list(dict.fromkeys(known))


def backbone_in_words(checkpoint: Mapping[str, Any]) -> str:
    """What a record says of the network, and by which mean and deviation images were normalized."""
    facts = checkpoint.get("network") or {}
    network = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
    mean, std = (checkpoint["normalization"][part] for part in ("mean", "std"))
    images = "/".join(",".join(f"{value:g}" for value in part) for part in (mean, std))
    named = f"{checkpoint['architecture']} ({network})" if network else checkpoint["architecture"]
    return f"{named}, images by {images}"
