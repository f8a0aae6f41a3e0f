"""Whether the end of a run is worse, by several labelled sets: one set alone can mislead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from densescope.correlation.pairing import ProbedRun, drawn_labels, probed_run
from densescope.records import ProbeRecord

if TYPE_CHECKING:
    from densescope.evaluation.labelled_sets import SetsVerdict


@dataclass(frozen=True)
class SetsJudgement:
    """What several labelled sets say together of the last checkpoint.

    Attributes:
        protocol: of the probes.
        last: name of the last checkpoint that all sets probed.
        earlier: labelled set -> the earlier checkpoint that the last is compared with there.
        verdict: what follows.
    """

    protocol: str
    last: str
    earlier: Mapping[str, str]
    verdict: SetsVerdict

    @property
    def sentence(self) -> str:
        """The verdict in words, and what was compared."""
        pairs = ", ".join(f"{name}: {chosen}" for name, chosen in self.earlier.items())
        return (
            f"{len(self.earlier)} labelled sets together ({self.protocol}): "
            f"{self.verdict.sentence} Compared is {self.last} with the checkpoint that the other "
            f"sets find best ({pairs})."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        return {
            "protocol": self.protocol,
            "last": self.last,
            "earlier": dict(self.earlier),
            "call": self.verdict.call,
            "disagree": list(self.verdict.disagree),
            "sentence": self.sentence,
        }


def verdict_over_sets(probes: Mapping[str, Sequence[ProbeRecord]]) -> list[SetsJudgement]:
    """Whether the last checkpoint is worse, by all labelled sets that one protocol has probed.

    On each set the last checkpoint is compared with the one that is best on average over the
    *other* sets, so that no set both chooses and judges: the best of many noisy values would be
    too good. The differences are paired over blocks of test images, and
    :func:`~densescope.evaluation.labelled_sets.verdict_of_sets` says what they come to.

    Args:
        probes: of one run, by labelled set and protocol.

    Returns:
        One judgement per protocol with two labelled sets or more, whose probes are mIoU, hold the
        pixel counts of their test images, and share two checkpoints or more.

    Raises:
        RecordError: probes of one set that do not belong in one table.
    """
    by_protocol: dict[str, dict[str, ProbedRun]] = {}
    for name, records in probes.items():
        if any(_is_counted(record) for record in records):
            run = probed_run([record for record in records if _is_counted(record)])
            sets = by_protocol.setdefault(run.protocol, {})
            sets[run.dataset if run.dataset not in sets else name] = run
    judged = (_judged(protocol, sets) for protocol, sets in by_protocol.items())
    return [found for found in judged if found is not None]


def _judged(protocol: str, sets: Mapping[str, ProbedRun]) -> SetsJudgement | None:
    from densescope.evaluation.labelled_sets import set_difference, verdict_of_sets

    shared = _shared(list(sets.values()))
    if len(sets) < 2 or len(shared) < 2:
        return None
    *candidates, last = shared
    earlier, differences = {}, []
    for name, run in sets.items():
        others = [other.values for key, other in sets.items() if key != name]
        chosen = max(candidates, key=lambda c: math.fsum(values[c] for values in others))
        by_name = {probe.name: probe for probe in run.probes}
        earlier[name] = chosen
        differences.append(set_difference(name, [by_name[chosen]], [by_name[last]]))
    return SetsJudgement(protocol, last, earlier, verdict_of_sets(differences))


def _shared(runs: Sequence[ProbedRun]) -> list[str]:
    """Checkpoints that all sets have probed, in order of step."""
    rest = [set(run.values) for run in runs[1:]]
    return [p.name for p in runs[0].probes if all(p.name in names for names in rest)]


def _is_counted(record: ProbeRecord) -> bool:
    # The noise of drawn training images is not in an interval over test images.
    drawn = drawn_labels(record) is not None
    counted = record.measure == "miou" and bool(record.images) and not drawn
    return record.status == "probed" and counted
