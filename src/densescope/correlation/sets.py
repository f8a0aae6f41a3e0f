"""Whether the end of a run is worse, by several labelled sets: one set alone can mislead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from densescope.correlation.pairing import ProbedRun, drawn_labels, labels_of_probe, probed_run
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
    too good. Several probes of the same labelled images (by folds, at another size, of another
    layer) are one set: that of the most test images counts. The differences are paired over
    blocks of test images, and :func:`~densescope.evaluation.labelled_sets.verdict_of_sets` says
    what they come to.

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
            twin = next((key for key, other in sets.items() if _same_images(other, run)), None)
            if twin is None:
                sets[run.dataset if run.dataset not in sets else name] = run
            elif len(_test_images(run)) > len(_test_images(sets[twin])):
                sets[twin] = run
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


def _same_images(first: ProbedRun, second: ProbedRun) -> bool:
    """Whether two probes of a data set measure on images of one labelled set."""
    if first.dataset != second.dataset:
        return False
    ours, theirs = (labels_of_probe(run.probes[0]) for run in (first, second))
    folds = "folds" in ours or "folds" in theirs
    if not folds and ours.get("test") != theirs.get("test"):  # fingerprints of names and masks
        return False
    return not _test_images(first).isdisjoint(_test_images(second))


def _test_images(run: ProbedRun) -> set[str]:
    """Names; those of a cross-validation are without the split before them."""
    probe = run.probes[0]
    folded = "folds" in labels_of_probe(probe)
    names = probe.images.get("names", ())
    return {name.partition("/")[2] if folded else name for name in names}


def _shared(runs: Sequence[ProbedRun]) -> list[str]:
    """Checkpoints that all sets have probed, in order of step."""
    rest = [set(run.values) for run in runs[1:]]
    return [p.name for p in runs[0].probes if all(p.name in names for names in rest)]


def _is_counted(record: ProbeRecord) -> bool:
    # The noise of drawn training images is not in an interval over test images.
    drawn = drawn_labels(record) is not None
    counted = record.measure == "miou" and bool(record.images) and not drawn
    return record.status == "probed" and counted
