"""A study's summary as tables in Markdown, in percent points where a measure is a fraction."""

from __future__ import annotations

from collections.abc import Sequence

from densescope.correlation.paper import MeanTau
from densescope.evaluation.measures import measure_of
from densescope.study.answers import RunAnswer
from densescope.study.spread import Spread
from densescope.study.summary import PARTS, StudySummary
from densescope.study.taus import MeanTaus


def markdown(summary: StudySummary) -> str:
    """All tables, each under a heading; one that would be empty is left out."""
    parts = {
        "Methods and arms": rows_table(summary),
        "Runs": runs_table(summary),
        "Kendall's tau, mean over the runs without a regularizer": tau_table(summary.taus),
        "Kendall's tau, mean over the runs with a regularizer": tau_table(summary.regularized),
        "Regret of a choice, mean over the same runs": ways_table(summary),
        "The best way on all methods but one, tried on that one": held_out_table(summary),
    }
    return "\n\n".join(f"## {head}\n\n{table}" for head, table in parts.items() if table)


def rows_table(summary: StudySummary) -> str:
    """A row per method, arm and labelled set."""
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
            f"{row.degraded} of {row.noise_known}" if row.noise_known else "",
            shown(row.gain, scale, 2, sign=True),
            shown(row.tau.get("released.dse_lambda_1"), 1, 2, sign=True),
            *(shown(row.numbers[part], 1, 3, sign=False) for part in PARTS),
            shown(row.effect.get(row.measure), scale, 2, sign=True),
            shown(row.effect.get("dse"), 1, 4, sign=True),
        ]
        table.append(cells)
    return _table(table)


def runs_table(summary: StudySummary) -> str:
    """What each run came to: the labelled sets, their verdict together, and the alarm."""
    sets = list(dict.fromkeys(name for answer in summary.answers for name in answer.courses))
    measures = {row.probe_set: row.measure for row in summary.rows}
    table: list[Sequence[str]] = [
        (
            "run",
            "checkpoints",
            *(f"{name}: first, best (at), last" for name in sets),
            "sets together",
            "first alarm (checkpoint number)",
        )
    ]
    for answer in summary.answers:
        courses = [_course(answer, name, measures.get(name, "")) for name in sets]
        calls = "; ".join(dict.fromkeys(answer.calls.values()))
        alarm = "none" if answer.alarm is None else f"{answer.alarm_step}"
        table.append([answer.run, str(answer.checkpoints), *courses, calls, alarm])
    return _table(table) if sets else ""


def _course(answer: RunAnswer, probe_set: str, measure: str) -> str:
    if probe_set not in answer.courses:
        return ""
    first, best, last = map(measure_of(measure).number, answer.courses[probe_set])
    return f"{first}, {best} ({answer.best_at[probe_set]}), {last}"


def tau_table(found: MeanTaus | None) -> str:
    """Mean tau of each metric with each labelled set, with Student's interval over runs.

    The first row is the number of the checkpoint: what a metric has that only moves with time.
    "Beyond it" is the mean difference from that row, paired by run.
    """
    if found is None:
        return ""
    names = found.metrics.datasets
    head = ("metric", *names, *(f"beyond it: {name}" for name in names), "mean", "the paper's mean")
    table: list[Sequence[str]] = [head]
    times = [_interval(found.clock[name]) for name in names]
    table.append(["*number of the checkpoint*", *times, *("" for _ in names), "", ""])
    for row in found.metrics.rows:
        paper = row.paper.get("mean") if row.paper else None
        table.append(
            [
                row.title,
                *(_cell(row.cells.get(name)) for name in names),
                *(_interval(found.beyond[row.number][name], 2.0) for name in names),
                "" if row.mean is None else f"{row.mean:+.2f}",
                "" if paper is None else f"{paper:+.2f}",
            ]
        )
    return _table(table)


def _cell(cell: MeanTau | None) -> str:
    if cell is None or cell.interval is None:
        return "" if cell is None else f"{cell.value:+.2f}"
    return f"{cell.value:+.2f} [{cell.interval[0]:+.2f}, {cell.interval[1]:+.2f}]"


def _interval(spread: Spread | None, bound: float = 1.0) -> str:
    """A mean with its interval, which is cut where no value can lie."""
    if spread is None or spread.half is None:
        return "" if spread is None else f"{spread.value:+.2f}"
    low, high = max(-bound, spread.value - spread.half), min(bound, spread.value + spread.half)
    return f"{spread.value:+.2f} [{low:+.2f}, {high:+.2f}]"


def ways_table(summary: StudySummary) -> str:
    """Mean regret of each way to choose, the least first, and what it takes in a run."""
    measures = {row.measure for row in summary.rows if row.measure}
    if not summary.ways or len(measures) != 1:
        return ""
    measure = measure_of(next(iter(measures)))
    table: list[Sequence[str]] = [
        ("way", "labels", "regret", "against the last", "seconds", "runs")
    ]
    for answer in summary.ways:
        regret, against = answer.regret.text(measure.scale, 2), ""
        if answer.against_last is not None:
            against = answer.against_last.text(measure.scale, 2, sign=True)
        labels = "yes" if answer.needs_labels else "no"
        seconds = "" if answer.seconds is None else f"{answer.seconds:.0f}"
        table.append([answer.title, labels, regret, against, seconds, str(answer.regret.runs)])
    return _table(table)


def held_out_table(summary: StudySummary) -> str:
    """What a way chosen on the other methods costs on each method."""
    measures = {row.measure for row in summary.rows if row.measure}
    if not summary.held_out or len(measures) != 1:
        return ""
    scale = measure_of(next(iter(measures))).scale
    titles = {answer.way: answer.title for answer in summary.ways}
    table: list[Sequence[str]] = [
        ("method", "best on the others", "its regret", "regret of the last")
    ]
    for choice in summary.held_out:
        numbers = (f"{scale * value:.2f}" for value in (choice.regret, choice.last))
        table.append([choice.method, titles[choice.way], *numbers])
    return _table(table)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns that are empty in every row are left out."""
    filled = [column for column in zip(*rows, strict=True) if any(column[1:])]
    lines = ["| " + " | ".join(cells) + " |" for cells in zip(*filled, strict=True)]
    return "\n".join([lines[0], "|" + " --- |" * len(filled), *lines[1:]])
