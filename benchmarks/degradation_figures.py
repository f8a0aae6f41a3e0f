"""The figures of the study of degradation, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from densescope.study.summary import RunSeries, StudySummary


@dataclass(frozen=True)
class Figure:
    """What a figure shows: a column is a kind of run, a row a number.

    Attributes:
        file: in docs/images.
        part: of the study.
        columns: arm, method, title and the ends of the axis of DSE.
        rows: data set or ``"dse"``, label and the ends of the axis, if all columns share it.
    """

    file: str
    part: str
    columns: Sequence[tuple[str, str, str, tuple[float, float]]]
    rows: Sequence[tuple[str, str, tuple[float, float] | None]]


FIGURES = (
    Figure(
        "degradation.svg",
        "spec",
        (
            ("constant", "mae", "MAE from fresh weights", (0.15, 0.45)),
            ("from-mae", "simsiam", "SimSiam from MAE", (0.15, 0.45)),
            ("from-mae-dse-1", "simsiam", "the same, minus DSE in the loss", (0.2, 1.3)),
        ),
        (
            ("camvid", "CamVid mIoU, %", (15.0, 27.0)),
            ("folders", "clothing mIoU, %", (8.0, 24.0)),
            ("dse", "DSE (lambda = 1)", None),
        ),
    ),
    Figure(
        "degradation-scenes.svg",
        "scenes",
        (
            ("raised", "mae", "MAE, rate raised to 0.1", (-0.1, 0.5)),
            ("raised", "vicreg", "VICReg, rate raised to 0.1", (-0.1, 0.5)),
            ("constant", "mae", "MAE, constant rate", (-0.1, 0.5)),
            ("constant", "vicreg", "VICReg, constant rate", (-0.1, 0.5)),
        ),
        (
            ("scenes", "scenes mIoU, %", (10.0, 70.0)),
            ("folders", "clothing mIoU, %", (5.0, 25.0)),
            ("dse", "DSE (lambda = 1)", None),
        ),
    ),
    Figure(
        "degradation-long.svg",
        "scenes-long",
        (
            ("long", "ijepa", "I-JEPA, 11,400 steps", (-0.1, 0.7)),
            ("long", "mocov3", "MoCo v3, 8,600 steps", (-0.1, 0.7)),
            ("long", "mae", "MAE, 13,900 steps", (-0.1, 0.7)),
            ("long", "dino", "DINO, 8,500 steps", (-0.1, 0.7)),
        ),
        (
            ("scenes", "scenes mIoU, %", (20.0, 90.0)),
            ("folders", "clothing mIoU, %", (5.0, 25.0)),
            ("dse", "DSE (lambda = 1)", None),
        ),
    ),
)
COLORS = ("#0072b2", "#b8540a")
CELL, GAP, LEFT, TOP = (200, 120), 26, 46, 48


@dataclass(frozen=True)
class Cell:
    """One panel of the figure.

    Attributes:
        left, top: its corner.
        low, high: of the vertical axis.
        lines: name -> values by checkpoint, all of one panel over the same width.
    """

    left: float
    top: float
    low: float
    high: float
    lines: Sequence[tuple[str, Sequence[float]]]

    def svg(self, *, named: bool) -> str:
        """Axes, lines, and the names of the lines at their ends."""
        width, height = CELL
        floor = self.top + height

        def y(value: float) -> float:
            return floor - height * (value - self.low) / (self.high - self.low)

        parts = [
            f'<path d="M{self.left} {self.top}V{floor}H{self.left + width}" class="axis"/>',
            *(
                f'<text x="{self.left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
                for v in (self.low, self.high)
            ),
        ]
        for number, (name, values) in enumerate(self.lines):
            span = max(len(values) - 1, 1)
            points = " ".join(
                f"{self.left + width * place / span:.1f},{y(value):.1f}"
                for place, value in enumerate(values)
                if value == value
            )
            color = COLORS[number % len(COLORS)]
            dash = ' stroke-dasharray="5 3"' if number else ""
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
            )
            if named:
                across = self.left + 8 + 80 * number
                parts.append(
                    f'<text x="{across}" y="{floor + 15}" style="fill:{color}">{name}</text>'
                )
        return "".join(parts)


def drawn(figure: Figure, summary: StudySummary) -> str:
    """The figure as SVG."""
    step = CELL[0] + GAP + 24
    width = LEFT + len(figure.columns) * step
    height = TOP + len(figure.rows) * (CELL[1] + GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Labelled accuracy and DSE over the checkpoints of several kinds of run">'
        "<style>text{font:12px sans-serif;fill:#444}.head{font-weight:600;font-size:13px}"
        ".axis{stroke:#888;fill:none}</style>"
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
    ]
    for column, (arm, method, title, of_dse) in enumerate(figure.columns):
        left = LEFT + column * step
        parts.append(f'<text x="{left}" y="18" class="head">{title}</text>')
        under = TOP + len(figure.rows) * (CELL[1] + GAP) + 6
        parts.append(f'<text x="{left + CELL[0]}" y="{under}" text-anchor="end">checkpoint</text>')
        for row, (what, label, ends) in enumerate(figure.rows):
            top, (low, high) = TOP + row * (CELL[1] + GAP), ends or of_dse
            found = [one for one in summary.series if (one.arm, one.method) == (arm, method)]
            parts.append(f'<text x="{left}" y="{top - 6}">{label}</text>')
            cell = Cell(left, top, low, high, _lines(found, what))
            parts.append(cell.svg(named=row == len(figure.rows) - 1))
    return "".join([*parts, "</svg>"])


def _lines(found: Sequence[RunSeries], what: str) -> list[tuple[str, Sequence[float]]]:
    lines: dict[str, Sequence[float]] = {}
    for one in found:
        name = f"seed {one.seed}"
        if what == "dse":
            lines.setdefault(name, one.values["dse"])
        elif one.probe_set.startswith(what):
            lines[name] = [100 * value for value in one.values["miou"]]
    return list(lines.items())
