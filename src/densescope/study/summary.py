"""What a study found: a row per method and way to train, and the course of its runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from densescope.correlation import MeanCorrelation, mean_correlation
from densescope.errors import RecordError
from densescope.estimate import student_quantile
from densescope.evaluation.measures import measure_of
from densescope.records import ProbeRecord
from densescope.runs.correlate import Judgement, judge_run
from densescope.runs.store import RunStore
from densescope.selection import RunTable
from densescope.study.run import cells_done
from densescope.study.spec import Cell, StudySpec

# Name in the tables -> metric; DSE of one checkpoint by itself, as lambda differs between runs.
PARTS = {
    "dse": "released.dse_lambda_1",
    "separability": "released.separability",
    "effective_rank": "released.effective_rank",
}


@dataclass(frozen=True)
class Spread:
    """The mean of a number over runs, and what their scatter says of it.

    Attributes:
        value: the mean.
        runs: how many.
        half: half of Student's 95 % interval; ``None`` for one run.
    """

    value: float
    runs: int
    half: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Of the finite values; ``None`` without any."""
        known = [value for value in values if math.isfinite(value)]
        if not known:
            return None
        half = None
        if len(known) > 1:
            error = statistics.stdev(known) / math.sqrt(len(known))
            half = student_quantile(0.95, len(known) - 1) * error
        return cls(statistics.fmean(known), len(known), half)

    def text(self, scale: float = 1.0, digits: int = 2, *, sign: bool = False) -> str:
        """``12.30 +- 0.40``."""
        value = f"{scale * self.value:{'+' if sign else ''}.{digits}f}"
        return value if self.half is None else f"{value} ± {scale * self.half:.{digits}f}"


@dataclass(frozen=True)
class StudyRow:
    """What the runs of one method and arm say, on one labelled set.

    Attributes:
        method: row of ``METHODS``.
        arm: name of the arm.
        probe_set: data set and protocol; empty where nothing was probed.
        measure: of the probe.
        runs: how many seeds.
        last: the measure at the last checkpoint.
        drop: best checkpoint minus last: degradation, at least 0 and too large by noise.
        degraded: runs whose drop exceeds the noise of the probe.
        gain: DSE pick minus last.
        regret: best minus DSE pick.
        tau: number -> Kendall's tau with the measure.
        numbers: DSE (lambda = 1), separability and effective rank of the last checkpoint.
        effect: difference from the first arm at the last checkpoint, seed by seed: the measure
            under its own name, and each of ``numbers``; empty for the first arm.
    """

    method: str
    arm: str
    probe_set: str
    measure: str
    runs: int
    last: Spread | None
    drop: Spread | None
    degraded: int
    gain: Spread | None
    regret: Spread | None
    tau: Mapping[str, Spread | None]
    numbers: Mapping[str, Spread | None]
    effect: Mapping[str, Spread | None]


@dataclass(frozen=True)
class RunSeries:
    """One run over its checkpoints.

    Attributes:
        method, arm, seed, probe_set: which run and labels.
        steps: of the checkpoints.
        values: ``"dse"``, ``"separability"``, ``"effective_rank"`` and the measure, a number
            per step; NaN where there is none.
    """

    method: str
    arm: str
    seed: int
    probe_set: str
    steps: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class StudySummary:
    """Everything a study's tables and figure show.

    Attributes:
        rows: one per method, arm and labelled set.
        series: one per run and labelled set.
        correlation: mean tau over all runs, beside the paper's; ``None`` without probes.
        missing: runs of the study that are not there yet.
    """

    rows: tuple[StudyRow, ...]
    series: tuple[RunSeries, ...]
    correlation: MeanCorrelation | None
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN as ``None``."""
        document: dict[str, Any] = _finite(
            {
                "rows": [asdict(row) for row in self.rows],
                "series": [asdict(series) for series in self.series],
                "missing": list(self.missing),
                "correlation": None if self.correlation is None else self.correlation.to_json(),
            }
        )
        return document


@dataclass(frozen=True)
class _Run:
    cell: Cell
    probe_set: str
    table: RunTable
    probes: Sequence[ProbeRecord]
    judgement: Judgement | None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.cell.method, self.cell.arm.name, self.probe_set


def summarize(spec: StudySpec, output: Path | str) -> StudySummary:
    """Read what is there of a study.

    Raises:
        RecordError: no run of it has been scored yet.
    """
    done = cells_done(spec, output)
    if not done:
        raise RecordError(f"{output} holds no scored run of this study yet")
    runs = [run for cell, folder in done for run in _runs(cell, RunStore(folder))]
    groups: dict[tuple[str, str, str], list[_Run]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    first = spec.arms[0].name
    rows = [
        _row(key, group, groups.get((key[0], first, key[2]), [])) for key, group in groups.items()
    ]
    judged = [run.judgement.correlation for run in runs if run.judgement is not None]
    there = {cell.name for cell, _ in done}
    return StudySummary(
        rows=tuple(rows),
        series=tuple(_series(run) for run in runs),
        correlation=mean_correlation(judged) if judged else None,
        missing=tuple(cell.name for cell in spec.cells() if cell.name not in there),
    )


def _runs(cell: Cell, store: RunStore) -> list[_Run]:
    table = RunTable.of(store.records(), store.probes())
    if not table.probes:
        return [_Run(cell, "", table, [], None)]
    found = []
    for probe_set, probes in table.probes.items():
        probed = [probe for probe in probes if probe.status == "probed"]
        judged = judge_run(table, probed) if probed and table.scored else None
        found.append(_Run(cell, probe_set, table, probed, judged))
    return found


def _row(key: tuple[str, str, str], group: Sequence[_Run], plain: Sequence[_Run]) -> StudyRow:
    judged = [run.judgement for run in group if run.judgement is not None]
    ways = [judgement.regret.row("released.pick") for judgement in judged]
    taus = {
        row.number: Spread.of([_tau(judgement, row.number) for judgement in judged])
        for row in (judged[0].correlation.rows if judged else ())
    }
    method, arm, probe_set = key
    measure = group[0].probes[0].measure if group[0].probes else ""
    return StudyRow(
        method=method,
        arm=arm,
        probe_set=probe_set,
        measure=measure,
        runs=len(group),
        last=Spread.of([judgement.degradation.last_value for judgement in judged]),
        drop=Spread.of([judgement.degradation.drop for judgement in judged]),
        degraded=sum(judgement.degradation.degraded is True for judgement in judged),
        gain=Spread.of([math.nan if way.gain is None else way.gain for way in ways]),
        regret=Spread.of([math.nan if way.regret is None else way.regret for way in ways]),
        tau=taus,
        numbers={
            part: Spread.of([_values(run.table, part)[-1] for run in group]) for part in PARTS
        },
        effect={} if not plain or plain[0].cell.arm.name == arm else _effect(group, plain),
    )


def _effect(group: Sequence[_Run], plain: Sequence[_Run]) -> dict[str, Spread | None]:
    """Differences of the last checkpoints of runs with the same seed."""
    others = {run.cell.settings.seed: run for run in plain}
    pairs = [
        (run, others[run.cell.settings.seed]) for run in group if run.cell.settings.seed in others
    ]
    changes: dict[str, list[float]] = {}
    for run, other in pairs:
        for part in PARTS:
            ours, theirs = _values(run.table, part)[-1], _values(other.table, part)[-1]
            changes.setdefault(part, []).append(ours - theirs)
        if run.judgement is not None and other.judgement is not None:
            found, before = run.judgement.degradation, other.judgement.degradation
            changes.setdefault(found.measure, []).append(found.last_value - before.last_value)
    return {name: Spread.of(values) for name, values in changes.items()}


def _values(table: RunTable, part: str) -> list[float]:
    """One part of DSE at every scored checkpoint, at the last layer that was scored."""
    series = table.column(PARTS[part], table.last_layer).series
    return [series[record.name].value for record in table.scored]


def _tau(judgement: Judgement, number: str) -> float:
    tau = judgement.correlation.tau(number)
    return math.nan if tau is None else tau.value


def _series(run: _Run) -> RunSeries:
    probed = {probe.name: probe.value for probe in run.probes}
    columns = {part: _values(run.table, part) for part in PARTS}
    if run.probes:
        names = [record.name for record in run.table.scored]
        columns[run.probes[0].measure] = [probed.get(name, math.nan) for name in names]
    return RunSeries(
        method=run.cell.method,
        arm=run.cell.arm.name,
        seed=run.cell.settings.seed,
        probe_set=run.probe_set,
        steps=tuple(record.step for record in run.table.scored),
        values={name: tuple(values) for name, values in columns.items()},
    )


def markdown(summary: StudySummary) -> str:
    """The rows as a table in Markdown, in percent points where the measure is a fraction.

    Columns that are empty in every row, such as those of labels where nothing was probed, are left
    out.
    """
    head = (
        "method",
        "arm",
        "labels",
        "runs",
        "last",
        "best - last",
        "degraded",
        "pick - last",
        "tau of DSE",
        "DSE (lambda = 1)",
        "separability",
        "effective rank",
        "effect on labels",
        "effect on DSE (lambda = 1)",
    )
    table: list[Sequence[str]] = [head]
    for row in summary.rows:
        measure = measure_of(row.measure)
        scale = measure.scale

        def shown(spread: Spread | None, by: float = 1.0, digits: int = 3, *, sign: bool) -> str:
            return "" if spread is None else spread.text(by, digits, sign=sign)

        cells = [
            row.method,
            row.arm,
            row.probe_set,
            str(row.runs),
            shown(row.last, scale, 2, sign=False),
            shown(row.drop, scale, 2, sign=False),
            f"{row.degraded} of {row.runs}" if row.probe_set else "",
            shown(row.gain, scale, 2, sign=True),
            shown(row.tau.get("released.dse"), 1, 2, sign=True),
            *(shown(row.numbers[part], 1, 3, sign=False) for part in PARTS),
            shown(row.effect.get(row.measure), scale, 2, sign=True),
            shown(row.effect.get("dse"), 1, 4, sign=True),
        ]
        table.append(cells)
    filled = [column for column in zip(*table, strict=True) if any(column[1:])]
    lines = ["| " + " | ".join(cells) + " |" for cells in zip(*filled, strict=True)]
    return "\n".join([lines[0], "|" + " --- |" * len(filled), *lines[1:]])


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
