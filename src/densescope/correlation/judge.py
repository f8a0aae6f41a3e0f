"""What one choice of a checkpoint is worth, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from densescope.correlation.noise import seed_noise
from densescope.correlation.pairing import ProbedRun
from densescope.records import ProbeRecord, ScoreRecord

OF_THE_BEST = "0 by definition, because this is the best probed checkpoint"


@dataclass(frozen=True)
class RegretRow:
    """One way to choose.

    Attributes:
        way: short name, unique in the table.
        title: for people.
        needs_labels: whether a labelled probe took part in the choice.
        name: the chosen checkpoint; ``None`` for a random one and where nothing was chosen.
        step: its step.
        value: its measure; ``None`` where it was not probed.
        regret: how much better the best probed checkpoint is, in units of the measure, at least 0.
        error: standard error of the regret from the probe's seeds, or ``None``.
        gain: how much better it is than the last checkpoint, in units of the measure.
        seconds: compute the choice took; ``None`` where the records do not say.
        note: what is missing or to be kept in mind, else ``None``.
    """

    way: str
    title: str
    needs_labels: bool
    name: str | None
    step: int | None
    value: float | None
    regret: float | None
    error: float | None
    gain: float | None
    seconds: float | None
    note: str | None


class Judge:
    """Says what the choice of a checkpoint is worth.

    Attributes:
        steps: every checkpoint of the run -> its step, in order.
        goodness: probed checkpoint -> its values by seed, turned so that higher is better.
        best: name of the best probed checkpoint.
        last: name of the last checkpoint.
        scoring_seconds: compute of all scores.
        probing_seconds: compute of all probes.
    """

    def __init__(self, scored: Sequence[ScoreRecord], run: ProbedRun) -> None:
        places = {record.name: record.step for record in scored}
        places |= {probe.name: probe.step for probe in run.probes}
        self.steps = dict(sorted(places.items(), key=lambda item: (item[1], item[0])))
        self.goodness = {probe.name: run.goodness(probe) for probe in run.probes}
        self.values = run.values
        self.means = {name: run.measure.sign * value for name, value in self.values.items()}
        self.best = max(self.means, key=lambda name: self.means[name])
        self.last = list(self.steps)[-1]
        self.noise = seed_noise(list(self.goodness.values()))
        self.scored = tuple(scored)
        self.probes = {probe.name: probe for probe in run.probes}
        self.scoring_seconds = seconds_of(scored)
        self.probing_seconds = seconds_of(run.probes)

    def row(
        self,
        way: str,
        title: str,
        name: str | None,
        seconds: float | None,
        *,
        labels: bool = False,
        note: str | None = None,
    ) -> RegretRow:
        """What the choice of one checkpoint is worth; ``None`` where nothing was chosen."""
        mean = None if name is None else self.means.get(name)
        last = self.means.get(self.last)
        notes = [note]
        if name is not None and mean is None:
            notes.append(f"{name} was not probed")
        elif mean is not None and last is None:
            notes.append(f"the last checkpoint, {self.last}, was not probed")
        alone = len(self.means) < 2
        if alone:
            notes.append("with one probed checkpoint there is nothing to compare")
        return RegretRow(
            way=way,
            title=title,
            needs_labels=labels,
            name=name,
            step=None if name is None else self.steps[name],
            value=None if name is None else self.values.get(name),
            regret=None if mean is None or alone else self.means[self.best] - mean,
            error=self._error(name),
            gain=None if mean is None or last is None else mean - last,
            seconds=seconds,
            note="; ".join(text for text in notes if text) or None,
        )

    def random(self) -> RegretRow:
        """What the choice of a checkpoint by lot is worth on average."""
        mean = mean_of(list(self.means.values()))
        last = self.means.get(self.last)
        return RegretRow(
            way="random",
            title="a checkpoint at random (mean over the probed ones)",
            needs_labels=False,
            name=None,
            step=None,
            value=mean_of(list(self.values.values())),
            regret=None if len(self.means) < 2 else self.means[self.best] - mean,
            error=None,
            gain=None if last is None else mean - last,
            seconds=0.0,
            note=self._coverage(),
        )

    def all_probed(self) -> RegretRow:
        """The choice that all probes together make."""
        note = "; ".join(text for text in (OF_THE_BEST, self._coverage()) if text)
        title = "a probe on every checkpoint"
        whole = len(self.means) == len(self.steps)
        seconds = self.probing_seconds if whole else None
        return self.row("probes", title, self.best, seconds, labels=True, note=note)

    def of_shortlist(self, way: str, title: str, members: Sequence[str]) -> RegretRow:
        """The best of a few checkpoints by their probes."""
        probed = [name for name in members if name in self.means]
        missing = [name for name in members if name not in self.means]
        note = f"not probed: {', '.join(missing)}" if missing else None
        if not probed:
            return self.row(way, title, None, None, labels=True, note=note)
        chosen = max(probed, key=lambda name: self.means[name])
        parts = (self.scoring_seconds, seconds_of(self.probes[name] for name in probed))
        known = [part for part in parts if part is not None]
        seconds = math.fsum(known) if len(known) == len(parts) else None
        return self.row(way, title, chosen, seconds, labels=True, note=note)

    def _coverage(self) -> str | None:
        if len(self.means) == len(self.steps):
            return None
        return f"{len(self.means)} of {len(self.steps)} checkpoints were probed"

    def _error(self, name: str | None) -> float | None:
        if name is None or name not in self.goodness or self.noise is None or name == self.best:
            return None
        counts = len(self.goodness[name]), len(self.goodness[self.best])
        return self.noise.error_of_difference(*counts)


def seconds_of(records: Iterable[ScoreRecord | ProbeRecord]) -> float | None:
    """Sum of every ``..._seconds`` in the records' timing; ``None`` where one says nothing."""
    total = []
    for record in records:
        stages = [float(v) for key, v in record.timing.items() if key.endswith("_seconds")]
        if not stages:
            return None
        total.extend(stages)
    return math.fsum(total)


def mean_of(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)
