"""Two protocols on one labelled set: what one probe reads and the other does not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from densescope.correlation.kendall import kendall_tau
from densescope.correlation.pairing import ProbedRun, labels_of_probe, probed_run
from densescope.evaluation.measures import measure_of
from densescope.records import ProbeRecord


@dataclass(frozen=True)
class ProtocolDifference:
    """One protocol minus another over the checkpoints that both have probed.

    Attributes:
        dataset: of both.
        measure: of both.
        first: name of one set of probes, ``<dataset>-<protocol>``.
        second: of the other.
        checkpoints: how many both have probed.
        mean: mean of the differences, first minus second, in units of the measure.
        lowest: the smallest difference.
        highest: the largest.
        tau: Kendall's tau between the two; ``None`` for fewer than three checkpoints.
        first_change: last shared checkpoint minus the first, by the first protocol.
        second_change: the same by the second.
    """

    dataset: str
    measure: str
    first: str
    second: str
    checkpoints: int
    mean: float
    lowest: float
    highest: float
    tau: float | None
    first_change: float
    second_change: float

    @property
    def sentence(self) -> str:
        """The difference in words."""
        measure = measure_of(self.measure)

        def points(value: float) -> str:
            return f"{measure.scale * value:+.1f}"

        tau = "not defined" if self.tau is None else f"{self.tau:+.2f}"
        said = (
            f"{self.first} minus {self.second}: {points(self.mean)} {measure.difference} on "
            f"average ({points(self.lowest)} to {points(self.highest)}) over {self.checkpoints} "
            f"checkpoints; Kendall's tau between the two is {tau}."
        )
        if self.first_change * self.second_change >= 0:
            return said
        return (
            f"{said} They disagree on the course of the run: from the first to the last "
            f"checkpoint {points(self.first_change)} and {points(self.second_change)}."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        return {**asdict(self), "sentence": self.sentence}


def protocol_differences(probes: Mapping[str, Sequence[ProbeRecord]]) -> list[ProtocolDifference]:
    """Every two protocols that have probed one labelled set, against each other.

    A trained probe that is not converged reads less than what is linearly there, and not equally
    much less at each checkpoint: its differences from the converged one (``linear``) say what is
    the probe's and what the features'.

    Args:
        probes: of one run, by labelled set and protocol.

    Returns:
        One entry per pair of sets of probes with one measure and the same labelled images, folds
        and number of labels, and two shared checkpoints or more, in the order of the sets.

    Raises:
        RecordError: probes of one set that do not belong in one table.
    """
    usable = {
        name: probed_run(records)
        for name, records in probes.items()
        if any(record.status == "probed" and math.isfinite(record.value) for record in records)
    }
    return list(_pairs(usable))


def _pairs(runs: Mapping[str, ProbedRun]) -> Iterator[ProtocolDifference]:
    for (first, ours), (second, theirs) in combinations(runs.items(), 2):
        if ours.protocol == theirs.protocol or _labels(ours) != _labels(theirs):
            continue
        shared = [probe.name for probe in ours.probes if probe.name in theirs.values]
        if len(shared) < 2:
            continue
        one, other = ([run.values[name] for name in shared] for run in (ours, theirs))
        apart = [a - b for a, b in zip(one, other, strict=True)]
        yield ProtocolDifference(
            dataset=ours.dataset,
            measure=ours.measure.name,
            first=first,
            second=second,
            checkpoints=len(shared),
            mean=math.fsum(apart) / len(apart),
            lowest=min(apart),
            highest=max(apart),
            tau=kendall_tau(one, other),
            first_change=one[-1] - one[0],
            second_change=other[-1] - other[0],
        )


def _labels(run: ProbedRun) -> tuple[Any, ...]:
    """What two sets of probes share that differ in nothing but the probe."""
    data = labels_of_probe(run.probes[0])
    keys = ("train", "test", "folds", "labels")
    return (run.dataset, run.measure.name, *(data.get(key) for key in keys))
