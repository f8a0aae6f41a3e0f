"""What was found as flat tables: JSON, CSV or Parquet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from densescope.agreement.correlation import Agreement
from densescope.agreement.degradation import Degradation
from densescope.agreement.paper import PAPER_COLUMNS, MeanAgreement
from densescope.agreement.regret import RegretTable
from densescope.selection.table import Row, write_rows

Result = Agreement | MeanAgreement | Degradation | RegretTable

AGREEMENT_COLUMNS: dict[str, type] = {
    "number": str,
    "title": str,
    "dataset": str,
    "protocol": str,
    "measure": str,
    "layer": int,
    "checkpoints": int,
    "tau": float,
    "tau_low": float,
    "tau_high": float,
    "images_error": float,
    "seeds_error": float,
    "note": str,
}
REGRET_COLUMNS: dict[str, type] = {
    "way": str,
    "title": str,
    "needs_labels": bool,
    "name": str,
    "step": int,
    "value": float,
    "regret": float,
    "error": float,
    "gain": float,
    "seconds": float,
    "note": str,
}
DEGRADATION_COLUMNS: dict[str, type] = {
    "protocol": str,
    "dataset": str,
    "measure": str,
    "checkpoints": int,
    "seeds": int,
    "best": str,
    "best_step": int,
    "best_value": float,
    "last": str,
    "last_step": int,
    "last_value": float,
    "drop": float,
    "drop_low": float,
    "drop_high": float,
    "held_out_drop": float,
    "chance": float,
    "noise": float,
    "degraded": bool,
    "moved": str,
    "verdict": str,
}


def flat_table(result: Result) -> tuple[dict[str, type], list[Row]]:
    """Columns with their types, and flat rows; what is not known is ``None``.

    A row per number for agreements, per way to choose for regrets, a single one for a degradation.
    """
    if isinstance(result, Agreement):
        return AGREEMENT_COLUMNS, _agreement_rows(result)
    if isinstance(result, MeanAgreement):
        return _mean_columns(result), _mean_rows(result)
    if isinstance(result, RegretTable):
        return REGRET_COLUMNS, [asdict(row) for row in result.rows]
    return DEGRADATION_COLUMNS, [_degradation_row(result)]


def write_table(result: Result, path: Path | str) -> None:
    """Write a result to ``.json``, ``.csv`` or ``.parquet``.

    The rows are those of :func:`flat_table`. JSON also holds the whole document (``to_json``) under
    ``"document"``.

    Raises:
        InputError: another suffix.
    """
    columns, rows = flat_table(result)
    write_rows(rows, columns, path, document={"document": result.to_json()})


def _agreement_rows(agreement: Agreement) -> list[Row]:
    rows = []
    for row in agreement.rows:
        low, high = row.interval or (None, None)
        values: dict[str, Any] = {
            **vars(agreement),
            **vars(row),
            "tau": None if row.tau is None else row.tau.value,
            "tau_low": low,
            "tau_high": high,
        }
        rows.append({name: values[name] for name in AGREEMENT_COLUMNS})
    return rows


def _mean_columns(table: MeanAgreement) -> dict[str, type]:
    columns: dict[str, type] = {"number": str, "title": str}
    for dataset in table.datasets:
        columns[dataset] = float
        columns[f"{dataset}_low"] = float
        columns[f"{dataset}_high"] = float
        columns[f"{dataset}_runs"] = int
    columns["mean"] = float
    return {**columns, **{f"paper_{column}": float for column in PAPER_COLUMNS}}


def _mean_rows(table: MeanAgreement) -> list[Row]:
    rows = []
    for row in table.rows:
        flat: Row = dict.fromkeys(_mean_columns(table))
        flat |= {"number": row.number, "title": row.title, "mean": row.mean}
        for dataset, cell in row.cells.items():
            low, high = cell.interval or (None, None)
            flat |= {dataset: cell.value, f"{dataset}_runs": cell.runs}
            flat |= {f"{dataset}_low": low, f"{dataset}_high": high}
        rows.append({**flat, **{f"paper_{column}": tau for column, tau in row.paper.items()}})
    return rows


def _degradation_row(found: Degradation) -> Row:
    low, high = found.interval or (None, None)
    values: dict[str, Any] = {
        **vars(found),
        "drop_low": low,
        "drop_high": high,
        "moved": None if found.change is None else found.change.moved,
    }
    return {name: values[name] for name in DEGRADATION_COLUMNS}
