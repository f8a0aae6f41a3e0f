"""What each way to choose a checkpoint would have cost, in accuracy and in compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from densescope.correlation.judge import Judge, RegretRow, seconds_of
from densescope.correlation.kendall import LEAST_FOR_INTERVAL
from densescope.correlation.pairing import (
    ProbedRun,
    check_pairs,
    drawn_labels,
    probed_run,
    scored_table,
)
from densescope.definitions import DEFINITIONS
from densescope.errors import RecordError
from densescope.metrics import METRICS
from densescope.metrics.lambdas import LAMBDAS, dse_name, lambda_rule
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection.alarm import first_alarm
from densescope.selection.columns import Column
from densescope.selection.run_table import RunTable

SCHEMA = 1


@dataclass(frozen=True)
class RegretTable:
    """All ways to choose among the checkpoints of one run.

    Attributes:
        protocol: of the probes.
        dataset: of the probes.
        measure: of the probes.
        unit: of the steps.
        layer: whose scores.
        best: name of the best probed checkpoint.
        last: name of the last checkpoint of the run.
        checkpoints: how many there are.
        probed: how many have a probe.
        rows: one per way.
    """

    protocol: str
    dataset: str
    measure: str
    unit: str
    layer: int
    best: str
    last: str
    checkpoints: int
    probed: int
    rows: tuple[RegretRow, ...]

    @property
    def shown(self) -> tuple[RegretRow, ...]:
        """The rows worth reading: with few probes a metric's choice among them is chance."""
        is_few = self.probed < LEAST_FOR_INTERVAL
        return tuple(row for row in self.rows if not (is_few and row.way in METRICS))

    def row(self, way: str) -> RegretRow:
        """The row of one way.

        Raises:
            RecordError: there is no such way.
        """
        for row in self.rows:
            if row.way == way:
                return row
        known = ", ".join(row.way for row in self.rows)
        raise RecordError(f"no way to choose is named {way!r}; there are: {known}")

    def to_json(self) -> dict[str, Any]:
        """The document, with plain values only."""
        rows = [asdict(row) for row in self.rows]
        return {**vars(self), "schema": SCHEMA, "rows": rows}


def regret_table(
    scores: Sequence[ScoreRecord] | RunTable,
    probes: Sequence[ProbeRecord],
    *,
    losses: Mapping[str, float] | None = None,
    layer: int = -1,
) -> RegretTable:
    """Compare ways to choose a checkpoint by what labelled probes say of their choices.

    ``regret = best - chosen`` and ``gain = chosen - last``, both turned so that more is better, in
    units of the measure. The best is that of the probed checkpoints. It is the best of many noisy
    values and thus too good: all regrets are too large by the same amount, that of probing all,
    which is 0, is too small. Ways that use the same probes to choose share its noise.

    Compute is the sum of every ``..._seconds`` in the records' ``timing``: scoring of all scored
    checkpoints for ways without labels (all label-free numbers are made in one pass, so a single
    one costs less), all probes for probing all, scoring and the probes of its members for a
    shortlist. Last, loss and random cost nothing.

    Where the table holds other labelled sets of the run, or a probe with few labels, the best
    checkpoint of each is a way to choose as well: is a cheap probe, or one on other images, enough?

    Args:
        scores: records of one run, or its table; failed ones are left out.
        probes: of the same run, of some or all of its checkpoints.
        losses: file name of the checkpoint -> training loss, of
            :func:`~densescope.correlation.losses_by_checkpoint`.
        layer: whose scores.

    Returns:
        A row per way; a choice that was not probed has no value and says so.

    Raises:
        RecordError: nothing scored or probed, or records that do not belong together.
    """
    table, run = scored_table(scores), probed_run(probes)
    check_pairs(table, run)
    judge = Judge(table.scored, run)
    rows = [judge.row("last", "last checkpoint", judge.last, 0.0)]
    if losses is not None:
        rows.append(_by_loss(judge, losses))
    of_dse = {dse_name(definition, "run"): definition for definition in DEFINITIONS}
    for metric in table.metrics(layer):
        if metric.name in of_dse:
            rows.extend(_by_dse(judge, table, of_dse[metric.name], layer))
        elif metric.chooses:
            rows.append(_by_metric(judge, table.column(metric.name, layer)))
    rows.extend(_by_other_probes(judge, table, run))
    rows.append(judge.random())
    rows.append(judge.all_probed())
    return RegretTable(
        protocol=run.protocol,
        dataset=run.dataset,
        measure=run.measure.name,
        unit=run.unit,
        layer=layer,
        best=judge.best,
        last=judge.last,
        checkpoints=len(judge.steps),
        probed=len(judge.goodness),
        rows=tuple(rows),
    )


def _by_loss(judge: Judge, losses: Mapping[str, float]) -> RegretRow:
    known = {
        name: losses[name] for name in judge.steps if math.isfinite(losses.get(name, math.nan))
    }
    chosen = min(known, key=lambda name: known[name]) if known else None
    missing = len(judge.steps) - len(known)
    note = f"{missing} of {len(judge.steps)} checkpoints have no loss" if missing else None
    return judge.row("loss", "lowest training loss", chosen, 0.0, note=note)


def _by_dse(judge: Judge, table: RunTable, definition: str, layer: int) -> list[RegretRow]:
    dse = table.dse(definition, layer)
    ways = {
        f"{definition}.pick": f"DSE pick ({definition})",
        f"{definition}.max": f"highest DSE ({definition})",
        f"{definition}.shortlist": f"best probe of the DSE shortlist ({definition})",
    }
    (pick, pick_title), (top, top_title), (short, short_title) = ways.items()
    try:
        selection = table.selection(definition=definition, layer=layer) if dse.finite else None
        note = dse.note
    except RecordError as error:  # some checkpoints were scored without this definition
        selection, note = None, str(error)
    if selection is None:
        return [
            judge.row(way, title, None, None, labels=way == short, note=note)
            for way, title in ways.items()
        ]
    highest = dse.metric.best(dse.series)
    return [
        judge.row(pick, pick_title, selection.pick, judge.scoring_seconds),
        judge.row(top, top_title, highest, judge.scoring_seconds),
        judge.of_shortlist(short, short_title, selection.shortlist),
        *_by_lambda(judge, table, definition, layer),
        *(_after_alarm(judge, table, layer) if definition == "released" else []),
    ]


def _by_lambda(judge: Judge, table: RunTable, definition: str, layer: int) -> list[RegretRow]:
    """The picks by the other rules for lambda, where the definition has them."""
    if DEFINITIONS[definition].lambda_by_default is None:
        return []
    return [
        judge.row(
            f"{definition}.pick_lambda_{rule.name}",
            f"DSE pick ({definition}, {rule.label})",
            table.selection(definition=definition, layer=layer, lambda_choice=rule.name).pick,
            judge.scoring_seconds,
        )
        for rule in LAMBDAS.values()
        if rule is not lambda_rule(definition)
    ]


def _after_alarm(judge: Judge, table: RunTable, layer: int) -> list[RegretRow]:
    """The last checkpoint, unless the alarm came: then the pick, or the one the alarm names."""
    came = first_alarm(table, layer=layer)
    ways = {
        "guarded": ("the DSE pick (released)", table.selection(layer=layer).pick),
        "back": ("the one it names", None if came is None else came.back_to),
    }
    return [
        judge.row(
            way,
            f"last checkpoint, or after an alarm {title}",
            judge.last if came is None else chosen,
            judge.scoring_seconds,
        )
        for way, (title, chosen) in ways.items()
    ]


def _by_metric(judge: Judge, column: Column) -> RegretRow:
    """The checkpoint where a metric is best: highest, lowest or nearest to 1, as its row says."""
    metric = column.metric
    chosen = metric.best(column.series)
    if chosen is None:
        return judge.row(metric.name, metric.superlative, None, None, note=column.note)
    return judge.row(metric.name, metric.superlative, chosen, judge.scoring_seconds)


def _by_other_probes(judge: Judge, table: RunTable, run: ProbedRun) -> list[RegretRow]:
    """The best checkpoint of each other set of probes of the same run."""
    rows, judged = [], {id(probe) for probe in run.probes}
    for name, probes in table.probes.items():
        usable = [p for p in probes if p.status == "probed" and p.name in judge.steps]
        if not usable or any(id(probe) in judged for probe in usable):
            continue
        other = probed_run(usable)
        drawn = drawn_labels(other.probes[0])
        few = "" if drawn is None else f" with {drawn} labelled images"
        title = f"best by {other.protocol} on {other.dataset}{few}"
        best = max(other.probes, key=lambda probe: other.measure.sign * probe.value)
        taken = seconds_of(other.probes)
        rows.append(judge.row(f"probe.{name}", title, best.name, taken, labels=True))
    return rows
