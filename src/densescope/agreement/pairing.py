"""Scores and probes of one run, side by side; what does not belong together is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densescope.agreement.measures import Measure, find_measure
from densescope.errors import RecordError
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection.sameness import check_same_run

ONE_TABLE = "their values do not compare: give the probes of one protocol, data set and measure"
ONE_RUN = "give the probes of one run"
PROBE_AGAIN = "score and probe the same files with the same options"

# What all probes share: words, keys from the record's fields down, cure.
PROBE_TRAITS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("protocol", ("protocol",), ONE_TABLE),
    ("data set", ("dataset",), ONE_TABLE),
    ("measure", ("measure",), ONE_TABLE),
    ("unit of steps", ("unit",), ONE_RUN),
    ("format", ("checkpoint", "format"), ONE_RUN),
    ("architecture", ("checkpoint", "architecture"), ONE_RUN),
    ("weights", ("checkpoint", "weights"), ONE_RUN),
    ("normalization", ("checkpoint", "normalization"), ONE_TABLE),
    ("settings", ("provenance", "settings"), ONE_TABLE),
)
# What score and probe of one checkpoint share, where both say it.
PAIR_TRAITS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("step", ("step",)),
    ("unit of steps", ("unit",)),
    ("sha256", ("checkpoint", "sha256")),
    ("format", ("checkpoint", "format")),
    ("architecture", ("checkpoint", "architecture")),
    ("weights", ("checkpoint", "weights")),
    ("normalization", ("checkpoint", "normalization")),
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
    for words, path, cure in PROBE_TRAITS:
        for probe in usable[1:]:
            _check_alike(words, path, cure, usable[0], probe)
    first = usable[0]
    return ProbedRun(
        probes=tuple(usable),
        left_out=tuple(probe.name for probe in ordered if not _usable(probe)),
        protocol=first.protocol,
        dataset=first.dataset,
        measure=find_measure(first.measure),
        unit=first.unit,
    )


def scored_run(scores: Sequence[ScoreRecord]) -> tuple[ScoreRecord, ...]:
    """The scored records of one run in order of step.

    Raises:
        RecordError: none was scored, or they do not belong to one run.
    """
    scored = [record for record in scores if record.status == "scored"]
    if not scored:
        raise RecordError("no checkpoint was scored; score the checkpoints of the run first")
    check_same_run(scored)
    return tuple(sorted(scored, key=lambda record: (record.step, record.name)))


def check_pairs(scored: Sequence[ScoreRecord], run: ProbedRun) -> None:
    """Refuse a score and a probe under one name that speak of two checkpoints.

    Raises:
        RecordError: they differ in a row of ``PAIR_TRAITS``.
    """
    by_name = {record.name: record for record in scored}
    for probe in run.probes:
        score = by_name.get(probe.name)
        for words, path in PAIR_TRAITS if score else ():
            ours, theirs = _trait(score, path), _trait(probe, path)
            if ours is not None and theirs is not None and ours != theirs:
                raise RecordError(
                    f"score and probe of {probe.name} differ in their {words}: "
                    f"{_words(ours)} and {_words(theirs)}; {PROBE_AGAIN}"
                )


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


def _check_alike(
    words: str, path: tuple[str, ...], cure: str, first: ProbeRecord, other: ProbeRecord
) -> None:
    ours, theirs = _trait(first, path), _trait(other, path)
    if json.dumps(ours, sort_keys=True, default=str) != json.dumps(
        theirs, sort_keys=True, default=str
    ):
        raise RecordError(
            f"the probes of {first.name} and {other.name} differ in their {words}: "
            f"{_words(ours)} and {_words(theirs)}; {cure}"
        )


def _trait(record: Any, path: tuple[str, ...]) -> Any:
    value = getattr(record, path[0])
    for key in path[1:]:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _words(value: Any) -> str:
    return "not stated" if value is None else str(value)
