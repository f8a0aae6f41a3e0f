"""What a study says of its questions: which runs declined, what saw it, which choice pays."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from densescope.correlation.regret import RegretTable
from densescope.correlation.sets import verdict_over_sets
from densescope.evaluation.measures import measure_of
from densescope.records import ProbeRecord
from densescope.selection import RunTable, first_alarm
from densescope.study.spread import Spread


@dataclass(frozen=True)
class RunAnswer:
    """Whether one run declined, and whether its alarm said so.

    Attributes:
        run: name of its folder.
        checkpoints: how many were scored.
        courses: labelled set and protocol -> the measure at the first, the best and the last
            probed checkpoint.
        best_at: the same -> the step of the best one.
        regrets: the same -> what each way to choose costs, by its short name.
        calls: protocol -> ``"decline"``, ``"no decline"`` or ``"disagreement"`` of two labelled
            sets or more, as :func:`~densescope.correlation.sets.verdict_over_sets` has it.
        sentences: protocol -> the same in words, with intervals.
        alarm: the first checkpoint at which the alarm of the default rule stands, if ever.
        alarm_step: its step.
    """

    run: str
    checkpoints: int
    courses: Mapping[str, tuple[float, float, float]]
    best_at: Mapping[str, int]
    regrets: Mapping[str, Mapping[str, float]]
    calls: Mapping[str, str]
    sentences: Mapping[str, str]
    alarm: str | None
    alarm_step: int | None


@dataclass(frozen=True)
class WayAnswer:
    """What one way to choose a checkpoint costs over the runs.

    Attributes:
        way: of :func:`~densescope.correlation.regret_table`.
        title: for people.
        needs_labels: whether it uses labels.
        regret: mean over the runs; of each run the mean over its labelled sets.
        against_last: mean over the runs of the difference from the regret of the last checkpoint;
            below 0 where the way is better. ``None`` where a last checkpoint was not probed.
        seconds: of scoring and probing that the way needs in a run, mean over runs and their
            labelled sets, by the records' ``timing``; ``None`` where a record lacks it.
    """

    way: str
    title: str
    needs_labels: bool
    regret: Spread
    against_last: Spread | None
    seconds: float | None


@dataclass(frozen=True)
class HeldOutChoice:
    """The best way on all methods but one, and what it costs on that one.

    Attributes:
        method: that was left out.
        way: the label-free way with the least mean regret on the other methods.
        regret: its mean regret on the runs of this method.
        last: that of taking the last checkpoint there.
    """

    method: str
    way: str
    regret: float
    last: float


def run_answer(
    name: str,
    table: RunTable,
    probes: Mapping[str, Sequence[ProbeRecord]],
    regrets: Mapping[str, RegretTable],
) -> RunAnswer:
    """The answer of one run.

    Args:
        name: of the run.
        table: its scores.
        probes: labelled set and protocol -> probes that have a value, in order of step.
        regrets: the same -> what ways to choose cost.
    """
    courses, best_at = {}, {}
    for key, of_set in probes.items():
        sign = measure_of(of_set[0].measure).sign
        best = max(of_set, key=lambda probe: sign * probe.value)
        courses[key] = (of_set[0].value, best.value, of_set[-1].value)
        best_at[key] = best.step
    judged = verdict_over_sets(probes)
    first = first_alarm(table, layer=table.last_layer)
    return RunAnswer(
        run=name,
        checkpoints=len(table.scored),
        courses=courses,
        best_at=best_at,
        regrets={
            key: {row.way: row.regret for row in found.rows if row.regret is not None}
            for key, found in regrets.items()
        },
        calls={one.protocol: one.verdict.call for one in judged},
        sentences={one.protocol: one.sentence for one in judged},
        alarm=None if first is None else first.last,
        alarm_step=None if first is None else first.last_step,
    )


def way_answers(runs: Sequence[Sequence[RegretTable]]) -> tuple[WayAnswer, ...]:
    """The mean regret of each way that every run has, the least first.

    Args:
        runs: of each run one table per labelled set.
    """
    shared = _regrets(runs)
    last = shared.get("last")
    every = [row for tables in runs for table in tables for row in table.rows]
    rows = {row.way: row for row in every}
    seconds: dict[str, list[float]] = {}
    for row in every:
        seconds.setdefault(row.way, []).append(math.nan if row.seconds is None else row.seconds)
    taken = {way: statistics.fmean(values) for way, values in seconds.items()}
    found = [
        WayAnswer(
            way,
            rows[way].title,
            rows[way].needs_labels,
            spread,
            None if last is None else Spread.of([a - b for a, b in zip(values, last, strict=True)]),
            None if math.isnan(taken[way]) else taken[way],
        )
        for way, values in shared.items()
        if (spread := Spread.of(values)) is not None
    ]
    return tuple(sorted(found, key=lambda answer: answer.regret.value))


def held_out_choices(
    runs: Sequence[tuple[str, Sequence[RegretTable]]],
) -> tuple[HeldOutChoice, ...]:
    """For each method: the way that is best on the others, tried on it.

    Args:
        runs: the method of each run, and one table per labelled set.

    Returns:
        Nothing for fewer than three methods, or where a last checkpoint was not probed.
    """
    methods = list(dict.fromkeys(method for method, _ in runs))
    known = _regrets([tables for _, tables in runs])
    if len(methods) < 3 or "last" not in known:
        return ()
    free = {
        row.way
        for _, tables in runs
        for table in tables
        for row in table.rows
        if not row.needs_labels
    }
    shared = [way for way in known if way in free]
    found = []
    for method in methods:
        # Every method weighs the same, however many runs it has.
        others = [
            {way: statistics.fmean(values) for way, values in _regrets(tables).items()}
            for other in methods
            if other != method
            for tables in [[of_run for name, of_run in runs if name == other]]
        ]
        best = min(shared, key=lambda way: statistics.fmean(one[way] for one in others))
        own = _regrets([tables for name, tables in runs if name == method])
        found.append(
            HeldOutChoice(method, best, statistics.fmean(own[best]), statistics.fmean(own["last"]))
        )
    return tuple(found)


def _regrets(runs: Iterable[Sequence[RegretTable]]) -> dict[str, list[float]]:
    """Way -> its regret in each run, where all labelled sets of all runs have one."""
    found: list[dict[str, float]] = []
    for tables in runs:
        by_way: dict[str, list[float]] = {}
        for table in tables:
            for row in table.rows:
                if row.regret is not None and math.isfinite(row.regret):
                    by_way.setdefault(row.way, []).append(row.regret)
        whole = {way: values for way, values in by_way.items() if len(values) == len(tables)}
        found.append({way: statistics.fmean(values) for way, values in whole.items()})
    if not found:
        return {}
    return {way: [one[way] for one in found] for way in found[0] if all(way in o for o in found)}
