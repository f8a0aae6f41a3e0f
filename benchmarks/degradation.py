"""Tables and figure of the study of degradation, from its records: ``make study``.

    python -m benchmarks.degradation

Writes first-look.md, results.md and scenes-results.md in studies/degradation, and
docs/images/degradation.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from densescope.correlation import kendall_tau
from densescope.records import write_json
from densescope.study.answers import RunAnswer
from densescope.study.spec import StudySpec, read_spec
from densescope.study.spread import Spread
from densescope.study.summary import RunSeries, StudySummary, summarize
from densescope.study.tables import markdown
from densescope.writing import replacing

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "degradation"
IMAGES = ROOT / "docs" / "images"
PARTS = {"explore": "first-look", "spec": "results", "scenes": "scenes-results"}
SCENES = "scenes"  # whose arms are tabled one by one
PHOTOS = "scenes-on-photos"  # the same runs, scored on other images
LAMBDAS = {"released.pick_lambda_run": "of the run", "released.pick": "1"}


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
            ("raised", "mae", "MAE, rate raised to 0.1", (-0.1, 0.3)),
            ("raised", "vicreg", "VICReg, rate raised to 0.1", (-0.1, 0.3)),
            ("constant", "mae", "MAE, constant rate", (-0.1, 0.3)),
            ("constant", "vicreg", "VICReg, constant rate", (0.1, 0.5)),
        ),
        (
            ("scenes", "scenes mIoU, %", (10.0, 70.0)),
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


def by_arm(spec: StudySpec, folder: Path) -> str:
    """The tables of each arm by itself, and which lambda chose better over all runs."""
    parts = []
    for arm in spec.arms:
        alone = summarize(replace(spec, arms=(arm,)), folder)
        text = markdown(alone).replace("\n## ", "\n### ").replace("## ", "### ", 1)
        parts += [f"## The arm {arm.name}", text]
    free = tuple(arm for arm in spec.arms if arm.regularizer is None)
    answers = summarize(replace(spec, arms=free), folder).answers
    return "\n\n".join([*parts, lambda_text(answers), guarded_text(answers)])


def lambda_text(answers: Sequence[RunAnswer], domain: str = SCENES) -> str:
    """The regret of the pick with each lambda in the domain of the training images."""
    regrets = [
        found for answer in answers for name, found in answer.regrets.items() if domain in name
    ]
    values = {way: [found[way] for found in regrets] for way in LAMBDAS}
    means = {way: Spread.of(one) for way, one in values.items()}
    lines = [
        f"- lambda {LAMBDAS[way]}: {mean.text(100, 2)}"
        for way, mean in means.items()
        if mean is not None
    ]
    pairs = zip(*values.values(), strict=True)
    more = Spread.of([first - second for first, second in pairs])
    if more is not None:
        lines.append(
            f"- more with the lambda of the run: {more.text(100, 2, sign=True)} ({more.runs} runs)"
        )
    return f"## Which lambda? Regret of the pick (released) on {domain}\n\n" + "\n".join(lines)


def guarded_text(answers: Sequence[RunAnswer]) -> str:
    """The rule of part 4 of the plan, on the runs it was found on and on the others."""
    lines = []
    for title, seen, arm in (
        ("found on, constant", True, "constant"),
        ("found on, raised", True, "raised"),
        ("others, constant", False, "constant"),
        ("others, raised", False, "raised"),
        ("others, all", False, ""),
    ):
        runs = [one for one in answers if arm in one.run and _seen(one.run) == seen]
        cells = []
        for way in ("last", "guarded", "released.pick"):
            values = [
                statistics.fmean(found[way] for found in one.regrets.values()) for one in runs
            ]
            cells.append(values)
        cells.append([a - b for a, b in zip(cells[1], cells[0], strict=True)])
        spreads = [Spread.of(values) for values in cells]
        texts = ["" if one is None else one.text(100, 2) for one in spreads]
        alarms = sum(one.alarm is not None for one in runs)
        lines.append(f"| {title} | {' | '.join(texts)} | {alarms} of {len(runs)} |")
    head = "| runs | last | guarded | DSE pick (lambda 1) | guarded - last | alarms |\n|"
    return "\n".join(["## The guarded choice: regret", "", head + " --- |" * 6, *lines])


def _seen(run: str) -> bool:
    return run.endswith("seed1") and run.split("-")[0] in ("mae", "vicreg", "mocov3", "simsiam")


def in_domain(summary: StudySummary) -> dict[str, dict[str, float]]:
    """Of each run: tau of DSE (lambda = 1) with scenes, and the regret there of its pick."""
    found = {f"{one.method}-{one.arm}-seed{one.seed}": one for one in summary.series if _in(one)}
    return {
        answer.run: {"tau": _tau(found[answer.run]), "regret": regrets["released.pick"]}
        for answer in summary.answers
        for name, regrets in answer.regrets.items()
        if name.startswith(SCENES)
    }


def photos_text(on_scenes: StudySummary) -> str:
    """What scoring on photos changes, run by run, judged in the domain of the training images.

    The records of the photos are not kept, only these two numbers of each run.
    """
    scenes, photos = in_domain(on_scenes), json.loads((STUDY / f"{PHOTOS}.json").read_text())
    lines = []
    for title, key, scale in (
        ("tau of DSE (lambda = 1)", "tau", 1),
        ("regret of the pick with lambda 1, in points", "regret", 100),
    ):
        both = [(photos[run][key], scenes[run][key]) for run in scenes if run in photos]
        columns = ([a for a, _ in both], [b for _, b in both], [a - b for a, b in both])
        spreads = [Spread.of(values) for values in columns]
        texts = ["" if one is None else one.text(scale, 2, sign=True) for one in spreads]
        lines.append(f"| {title} | {' | '.join(texts)} | {len(both)} |")
    head = "| | scored on photos | scored on scenes | difference | runs |\n|" + " --- |" * 5
    return "\n".join(["## Other images for scoring", "", head, *lines])


def _in(series: RunSeries) -> bool:
    return series.probe_set.startswith(SCENES)


def _tau(series: RunSeries) -> float:
    tau = kendall_tau(series.values["dse"], series.values["miou"])
    return math.nan if tau is None else tau


def unpacked(name: str, folder: Path) -> tuple[StudySpec, Path]:
    """The records of one part of the study, and its specification."""
    with tarfile.open(STUDY / f"{PARTS[name]}.tar.xz") as records:
        records.extractall(folder / name, filter="data")
    return read_spec(STUDY / f"{name}.toml"), folder / name / "study"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, title in PARTS.items():
            spec, folder = unpacked(name, Path(temporary))
            found[name] = summarize(spec, folder)
            if name == SCENES:
                tables = f"{by_arm(spec, folder)}\n\n{photos_text(found[name])}"
            else:
                tables = markdown(found[name])
            head = title.replace("-", " ").capitalize()
            with replacing(STUDY / f"{title}.md") as place:
                place.write_text(f"# {head}\n\n{tables}\n", encoding="utf-8")
            sentences = {answer.run: dict(answer.sentences) for answer in found[name].answers}
            write_json(sentences, STUDY / f"{title}-verdicts.json")
    for figure in FIGURES:
        with replacing(IMAGES / figure.file) as place:
            place.write_text(drawn(figure, found[figure.part]) + "\n", encoding="utf-8")
    print(json.dumps({name: len(summary.answers) for name, summary in found.items()}))


if __name__ == "__main__":
    main()
