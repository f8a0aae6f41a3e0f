"""What a study found: a row per method and way to train, and the course of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from densescope.correlation import losses_by_checkpoint, read_losses
from densescope.correlation.pairing import drawn_labels
from densescope.errors import RecordError
from densescope.pretraining.recorder import LOG
from densescope.records import ProbeRecord, ScoreRecord, plain
from densescope.runs.correlate import Judgement, judge_run
from densescope.runs.store import RunStore
from densescope.selection import RunTable
from densescope.study.answers import (
    HeldOutChoice,
    RunAnswer,
    WayAnswer,
    held_out_choices,
    run_answer,
    way_answers,
)
from densescope.study.run import cells_done
from densescope.study.spec import Cell, StudySpec
from densescope.study.spread import Spread
from densescope.study.taus import MeanTaus, mean_taus

# Name in the tables -> metric; DSE of one checkpoint by itself, as lambda differs between runs.
PARTS = {
    "dse": "released.dse_lambda_1",
    "separability": "released.separability",
    "effective_rank": "released.effective_rank",
}


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
        noise_known: runs of which that is known: their probes hold pixel counts, or several seeds.
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
    noise_known: int
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
        taus: of every metric, mean over the runs without a regularizer (over all where there are
            no others); ``None`` without probes.
        regularized: the same over the runs with one, which may raise a metric without making
            patches better; ``None`` where there are none.
        answers: one per run.
        ways: mean regret over the same runs as ``taus``, one per way to choose.
        held_out: ways chosen on all methods but one.
        missing: runs of the study that are not there yet.
    """

    rows: tuple[StudyRow, ...]
    series: tuple[RunSeries, ...]
    taus: MeanTaus | None
    regularized: MeanTaus | None
    answers: tuple[RunAnswer, ...]
    ways: tuple[WayAnswer, ...]
    held_out: tuple[HeldOutChoice, ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN as ``None``."""
        document: dict[str, Any] = plain(
            {
                "rows": [asdict(row) for row in self.rows],
                "series": [asdict(series) for series in self.series],
                "answers": [asdict(answer) for answer in self.answers],
                "ways": [asdict(way) for way in self.ways],
                "held_out": [asdict(choice) for choice in self.held_out],
                "missing": list(self.missing),
                "taus": None if self.taus is None else self.taus.to_json(),
                "regularized": None if self.regularized is None else self.regularized.to_json(),
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

    A run is judged up to the last checkpoint that all of its labelled sets have probed.

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
    judged = [run for run in runs if run.judgement is not None]
    free = [run for run in judged if run.cell.arm.regularizer is None] or judged
    others = [run for run in judged if run not in free]
    by_cell: dict[str, list[_Run]] = {}
    for run in runs:
        by_cell.setdefault(run.cell.name, []).append(run)
    tables = {
        name: [run.judgement.regret for run in of_cell if run in free and run.judgement]
        for name, of_cell in by_cell.items()
    }
    regrets = [(by_cell[name][0].cell.method, found) for name, found in tables.items() if found]
    there = {cell.name for cell, _ in done}
    return StudySummary(
        rows=tuple(rows),
        series=tuple(_series(run) for run in runs),
        taus=_taus(free),
        regularized=_taus(others),
        answers=tuple(
            run_answer(
                name,
                of_cell[0].table,
                {run.probe_set: run.probes for run in of_cell if run.probes},
                {run.probe_set: run.judgement.regret for run in of_cell if run.judgement},
            )
            for name, of_cell in by_cell.items()
        ),
        ways=way_answers([found for _, found in regrets]),
        held_out=held_out_choices(regrets),
        missing=tuple(cell.name for cell in spec.cells() if cell.name not in there),
    )


def _taus(runs: Sequence[_Run]) -> MeanTaus | None:
    return mean_taus([(run.judgement, run.probes) for run in runs if run.judgement is not None])


def _losses(run: Path, records: Sequence[ScoreRecord]) -> dict[str, float] | None:
    """The training loss of each checkpoint, where the run has kept its log."""
    if not (run / LOG).is_file():
        return None
    losses = losses_by_checkpoint(read_losses(run / LOG), records)
    return losses if len(losses) == len(records) else None


def _runs(cell: Cell, store: RunStore) -> list[_Run]:
    records, probe_sets = store.records(), store.probes()
    good = {
        name: {probe.name for probe in probes if probe.status == "probed"}
        for name, probes in probe_sets.items()
        if not any(map(drawn_labels, probes))  # probes with few labels choose and do not judge
    }
    if not good:
        return [_Run(cell, "", RunTable.of(records, {}), [], None)]
    shared = set.intersection(*good.values())
    until = max((record.step for record in records if record.name in shared), default=math.inf)
    table = RunTable.of([record for record in records if record.step <= until], probe_sets)
    kept = {record.name for record in table.records}
    losses = _losses(store.folder.parent / "run", table.records)
    found = []
    for probe_set, names in good.items():
        probed = [probe for probe in table.probes[probe_set] if probe.name in names & kept]
        able, layer = probed and table.scored, table.last_layer
        judged = judge_run(table, probed, losses=losses, layer=layer) if able else None
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
        noise_known=sum(judgement.degradation.degraded is not None for judgement in judged),
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
