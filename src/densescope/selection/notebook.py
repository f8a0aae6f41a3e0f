"""A run as a table in a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from densescope.metrics import METRICS
from densescope.selection.words import with_error

if TYPE_CHECKING:
    from densescope.selection.run_table import RunTable


def html_table(table: RunTable) -> str:
    """The metrics of the overview at the last layer, a line per checkpoint."""
    metrics = [metric for metric in METRICS.values() if metric.overview]
    columns = [table.column(metric.name, table.last_layer) for metric in metrics]
    shown = [column for column in columns if column.series]
    head = "".join(
        f"<th>{escape(text)}</th>"
        for text in ("checkpoint", table.unit, *(column.metric.short for column in shown))
    )
    lines = []
    for record in table.records:
        cells = [record.name, str(record.step)]
        if record.status == "scored":
            cells += [with_error(column.series.get(record.name)) for column in shown]
        else:
            cells.append("failed")
        lines.append("".join(f"<td>{escape(cell)}</td>" for cell in cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
