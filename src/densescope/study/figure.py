"""The course of a study's runs as one interactive page that works offline."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densescope.evaluation.measures import measure_of
from densescope.study.summary import RunSeries, StudySummary
from densescope.writing import replacing

COLORS = ("#1c2128", "#0072b2", "#b8540a", "#00795c", "#a1479e", "#8a6d00")
TITLES = {
    "dse": "DSE (lambda = 1)",
    "separability": "separability",
    "effective_rank": "effective rank (fraction of full rank)",
}
ROW_PIXELS = 300


def write_figure(summary: StudySummary, path: Path) -> None:
    """One row per method and labelled set; a line is the mean over seeds, dots are runs.

    The page appears whole or not at all.
    """
    text = build_figure(summary).to_html(include_plotlyjs=True, full_html=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def build_figure(summary: StudySummary) -> Any:
    """The plotly figure of :func:`write_figure`."""
    from plotly.subplots import make_subplots

    rows = list(dict.fromkeys((run.method, run.probe_set) for run in summary.series))
    arms = list(dict.fromkeys(run.arm for run in summary.series))
    columns = max(len(run.values) for run in summary.series)
    grouped = [[c for c in summary.series if (c.method, c.probe_set) == row] for row in rows]
    titles = [_title(name, runs[0]) for runs in grouped for name in _panels(runs, columns)]
    figure = make_subplots(rows=len(rows), cols=columns, subplot_titles=titles)
    for place, runs in enumerate(grouped, start=1):
        for column, name in enumerate(_panels(runs, columns), start=1):
            for number, arm in enumerate(arms):
                of_arm = [run for run in runs if run.arm == arm]
                for trace in _traces(of_arm, name, arm, COLORS[number % len(COLORS)]):
                    shown = place == column == 1 and trace["mode"] == "lines"
                    figure.add_trace({**trace, "showlegend": shown}, row=place, col=column)
    figure.update_layout(
        height=ROW_PIXELS * len(rows) + 80,
        template="plotly_white",
        legend={"orientation": "h", "y": -40 / (ROW_PIXELS * len(rows))},
        margin={"l": 50, "r": 20, "t": 50, "b": 50},
    )
    figure.update_xaxes(title_text="checkpoint")
    return figure


def _panels(runs: Sequence[RunSeries], columns: int) -> list[str]:
    """The labels first, then DSE and its parts."""
    names = list(runs[0].values)
    labels = [name for name in names if name not in TITLES]
    ordered = [*labels, *(name for name in names if name in TITLES)]
    return [*ordered, *[""] * (columns - len(ordered))]


def _title(name: str, run: RunSeries) -> str:
    if not name:
        return ""
    measure = measure_of(name)
    label = f"{measure.title} ({measure.unit})<br><sup>{run.probe_set}</sup>"
    return f"{run.method}: {TITLES.get(name, label)}"


def _traces(runs: Sequence[RunSeries], name: str, arm: str, color: str) -> list[dict[str, Any]]:
    scale = 1 if name in TITLES else measure_of(name).scale
    points = [
        (step, scale * value)
        for run in runs
        if name in run.values
        for step, value in zip(run.steps, run.values[name], strict=True)
        if math.isfinite(value)
    ]
    if not points:
        return []
    steps = sorted({step for step, _ in points})
    means = [statistics.fmean(v for s, v in points if s == step) for step in steps]
    shared = {"type": "scatter", "name": arm, "legendgroup": arm}
    return [
        {**shared, "mode": "lines", "x": steps, "y": means, "line": {"color": color}},
        {
            **shared,
            "mode": "markers",
            "x": [step for step, _ in points],
            "y": [value for _, value in points],
            "marker": {"color": color, "size": 4, "opacity": 0.5},
        },
    ]
