"""Curves over the steps of a run, as plotly figures in plain values.

The figures are written out as what plotly's JSON is, dictionaries and lists, because building
them through its classes takes a second per page and adds its default look.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from densescope.report.data import ReportData
from densescope.report.labels import ProbeSet
from densescope.report.values import Curve, ShownValue
from densescope.report.views import Checkpoint, DefinitionPanel

Figure = dict[str, Any]

INK = "#1c2128"
MUTED = "#5b6470"
RULE = "#e3e6ea"
PART_COLORS = {"dse": "#1c2128", "separability": "#0072b2", "effective_rank": "#b8540a"}
OTHER_COLOR = "#5b6470"
MEASURE_COLOR = "#00795c"
ACCENT = "#c8102e"
DIGITS = 6
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def build_figures(data: ReportData) -> dict[str, Figure]:
    """All figures of a page by the name of their place in it; none of fewer than two points."""
    figures = {}
    for number, view in enumerate((data.view, *data.alternatives)):
        parts = (
            ("dse", view.dse),
            ("separability", view.separability),
            ("effective_rank", view.effective_rank),
        )
        for part, curve in parts:
            if _points(curve) > 1:
                figures[f"view{number}-{part}"] = part_figure(part, curve, view, data.unit)
    for group, curves in (("baseline", data.baselines), ("extra", data.extras)):
        for number, curve in enumerate(curves):
            if _points(curve) > 1:
                traces = line(curve, data.checkpoints, OTHER_COLOR, connect=group == "extra")
                figures[f"{group}{number}"] = _figure(traces, curve, data.view, data.unit)
    for number, probe_set in enumerate(data.probe_sets):
        figures |= _probe_set_figures(f"probe_set{number}", probe_set, data)
    return figures


def _probe_set_figures(key: str, probe_set: ProbeSet, data: ReportData) -> dict[str, Figure]:
    """DSE and the measure of a labelled probe, both with the marks of the selection."""
    if _points(probe_set.curve) < 2:
        return {}
    view = data.view
    figures = {}
    if _points(view.dse) > 1:
        figures[f"{key}-dse"] = part_figure("dse", view.dse, view, data.unit)
    traces = line(probe_set.curve, view.checkpoints, MEASURE_COLOR, connect=True)
    traces += marks(probe_set.curve, view.checkpoints)
    figures[f"{key}-measure"] = _figure(traces, probe_set.curve, view, data.unit)
    return figures


def _points(curve: Curve) -> int:
    return sum(number is not None and number.finite for number in curve.values)


def part_figure(part: str, curve: Curve, view: DefinitionPanel, unit: str) -> Figure:
    """One part of DSE over the run; the sum also carries the marks of the selection."""
    traces = line(curve, view.checkpoints, PART_COLORS[part])
    if part == "dse":
        traces += marks(curve, view.checkpoints)
    return _figure(traces, curve, view, unit)


def line(
    curve: Curve, checkpoints: Sequence[Checkpoint], color: str, *, connect: bool = False
) -> list[Figure]:
    """The interval as a band and the values as a line.

    The line breaks where a number is missing, unless ``connect``: a series that was measured
    now and then on purpose is drawn through.
    """
    drawn = [number if number and number.finite else None for number in curve.values]
    few = _points(curve) <= 60
    band_x, band_y = _band(drawn, checkpoints)
    band = {
        "type": "scatter",
        "x": band_x,
        "y": band_y,
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": _faint(color),
        "hoverinfo": "skip",
    }
    values = {
        "type": "scatter",
        "x": [row.step for row in checkpoints],
        "y": [number.value if number else None for number in drawn],
        "mode": "lines+markers",
        "line": {"color": color, "width": 1.75},
        "marker": {"color": color, "size": 4.5 if few else 3},
        "connectgaps": connect,
        "text": [
            _hover(row, number, curve) for row, number in zip(checkpoints, drawn, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    return [band, values] if band_x else [values]


def marks(curve: Curve, checkpoints: Sequence[Checkpoint]) -> list[Figure]:
    """Candidates as rings, the shortlist as filled rings, the pick as a diamond."""
    looks = (
        ("circle", 9, "#ffffff", [c.is_candidate and c.rank is None for c in checkpoints]),
        ("circle", 10, INK, [c.rank is not None and not c.is_pick for c in checkpoints]),
        ("diamond", 14, ACCENT, [c.is_pick for c in checkpoints]),
    )
    traces = []
    for symbol, size, fill, chosen in looks:
        points = [
            (row.step, number.value)
            for row, number, shown in zip(checkpoints, curve.values, chosen, strict=True)
            if shown and number and number.finite
        ]
        if points:
            edge = {"color": INK if fill == "#ffffff" else "#ffffff", "width": 1.5}
            traces.append(
                {
                    "type": "scatter",
                    "x": [step for step, _ in points],
                    "y": [value for _, value in points],
                    "mode": "markers",
                    "marker": {"symbol": symbol, "size": size, "color": fill, "line": edge},
                    "hoverinfo": "skip",
                }
            )
    return traces


def _band(
    numbers: Sequence[ShownValue | None], checkpoints: Sequence[Checkpoint]
) -> tuple[list[int | None], list[float | None]]:
    x: list[int | None] = []
    y: list[float | None] = []
    steps: list[int] = []
    lows: list[float] = []
    highs: list[float] = []
    for row, number in (*zip(checkpoints, numbers, strict=True), (None, None)):
        if row and number and number.low is not None and number.high is not None:
            steps.append(row.step)
            lows.append(number.low)
            highs.append(number.high)
        elif steps:
            x += [*steps, *reversed(steps), steps[0], None]
            y += [*lows, *reversed(highs), lows[0], None]
            steps, lows, highs = [], [], []
    return x[:-1], y[:-1]


def _hover(row: Checkpoint, number: ShownValue | None, curve: Curve) -> str:
    if number is None:
        return ""
    decimals = curve.decimals + 1
    lines = [
        f"<b>{escape(row.name)}</b>",
        f"{escape(row.unit)} {row.step}",
        f"{escape(curve.heading.title)} {number.text(decimals)}",
    ]
    if number.seed_spread is not None:
        lines.append(f"over seeds ± {number.seed_spread:.{decimals}f}")
    if number.note:
        lines.append(escape(number.note))
    return "<br>".join(lines)


def _figure(traces: list[Figure], curve: Curve, view: DefinitionPanel, unit: str) -> Figure:
    steps = [row.step for row in view.checkpoints]
    margin = (max(steps) - min(steps)) * 0.025 or 1
    axis = {
        "linecolor": MUTED,
        "tickcolor": MUTED,
        "ticks": "outside",
        "ticklen": 4,
        "gridcolor": RULE,
        "zeroline": False,
        "fixedrange": True,
    }
    layout = {
        "autosize": True,
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": INK},
        "margin": {"l": 62, "r": 14, "t": 22, "b": 44},
        "hovermode": "x",
        "hoverlabel": {
            "bgcolor": "#ffffff",
            "bordercolor": MUTED,
            "align": "left",
            "font": {"family": FONT, "size": 12, "color": INK},
        },
        "xaxis": {
            **axis,
            "title": {"text": escape(unit), "standoff": 8, "font": {"size": 12}},
            "range": [min(steps) - margin, max(steps) + margin],
            "showgrid": False,
            "showline": True,
            **({"tickvals": steps} if len(steps) <= 8 else {"nticks": 8}),
        },
        "yaxis": {
            **axis,
            "title": {"text": escape(curve.heading.axis), "standoff": 6, "font": {"size": 12}},
            "ticks": "",
            "nticks": 6,
            **({"rangemode": "nonnegative"} if _never_negative(curve) else {}),
        },
        "shapes": _guides(view),
        "annotations": _guide_names(view),
    }
    return {"data": [{**trace, "y": _short(trace["y"])} for trace in traces], "layout": layout}


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Heights with as many digits as a screen can show: more would double the page."""
    return [None if value is None else float(f"{value:.{DIGITS}g}") for value in values]


def _never_negative(curve: Curve) -> bool:
    """Whether every number drawn is at least 0, so that the axis must not promise less."""
    lows = [number.value for number in curve.values if number is not None and number.finite]
    return bool(lows) and min(lows) >= 0


def _guides(view: DefinitionPanel) -> list[Figure]:
    shapes = []
    pick, last = view.pick, view.last
    if last is not None and last is not pick:
        shapes.append(_upright(last, 1, {"color": MUTED, "width": 1, "dash": "dot"}))
    if pick is not None:
        shapes.append(_upright(pick, 1, {"color": ACCENT, "width": 1}))
    failed = {"color": ACCENT, "width": 2.5}
    shapes.extend(_upright(row, 0.045, failed) for row in view.checkpoints if row.error is not None)
    return shapes


def _upright(row: Checkpoint, height: float, line: Figure) -> Figure:
    place = {"xref": "x", "yref": "paper", "x0": row.step, "x1": row.step, "y0": 0, "y1": height}
    return {"type": "line", "layer": "below", "line": line, **place}


def _guide_names(view: DefinitionPanel) -> list[Figure]:
    pick, last = view.pick, view.last
    names = []
    if pick is not None:
        word = "pick = last" if pick.is_last else "pick"
        names.append((pick.step, word, ACCENT, "right" if pick.is_last else "center"))
    if last is not None and last is not pick:
        names.append((last.step, "last", MUTED, "right"))
    return [
        {
            "x": step,
            "y": 1,
            "xref": "x",
            "yref": "paper",
            "yanchor": "bottom",
            "xanchor": anchor,
            "text": word,
            "showarrow": False,
            "font": {"size": 12, "color": color},
        }
        for step, word, color, anchor in names
    ]


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"
