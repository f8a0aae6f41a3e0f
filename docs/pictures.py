"""Pictures of metrics on a healthy and on a collapsing run, as SVG drawn from stored numbers.

``python -m benchmarks.pictured`` trains both runs and writes the numbers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STORED = Path(__file__).resolve().parent / "reference" / "pictured.json"
# Line, dash and marker differ too, for readers who do not see the colors.
LOOKS = {"healthy": ("#0072b2", ""), "collapsing": ("#d55e00", ' stroke-dasharray="5 3"')}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 170, 62, 84, 12, 34
APART = 12  # least distance of the two names at the ends of the lines
Point = tuple[float | None, float | None, float | None]  # value, low, high


@functools.cache
def stored() -> dict[str, Any]:
    """Steps and metrics of both runs."""
    document: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return document


def metric_picture(row: Any) -> str:
    """The picture of a metric, and what it says at the end of both runs.

    Args:
        row: of ``METRICS``.

    Returns:
        A figure in HTML; empty where the metric was not scored on these runs.
    """
    runs = {
        name: run["metrics"][row.name]
        for name, run in stored().items()
        if row.name in run["metrics"]
    }
    if len(runs) < len(LOOKS):
        return ""
    steps = stored()["healthy"]["steps"]
    words = verdict(row, {name: points[-1][0] for name, points in runs.items()})
    drawing = _svg(steps, runs, f"{row.title} over the steps of both runs. {words}")
    return f'<figure class="picture">{drawing}<figcaption>{words}</figcaption></figure>'


def verdict(row: Any, last: Mapping[str, float | None]) -> str:
    """Which of the two runs a metric holds to be better at the end, as a sentence."""
    healthy, collapsing = last["healthy"], last["collapsing"]
    if healthy is None or collapsing is None:
        return "One of the runs has no finite value at the end."
    if getattr(row.made_by, "over_run", False):
        return "The two lines do not compare: a value depends on the other checkpoints of its run."
    values = f"({healthy:.3g} against {collapsing:.3g})"
    good, bad = row.badness(healthy), row.badness(collapsing)
    if good == bad:
        return f"It does not tell the runs apart at the end {values}."
    if good < bad:
        return f"The healthy run has the better value at the end {values}."
    return f"<strong>Misled:</strong> the collapsing run has the better value at the end {values}."


def _svg(steps: Sequence[int], runs: Mapping[str, Sequence[Point]], label: str) -> str:
    known = [number for points in runs.values() for point in points for number in point]
    numbers = [number for number in known if number is not None]
    low, high = min(numbers), max(numbers)
    span = (high - low) or abs(high) or 1.0

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - steps[0]) / (steps[-1] - steps[0])

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / span

    ends = {name: y(points[-1][0] or 0.0) for name, points in runs.items()}
    first, second = sorted(ends, key=lambda name: ends[name])
    gap = max(0.0, APART - (ends[second] - ends[first])) / 2
    ends[first], ends[second] = ends[first] - gap, ends[second] + gap
    parts = [_axes(steps, low, high, x, y)]
    for name, points in runs.items():
        color, dash = LOOKS[name]
        drawn = [(x(s), p) for s, p in zip(steps, points, strict=True) if None not in p]
        band = [f"{at:.1f},{y(p[1]):.1f}" for at, p in drawn]
        band += [f"{at:.1f},{y(p[2]):.1f}" for at, p in reversed(drawn)]
        line = " ".join(
            f"{x(s):.1f},{y(p[0]):.1f}"
            for s, p in zip(steps, points, strict=True)
            if p[0] is not None
        )
        parts.append(f'<polygon points="{" ".join(band)}" fill="{color}" opacity="0.18"/>')
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
        )
        parts += [_marker(name, point, color) for point in line.split()]
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{ends[name] + 4:.1f}" fill="{color}">{name}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_plain(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _marker(name: str, point: str, color: str) -> str:
    across, down = point.split(",")
    if name == "healthy":
        return f'<circle cx="{across}" cy="{down}" r="3" fill="{color}"/>'
    place = f'x="{float(across) - 3:.1f}" y="{float(down) - 3:.1f}"'
    return f'<rect {place} width="6" height="6" fill="{color}"/>'


def _axes(steps: Sequence[int], low: float, high: float, x: Any, y: Any) -> str:
    floor = HEIGHT - BOTTOM
    made = [
        f'<path d="M{LEFT - 6} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="currentColor" '
        'opacity="0.5"/>'
    ]
    for value in (low, high):
        made.append(
            f'<text x="{LEFT - 10}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for step in (steps[0], steps[-1]):
        made.append(f'<text x="{x(step):.1f}" y="{floor + 15}" text-anchor="middle">{step}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    made.append(f'<text x="{middle:.1f}" y="{floor + 15}" text-anchor="middle">step</text>')
    return "".join(made)


def _plain(text: str) -> str:
    return text.replace("<strong>", "").replace("</strong>", "").replace('"', "&quot;")
