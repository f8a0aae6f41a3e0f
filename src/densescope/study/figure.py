"""The course of a study's runs as one interactive page that works offline."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densescope.agreement.measures import measure_of
from densescope.files import replacing
from densescope.study.summary import Course, StudySummary

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

    rows = list(dict.fromkeys((course.method, course.room) for course in summary.courses))
    arms = list(dict.fromkeys(course.arm for course in summary.courses))
    columns = max(len(course.values) for course in summary.courses)
    grouped = [[c for c in summary.courses if (c.method, c.room) == row] for row in rows]
    titles = [_title(name, courses[0]) for courses in grouped for name in _panels(courses, columns)]
    figure = make_subplots(rows=len(rows), cols=columns, subplot_titles=titles)
    for place, courses in enumerate(grouped, start=1):
        for column, name in enumerate(_panels(courses, columns), start=1):
            for number, arm in enumerate(arms):
                of_arm = [course for course in courses if course.arm == arm]
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


def _panels(courses: Sequence[Course], columns: int) -> list[str]:
    """The labels first, then DSE and its parts."""
    names = list(courses[0].values)
    labels = [name for name in names if name not in TITLES]
    ordered = [*labels, *(name for name in names if name in TITLES)]
    return [*ordered, *[""] * (columns - len(ordered))]


def _title(name: str, course: Course) -> str:
    if not name:
        return ""
    measure = measure_of(name)
    label = f"{measure.title} ({measure.unit})<br><sup>{course.room}</sup>"
    return f"{course.method}: {TITLES.get(name, label)}"


def _traces(courses: Sequence[Course], name: str, arm: str, color: str) -> list[dict[str, Any]]:
    scale = 1 if name in TITLES else measure_of(name).scale
    points = [
        (step, scale * value)
        for course in courses
        if name in course.values
        for step, value in zip(course.steps, course.values[name], strict=True)
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
