"""Do the label-free numbers of a run agree with what labelled probes say?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from densescope.correlation.kendall import (
    LEAST_CHECKPOINTS,
    LEAST_FOR_INTERVAL,
    LEAST_TO_JUDGE,
    kendall_taus,
    tau_interval,
    tau_over_checkpoints,
)
from densescope.correlation.pairing import ProbedRun, check_pairs, probed_run, scored_table
from densescope.errors import InputError, RecordError
from densescope.estimate import Estimate, jackknife_standard_error
from densescope.evaluation.measures import find_measure
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection.columns import Column
from densescope.selection.run_table import RunTable

SCHEMA = 2
CLOCK = "checkpoint_number"


@dataclass(frozen=True)
class CorrelationRow:
    """How one label-free number agrees with the measure over the checkpoints of a run.

    Attributes:
        number: row of ``METRICS``, or ``CLOCK``.
        title: for people.
        checkpoints: how many have both.
        tau: Kendall's tau-b of the raw number, positive where the number is high for good
            checkpoints; replicates leave out blocks of consecutive checkpoints. ``None`` where it
            is not defined.
        interval: of tau, for checkpoints like these; ``None`` where it is not known.
        images_error: standard error of tau from the scored images alone, these checkpoints held
            fixed; ``None`` where it is not known.
        seeds_error: the same from the probe's seeds alone.
        note: why something is not known, else ``None``.
    """

    number: str
    title: str
    checkpoints: int
    tau: Estimate | None
    interval: tuple[float, float] | None
    images_error: float | None
    seeds_error: float | None
    note: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **plain,
            "tau": None if self.tau is None else self.tau.to_json(),
            "interval": None if self.interval is None else list(self.interval),
        }


@dataclass(frozen=True)
class Correlation:
    """Label-free numbers against one labelled measure over the checkpoints of one run.

    Attributes:
        protocol: of the probes.
        dataset: of the probes.
        measure: of the probes.
        layer: whose scores.
        level: confidence of the intervals.
        rows: one per judged row of ``METRICS`` that was scored.
        clock: the same of the number of the checkpoint: what any metric has that only rises with
            time. A metric whose tau is no higher says no more than "later".
        checkpoints: names of those with score and probe, in order of step.
        left_out: names of those that lack one of the two, or whose probe failed.
    """

    protocol: str
    dataset: str
    measure: str
    layer: int
    level: float
    rows: tuple[CorrelationRow, ...]
    clock: CorrelationRow
    checkpoints: tuple[str, ...]
    left_out: tuple[str, ...]

    def row(self, number: str) -> CorrelationRow:
        """The row of one number.

        Raises:
            RecordError: there is no such number.
        """
        rows = (self.clock, *self.rows)
        for row in rows:
            if row.number == number:
                return row
        known = ", ".join(row.number for row in rows)
        raise RecordError(f"no number is named {number!r}; there are: {known}")

    def tau(self, number: str) -> Estimate | None:
        """tau of one metric; ``None`` where it is not defined or the metric was not scored."""
        return next((row.tau for row in (self.clock, *self.rows) if row.number == number), None)

    def difference(self, first: str, second: str) -> Estimate | None:
        """tau of one number minus tau of another, over the same blocks of checkpoints.

        ``None`` where one is not defined or they were not scored on the same checkpoints. Its
        ``interval()`` says whether one number agrees better than the other.
        """
        ours, theirs = self.row(first), self.row(second)
        if ours.tau is None or theirs.tau is None or ours.checkpoints != theirs.checkpoints:
            return None
        if len(ours.tau.replicates) != len(theirs.tau.replicates):
            return Estimate(ours.tau.value - theirs.tau.value)
        return ours.tau.minus(theirs.tau)

    def to_json(self) -> dict[str, Any]:
        """The document, with plain values only."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **{key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()},
            "schema": SCHEMA,
            "rows": [row.to_json() for row in self.rows],
            "clock": self.clock.to_json(),
        }


def correlate(
    scores: Sequence[ScoreRecord] | RunTable,
    probes: Sequence[ProbeRecord],
    *,
    layer: int = -1,
    level: float = 0.95,
) -> Correlation:
    """Kendall's tau of every label-free number with the measure of the probes.

    The tau is that of the raw number: a good alpha-ReQ is near 1 and not high, and a good
    ``intra`` or ``outlier_fraction`` is low, but their taus are not turned, as the paper's are
    not. The measure is turned where lower is better, so that a positive tau always says "higher
    for better checkpoints". DSE has lambda of all scored checkpoints, probed or not.

    Three uncertainties are kept apart. ``interval`` asks what other checkpoints of such a run
    would give: a jackknife over four blocks of consecutive checkpoints, as neighbours are alike.
    ``images_error`` and ``seeds_error`` ask what other images and other probe seeds would give on
    these checkpoints. The interval holds the noise of each checkpoint by itself, so the three
    are not to be added.

    Args:
        scores: records of one run, in any order, or its table; failed ones are left out.
        probes: of the same run, of some or all checkpoints, in any order.
        layer: whose scores.
        level: confidence of the intervals, between 0 and 1.

    Returns:
        A row per number. tau is ``None``, with a reason, for fewer than three checkpoints with
        both or where one of the two is constant; the interval for fewer than six.

    Raises:
        InputError: ``level`` out of its range.
        RecordError: nothing scored or probed, no checkpoint with both, probes of two protocols,
            data sets, measures or settings, or score and probe of two files under one name.

    Source: Dai et al. (2025), arXiv 2510.17299, average such taus over runs.

    Deviations: the paper has no intervals.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must lie between 0 and 1, e.g. 0.95")
    table, run = scored_table(scores), probed_run(probes)
    check_pairs(table, run)
    probed = {probe.name for probe in run.probes}
    both = tuple(record.name for record in table.scored if record.name in probed)
    if not both:
        raise RecordError(
            f"no checkpoint has both a score and a probe (scored: {table.scored[0].name}, ...; "
            f"probed: {run.probes[0].name}, ...); give scores and probes of the same run"
        )
    everyone = {record.name for record in table.records} | {probe.name for probe in probes}
    columns = [table.column(m.name, layer) for m in table.metrics(layer) if m.judged]
    return Correlation(
        protocol=run.protocol,
        dataset=run.dataset,
        measure=run.measure.name,
        layer=layer,
        level=level,
        rows=tuple(_row(column, run, both, level) for column in columns),
        clock=_clock(run, both, level),
        checkpoints=both,
        left_out=tuple(sorted(everyone - set(both))),
    )


def _row(column: Column, run: ProbedRun, both: Sequence[str], level: float) -> CorrelationRow:
    series = {name: column.finite[name] for name in both if name in column.finite}
    row = _compared(column.metric.name, column.metric.title, series, run, level)
    return row if column.finite else replace(row, note=column.note)


def _clock(run: ProbedRun, both: Sequence[str], level: float) -> CorrelationRow:
    series = {name: Estimate(float(index)) for index, name in enumerate(both)}
    return _compared(CLOCK, "number of the checkpoint", series, run, level)


def _compared(
    number: str, title: str, series: Mapping[str, Estimate], run: ProbedRun, level: float
) -> CorrelationRow:
    by_name = {probe.name: run.goodness(probe) for probe in run.probes}
    estimates = list(series.values())
    seeds = [by_name[name] for name in series]
    numbers = [estimate.value for estimate in estimates]
    goodness = [math.fsum(values) / len(values) for values in seeds]
    tau = tau_over_checkpoints(numbers, goodness)
    interval = None if tau is None else tau_interval(tau, level)
    return CorrelationRow(
        number=number,
        title=title,
        checkpoints=len(series),
        tau=tau,
        interval=interval,
        images_error=None if tau is None else _images_error(estimates, goodness),
        seeds_error=None if tau is None else _seeds_error(numbers, seeds),
        note=_why(tau, interval, numbers),
    )


def _images_error(estimates: Sequence[Estimate], goodness: Sequence[float]) -> float | None:
    """Jackknife over blocks of images, the same block left out of every checkpoint."""
    counts = {len(estimate.replicates) for estimate in estimates}
    if len(counts) != 1:
        return None
    columns = list(zip(*(estimate.replicates for estimate in estimates), strict=True))
    return _jackknife(columns, [goodness] * len(columns))


def _seeds_error(numbers: Sequence[float], seeds: Sequence[tuple[float, ...]]) -> float | None:
    """Jackknife over the probe's seeds, the same one left out of every checkpoint."""
    count = len(seeds[0])
    if count < 2 or any(len(values) != count for values in seeds):
        return None
    without = [
        [math.fsum(v for i, v in enumerate(values) if i != seed) for values in seeds]
        for seed in range(count)
    ]
    return _jackknife([numbers] * count, without)


def _jackknife(
    numbers: Sequence[Sequence[float]], goodness: Sequence[Sequence[float]]
) -> float | None:
    taus = kendall_taus(numbers, goodness) if numbers else None
    return None if taus is None else jackknife_standard_error(tuple(taus))


def _why(
    tau: Estimate | None, interval: tuple[float, float] | None, numbers: Sequence[float]
) -> str | None:
    count = len(numbers)
    if tau is None and count < LEAST_CHECKPOINTS:
        return (
            f"{count} checkpoint{'s have' if count != 1 else ' has'} both numbers; tau needs "
            f"{LEAST_CHECKPOINTS}"
        )
    if tau is None:
        what = "the number" if len(set(numbers)) == 1 else "the measure"
        return f"{what} is the same for all {count} checkpoints"
    notes = []
    if count < LEAST_TO_JUDGE:
        notes.append(f"too few checkpoints to judge by tau ({count} of at least {LEAST_TO_JUDGE})")
    if interval is None and count < LEAST_FOR_INTERVAL:
        notes.append(f"{count} are too few for an interval; it needs {LEAST_FOR_INTERVAL}")
    elif interval is None:
        notes.append(
            "tau is the same whichever block of checkpoints is left out: its interval is not known"
        )
    return "; ".join(notes) or None


def too_few(correlation: Correlation, where: str = "") -> str:
    """Why no table of tau is shown: with so few checkpoints it has no interval.

    Args:
        correlation: over fewer than ``LEAST_FOR_INTERVAL`` checkpoints.
        where: run and set of probes, for a reader of several.
    """
    count, title = len(correlation.checkpoints), find_measure(correlation.measure).title
    return (
        f"{where}{': ' if where else ''}Kendall's tau of the label-free metrics with {title} and "
        f"the choices of the other metrics are not shown: {count} "
        f"checkpoint{' has' if count == 1 else 's have'} a score and a probe. An interval of tau "
        f"needs {LEAST_FOR_INTERVAL}, and with fewer than {LEAST_TO_JUDGE} it is mostly noise. "
        "Probe more checkpoints."
    )
