"""Scores and probes of one run, side by side; what does not belong together is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densescope.errors import RecordError
from densescope.evaluation.measures import Measure, find_measure
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection.run_table import RunTable
from densescope.selection.traits import Trait, check_alike

ONE_TABLE = "their values do not compare: give the probes of one protocol, data set and measure"
ONE_RUN = "give the probes of one run"
PROBE_AGAIN = "score and probe the same files with the same options"

PROBE_TRAITS = (
    Trait("protocol", ("protocol",), ONE_TABLE),
    Trait("data set", ("dataset",), ONE_TABLE),
    Trait("measure", ("measure",), ONE_TABLE),
    Trait("unit of steps", ("unit",), ONE_RUN),
    Trait("format", ("checkpoint", "format"), ONE_RUN),
    Trait("architecture", ("checkpoint", "architecture"), ONE_RUN),
    Trait("weights", ("checkpoint", "weights"), ONE_RUN),
    Trait("normalization", ("checkpoint", "normalization"), ONE_TABLE),
    Trait("settings", ("provenance", "settings"), ONE_TABLE),
)
# What score and probe of one checkpoint share, where both state it.
PAIR_TRAITS = (
    Trait("step", ("step",), PROBE_AGAIN),
    Trait("unit of steps", ("unit",), PROBE_AGAIN),
    Trait("sha256", ("checkpoint", "sha256"), PROBE_AGAIN),
    Trait("format", ("checkpoint", "format"), PROBE_AGAIN),
    Trait("architecture", ("checkpoint", "architecture"), PROBE_AGAIN),
    Trait("weights", ("checkpoint", "weights"), PROBE_AGAIN),
    Trait("normalization", ("checkpoint", "normalization"), PROBE_AGAIN),
)


@dataclass(frozen=True)
class ProbedRun:
    """The probes of one run that can be used, in order of step.

    Attributes:
        probes: with at least one finite value each.
        left_out: names of the probes that failed or found a number that is not finite.
        protocol: row of ``PROTOCOLS``.
        dataset: row of ``DATASETS``.
        measure: what was measured and which way it is good.
        unit: of the steps.
    """

    probes: tuple[ProbeRecord, ...]
    left_out: tuple[str, ...]
    protocol: str
    dataset: str
    measure: Measure
    unit: str

    @property
    def values(self) -> dict[str, float]:
        """The measure of each checkpoint, the mean over the probe's seeds."""
        return {probe.name: probe.value for probe in self.probes}

    def goodness(self, probe: ProbeRecord) -> tuple[float, ...]:
        """The probe's values by seed, turned so that higher is better."""
        return tuple(self.measure.sign * value for value in probe.values)


def probed_run(probes: Sequence[ProbeRecord]) -> ProbedRun:
    """Check that probes stand in one table, and put them in order of step.

    Raises:
        RecordError: no probe with a value, two of one checkpoint, probes that differ in a row of
            ``PROBE_TRAITS``, or a measure that is not known.
    """
    ordered = sorted(probes, key=lambda probe: (probe.step, probe.name))
    _check_names([probe.name for probe in ordered])
    usable = [probe for probe in ordered if _usable(probe)]
    if not usable:
        raise RecordError(_nothing(ordered))
    first = usable[0]
    for probe in usable[1:]:
        whose = f"the probes of {first.name} and {probe.name}"
        check_alike(PROBE_TRAITS, first, probe, whose)
    return ProbedRun(
        probes=tuple(usable),
        left_out=tuple(probe.name for probe in ordered if not _usable(probe)),
        protocol=first.protocol,
        dataset=first.dataset,
        measure=find_measure(first.measure),
        unit=first.unit,
    )


def scored_table(scores: Sequence[ScoreRecord] | RunTable) -> RunTable:
    """The table of a run with at least one scored checkpoint.

    Raises:
        RecordError: none was scored, or the records do not belong to one run.
    """
    table = RunTable.of(scores)
    if not table.scored:
        raise RecordError("no checkpoint was scored; score the checkpoints of the run first")
    return table


def check_pairs(table: RunTable, run: ProbedRun) -> None:
    """Refuse a score and a probe under one name that speak of two checkpoints.

    Raises:
        RecordError: they differ in a row of ``PAIR_TRAITS``.
    """
    by_name = {record.name: record for record in table.scored}
    for probe in run.probes:
        score = by_name.get(probe.name)
        if score is not None:
            whose = f"score and probe of {probe.name}"
            check_alike(PAIR_TRAITS, score, probe, whose, stated=True)


def _usable(probe: ProbeRecord) -> bool:
    return probe.status == "probed" and math.isfinite(probe.value)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RecordError(
                f"two probes are of {name}; give one probe per checkpoint, of one run and one "
                "protocol, data set and measure"
            )


def _nothing(probes: Sequence[ProbeRecord]) -> str:
    if not probes:
        return "there are no probes; probe some checkpoints of the run on a labelled set first"
    return (
        f"none of the {len(probes)} probes has a value; the first, {probes[0].name}: "
        f"{probes[0].error or 'its value is not a finite number'}"
    )


def drawn_labels(probe: ProbeRecord) -> int | None:
    """How many training images were drawn for each seed; ``None`` where all took part."""
    return labels_of_probe(probe).get("labels")


def labels_of_probe(probe: ProbeRecord) -> Mapping[str, Any]:
    """Name and fingerprints of the labelled data, folds and few labels; empty where unknown."""
    settings = probe.provenance.get("settings")
    data = settings.get("data") if isinstance(settings, Mapping) else None
    return data if isinstance(data, Mapping) else {}
