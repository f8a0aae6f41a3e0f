"""A run as a flat table: one row per checkpoint, in JSON, CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.files import location
from densescope.records import ProbeRecord, write_json
from densescope.selection.headline import headline
from densescope.selection.layers import LayerGap
from densescope.selection.result import Selection, SelectionRow
from densescope.selection.run_table import RunTable
from densescope.writing import replacing

Row = dict[str, Any]

# Column of the choice -> its type; the order is the order of the table.
COLUMNS: dict[str, type] = {
    "step": int,
    "unit": str,
    "name": str,
    "definition": str,
    "layer": int,
    "lambda": float,
    "dse": float,
    "dse_low": float,
    "dse_high": float,
    "separability": float,
    "separability_low": float,
    "separability_high": float,
    "effective_rank": float,
    "effective_rank_low": float,
    "effective_rank_high": float,
    "candidate": bool,
    "shortlist_rank": int,
    "pick": bool,
    "below_noise_of_pick": bool,
    "images": int,
}


def flat_rows(table: RunTable, selection: Selection) -> list[Row]:
    """One flat row per checkpoint of a selection, in order of step.

    The keys are those of :func:`flat_columns`. ``..._low`` and ``..._high`` bound each number
    alone at ``selection.level``; to compare two checkpoints read ``below_noise_of_pick``, which
    pairs them, not the overlap of two intervals. What is not known is ``None``.

    Args:
        table: of the run; every metric stored at the selection's layer becomes a column, and
            every set of probes, the mean over its seeds. Where several layers were measured,
            ``..._best_layer`` and ``..._last_minus_best`` say how they compare.
        selection: the choice; ``dse`` is with its ``lambda``, ``released.dse_lambda_1`` with 1.
    """
    by_name = {record.name: record for record in table.records}
    stored = _stored(table, selection)
    labels, gaps = _labels(table.probes), _gaps(table, selection)
    rows = []
    for row in selection.rows:
        scores = by_name[row.name].scores.get(str(selection.layer), {})
        flat = _flat(selection, row)
        for metric in stored:
            flat |= _bounds(metric, scores.get(metric), selection.level)
        for column, probed in labels.items():
            found = probed.get(row.name)
            flat |= {
                column: None if found is None else found.value,
                f"{column}_spread": None if found is None else found.spread,
            }
        for column, found_gaps in gaps.items():
            flat |= _gap(column, found_gaps.get(row.name))
        rows.append(flat)
    return rows


def flat_columns(table: RunTable, selection: Selection) -> dict[str, type]:
    """Columns of :func:`flat_rows` with their types, in order."""
    columns = dict(COLUMNS)
    for metric in _stored(table, selection):
        columns |= dict.fromkeys((metric, f"{metric}_low", f"{metric}_high"), float)
    for column in _labels(table.probes):
        columns |= dict.fromkeys((column, f"{column}_spread"), float)
    for column in _gaps(table, selection):
        columns |= {key: int if key.endswith("_layer") else float for key in _gap(column, None)}
    return columns


def _gaps(table: RunTable, selection: Selection) -> dict[str, dict[str, LayerGap]]:
    """Last minus best layer, where several layers were measured."""
    labels = {
        f"{name}.{records[0].measure}": name for name, records in table.probes.items() if records
    }
    names = {**{name: name for name in _stored(table, selection)}, **labels}
    return {column: gaps for column, name in names.items() if (gaps := table.layer_gaps(name))}


def _gap(column: str, gap: LayerGap | None) -> Row:
    low, high = (None, None) if gap is None or gap.interval is None else gap.interval
    prefix = f"{column}_last_minus_best"
    return {
        f"{column}_best_layer": None if gap is None else gap.best,
        prefix: None if gap is None else gap.value,
        f"{prefix}_low": low,
        f"{prefix}_high": high,
    }


def _stored(table: RunTable, selection: Selection) -> list[str]:
    layer = str(selection.layer)
    return list(dict.fromkeys(name for r in table.records for name in r.scores.get(layer, {})))


def _labels(probes: Mapping[str, Sequence[ProbeRecord]]) -> dict[str, dict[str, ProbeRecord]]:
    """``camvid-linear.miou`` -> checkpoint -> what was found there."""
    return {
        f"{name}.{records[0].measure}": {r.name: r for r in records if r.status == "probed"}
        for name, records in probes.items()
        if records
    }


def write_table(table: RunTable, selection: Selection, path: Path | str) -> None:
    """Write :func:`flat_rows` to ``.json``, ``.csv`` or ``.parquet``.

    A reader sees the whole file or the one before it. JSON also holds lambda, headline, verdict
    and the tied checkpoints; its rows are under ``"rows"``.

    Raises:
        InputError: another suffix.
    """
    document = {
        "lambda": selection.lambda_,
        "lambda_note": selection.lambda_note,
        "headline": headline(selection),
        "tied": list(selection.tied),
        "earliest_peak": selection.earliest_peak,
        "verdict": selection.verdict,
        "stitched": selection.stitched,
        "level": selection.level,
        "comparison_level": selection.comparison_level,
        "failed": list(selection.failed),
    }
    columns = flat_columns(table, selection)
    write_rows(flat_rows(table, selection), columns, path, document=document)


def write_rows(
    rows: Sequence[Row],
    columns: Mapping[str, type],
    path: Path | str,
    *,
    document: Mapping[str, Any] | None = None,
) -> None:
    """Write flat rows to ``.json``, ``.csv`` or ``.parquet``, as the suffix says.

    A reader sees the whole file or the one before it.

    Args:
        rows: the keys of each are those of ``columns``; ``None`` is an empty cell.
        columns: column -> ``int``, ``float``, ``str`` or ``bool``, in order.
        path: where to; its folder is made when missing.
        document: what JSON holds beside the rows, which are under ``"rows"``.

    Raises:
        InputError: another suffix.
    """
    path = location(path)
    check_suffix(path)
    if path.suffix.lower() == ".json":
        write_json({**(document or {}), "rows": list(rows)}, path)
    else:
        TABLE_WRITERS[path.suffix.lower()](rows, columns, path)


def check_suffix(path: Path) -> None:
    """Refuse a table format that cannot be written, before the work and not after it.

    Raises:
        InputError: the suffix is none of the three.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"cannot tell a table format from {path.name!r}; end it in {', '.join(SUFFIXES)}"
        )


def _flat(selection: Selection, row: SelectionRow) -> Row:
    return {
        "step": row.step,
        "unit": row.unit,
        "name": row.name,
        "definition": selection.definition,
        "layer": selection.layer,
        "lambda": selection.lambda_,
        **_bounds("dse", row.dse, selection.level),
        **_bounds("separability", row.separability, selection.level),
        **_bounds("effective_rank", row.effective_rank, selection.level),
        "candidate": row.is_candidate,
        "shortlist_rank": row.rank_in_shortlist,
        "pick": row.is_pick,
        "below_noise_of_pick": row.below_noise_of_pick,
        "images": row.images,
    }


def _bounds(name: str, estimate: Estimate | None, level: float) -> Row:
    interval = None if estimate is None else estimate.interval(level)
    low, high = interval or (None, None)
    value = None if estimate is None else estimate.value
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _write_csv(rows: Sequence[Row], columns: Mapping[str, type], path: Path) -> None:
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(rows: Sequence[Row], columns: Mapping[str, type], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with replacing(path) as temporary:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary)


TABLE_WRITERS: dict[str, Callable[[Sequence[Row], Mapping[str, type], Path], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
SUFFIXES = (".json", *TABLE_WRITERS)
