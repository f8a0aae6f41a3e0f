"""Tables and figure of the study of degradation, from its records: ``make study``.

    python -m benchmarks.degradation

Writes studies/degradation/first-look.md and results.md and docs/images/degradation.svg.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densescope.records import write_json
from densescope.study.spec import StudySpec, read_spec
from densescope.study.summary import RunSeries, StudySummary, summarize
from densescope.study.tables import markdown
from densescope.writing import replacing

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "degradation"
FIGURE = ROOT / "docs" / "images" / "degradation.svg"
PARTS = {"explore": "first-look", "spec": "results"}
# Of the figure: a column is a kind of run, a row a number.
COLUMNS = (
    ("constant", "mae", "MAE from fresh weights", (0.15, 0.45)),
    ("from-mae", "simsiam", "SimSiam from MAE", (0.15, 0.45)),
    ("from-mae-dse-1", "simsiam", "the same, minus DSE in the loss", (0.2, 1.3)),
)
ROWS = (
    ("camvid", "CamVid mIoU, %", (15.0, 27.0)),
    ("folders", "clothing mIoU, %", (8.0, 24.0)),
    ("dse", "DSE (lambda = 1)", None),
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


def figure(summary: StudySummary) -> str:
    """The figure of the page: what labels and DSE say of three kinds of run of part 2."""
    width = LEFT + len(COLUMNS) * (CELL[0] + GAP + 24)
    height = TOP + len(ROWS) * (CELL[1] + GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Labelled accuracy and DSE over the checkpoints of three kinds of run">'
        "<style>text{font:12px sans-serif;fill:#444}.head{font-weight:600;font-size:13px}"
        ".axis{stroke:#888;fill:none}</style>"
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
    ]
    for column, (arm, method, title, of_dse) in enumerate(COLUMNS):
        left = LEFT + column * (CELL[0] + GAP + 24)
        parts.append(f'<text x="{left}" y="18" class="head">{title}</text>')
        under = TOP + len(ROWS) * (CELL[1] + GAP) + 6
        parts.append(f'<text x="{left + CELL[0]}" y="{under}" text-anchor="end">checkpoint</text>')
        for row, (what, label, ends) in enumerate(ROWS):
            top, (low, high) = TOP + row * (CELL[1] + GAP), ends or of_dse
            found = [one for one in summary.series if (one.arm, one.method) == (arm, method)]
            lines = _lines(found, what)
            parts.append(f'<text x="{left}" y="{top - 6}">{label}</text>')
            parts.append(Cell(left, top, low, high, lines).svg(named=row == len(ROWS) - 1))
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


def unpacked(name: str, folder: Path) -> tuple[StudySpec, Path]:
    """The records of one part of the study, and its specification."""
    with tarfile.open(STUDY / f"{PARTS[name]}.tar.xz") as archive:
        archive.extractall(folder / name, filter="data")
    return read_spec(STUDY / f"{name}.toml"), folder / name / "study"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = {name: summarize(*unpacked(name, Path(temporary))) for name in PARTS}
    for name, title in PARTS.items():
        text = f"# {title.replace('-', ' ').capitalize()}\n\n{markdown(found[name])}\n"
        with replacing(STUDY / f"{title}.md") as place:
            place.write_text(text, encoding="utf-8")
        sentences = {answer.run: dict(answer.sentences) for answer in found[name].answers}
        write_json(sentences, STUDY / f"{title}-verdicts.json")
    with replacing(FIGURE) as place:
        place.write_text(figure(found["spec"]) + "\n", encoding="utf-8")
    print(json.dumps({name: len(summary.answers) for name, summary in found.items()}))


if __name__ == "__main__":
    main()
