"""Whether the files of a run tell of one training, or of several stitched together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import prod
from typing import Any, Literal

from densescope.records import ScoreRecord
from densescope.selection.words import listed, phrase

Kind = Literal["learning rate", "weight decay", "counter", "length", "batch", "setting", "resumed"]
TURNED = 0.01  # of the value before: below it a rate has not turned
JUMPED = 0.05  # the same of a rise of the learning rate after it fell
MOST_SAID = 3
_LENGTHS = """
epochs max_epochs total_epochs num_epochs n_epochs max_epoch num_train_epochs steps max_steps
total_steps num_steps max_iter max_iters total_iters num_iters T_max
"""
LENGTHS = frozenset(_LENGTHS.split())
_BATCHES = "batch batches accum accumulate accumulation world nodes ngpus devices"
BATCHES = frozenset(_BATCHES.split())


@dataclass(frozen=True)
class ScheduleBreak:
    """A place where the files stop telling of one training.

    Attributes:
        kind: what broke; ``"resumed"`` is a mark in the file and by itself no flaw.
        name: the first checkpoint after the break.
        step: its position in the run.
        unit: of ``step``.
        what: name of the setting, counter or rate.
        before: its value in the last checkpoint that has one.
        after: its value here.
    """

    kind: Kind
    name: str
    step: int
    unit: str
    what: str
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def schedule_breaks(records: Sequence[ScoreRecord]) -> tuple[ScheduleBreak, ...]:
    """Where learning rate, counters, settings or resume marks of a run do not go on as one.

    A training's rate warms up and then falls, or stays; its counters rise; its length, batch and
    other settings stay. Each checkpoint is compared with the last one before it whose file has the
    same entry, so files that say nothing are passed over.

    Args:
        records: of one run, in any order, with what ``training_facts`` found in their files.

    Returns:
        The breaks in order of step; none where the files say nothing.

    Source: our own.
    """
    history = [
        (record, record.checkpoint.get("training") or {})
        for record in sorted(records, key=lambda record: (record.step, record.name))
    ]
    history = [(record, facts) for record, facts in history if facts]
    breaks = [
        *_rising_again(history),
        *_turning(history),
        *_counted_back(history),
        *_without_even_batches(list(_changed(history, "settings"))),
        *_changed(history, "resumed"),
    ]
    return tuple(sorted(breaks, key=lambda found: (found.step, found.name)))


def stitched(breaks: Sequence[ScheduleBreak]) -> str | None:
    """The breaks of a run in words; ``None`` without any, or with nothing but resume marks."""
    real = [found for found in breaks if found.kind != "resumed"]
    if not real:
        return None
    first = real[0]
    here = [found for found in real if found.name == first.name]
    later = list(dict.fromkeys(phrase(found) for found in real if found.name != first.name))
    marks = [found for found in breaks if found.kind == "resumed" and found.name == first.name]
    marked = ", ".join(f"{found.what} {_value(found.after)}" for found in marks)
    resumed = f" It is marked as resumed ({marked})." if marks else ""
    more = f" More of it at {listed(later)}." if later else ""
    said = "; ".join(_words(found) for found in here[:MOST_SAID])
    rest = len(here) - MOST_SAID
    others = f"; and {rest} more change{'s' * (rest > 1)}" if rest > 0 else ""
    return (
        f"The schedule looks stitched: at {phrase(first)} {said}{others}.{resumed}{more} "
        "What changes there may come from the schedule: select the parts alone."
    )


FactsOfRecords = Sequence[tuple[ScoreRecord, Mapping[str, Any]]]


def _series(history: FactsOfRecords, key: str) -> list[tuple[ScoreRecord, float]]:
    return [
        (record, float(facts[key]))
        for record, facts in history
        if isinstance(facts.get(key), int | float)
    ]


def _rising_again(history: FactsOfRecords) -> Iterator[ScheduleBreak]:
    """A rise of the learning rate once it has fallen or stood still.

    The rate of a file at step 0 is that of before the schedule began.
    """
    series = [(record, rate) for record, rate in _series(history, "learning_rate") if record.step]
    warm = False
    for (_, before), (record, after) in pairwise(series):
        if warm and after > before * (1 + JUMPED):
            yield _break("learning rate", record, "learning rate", before, after)
        warm = warm or after < before * (1 + TURNED)


def _turning(history: FactsOfRecords) -> Iterator[ScheduleBreak]:
    """A weight decay that falls after it rose, or rises after it fell."""
    series = _series(history, "weight_decay")
    way = 0
    for (_, before), (record, after) in pairwise(series):
        moved = 0 if abs(after - before) <= TURNED * abs(before) else 1 if after > before else -1
        if moved and way and moved != way:
            yield _break("weight decay", record, "weight decay", before, after)
        way = moved or way


def _counted_back(history: FactsOfRecords) -> Iterator[ScheduleBreak]:
    for name in dict.fromkeys(key for _, facts in history for key in facts.get("counters", {})):
        before: int | None = None
        for record, facts in history:
            count = facts.get("counters", {}).get(name)
            if count is None:
                continue
            if before is not None and count < before:
                yield _break("counter", record, name, before, count)
            before = count


def _changed(history: FactsOfRecords, part: str) -> Iterator[ScheduleBreak]:
    """Settings, or resume marks, that are others than in the checkpoint before.

    What changes at every checkpoint, such as a counter or the best loss so far, is no setting.
    """
    found: dict[str, list[ScheduleBreak]] = {}
    last: dict[str, Any] = {}
    for index, (record, facts) in enumerate(history):
        for name, value in facts.get(part, {}).items():
            known = name in last or (part == "resumed" and index > 0)
            if known and last.get(name) != value:
                kind: Kind = "resumed" if part == "resumed" else _kind(name)
                leaf = name.rpartition(".")[2]
                changed = _break(kind, record, leaf, last.get(name), value)
                found.setdefault(name, []).append(changed)
            last[name] = value
    steady = (one for one in found.values() if len(one) < max(2, len(history) // 2))
    said: list[ScheduleBreak] = []
    for change in (change for changes in steady for change in changes):
        if change not in said:
            said.append(change)
            yield change


def _without_even_batches(changes: Sequence[ScheduleBreak]) -> Iterator[ScheduleBreak]:
    """All but changes of the batch that leave it as large: 64 images on 8 devices, 32 on 16."""
    for change in changes:
        same = [c for c in changes if (c.kind, c.name) == ("batch", change.name)]
        values = [value for c in same for value in (c.before, c.after)]
        whole = all(isinstance(value, int) for value in values)
        if change.kind == "batch" and whole and len(same) > 1:
            before, after = (prod(getattr(c, part) for c in same) for part in ("before", "after"))
            if before == after:
                continue
        yield change


def _kind(name: str) -> Kind:
    leaf = name.rpartition(".")[2]
    words = set(re.split(r"[^a-z0-9]+", leaf.lower()))
    if leaf in LENGTHS:
        return "length"
    return "batch" if words & BATCHES else "setting"


def _break(kind: Kind, record: ScoreRecord, what: str, before: Any, after: Any) -> ScheduleBreak:
    return ScheduleBreak(kind, record.name, record.step, record.unit, what, before, after)


def _words(found: ScheduleBreak) -> str:
    sizes = f"from {_value(found.before)} to {_value(found.after)}"
    if found.kind == "learning rate":
        return f"the learning rate rises again {sizes}"
    if found.kind == "weight decay":
        return f"the weight decay turns {sizes}"
    if found.kind == "counter":
        return f"the counter {found.what!r} goes back {sizes}"
    return f"{found.what!r} changes {sizes}"


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
