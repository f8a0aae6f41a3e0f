"""Settings, events and result of a watch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from densescope.errors import InputError
from densescope.records import ScoreRecord
from densescope.runs.arrivals import Signature
from densescope.selection import Alarm, AlarmSettings, Selection

Kind = Literal["start", "scored", "failed", "unreadable", "alarm", "ended", "note"]


@dataclass(frozen=True)
class WatchSettings:
    """How a folder is watched; none of it changes what a number means.

    Attributes:
        settle_seconds: a file counts as whole when it has not changed for so long.
        poll_seconds: between two scans of the folder.
        until_idle_seconds: end when nothing has changed for so long; ``None`` never ends.
        once: score what is whole now, and end.
        stop_on_alarm: end when an alarm is on, also one of an earlier watch.
        layer: the block by which the alarm judges.
        alarm: when a fall counts.
    """

    settle_seconds: float = 10.0
    poll_seconds: float = 5.0
    until_idle_seconds: float | None = None
    once: bool = False
    stop_on_alarm: bool = False
    layer: int = -1
    alarm: AlarmSettings = field(default_factory=AlarmSettings)

    def __post_init__(self) -> None:
        for name in ("settle_seconds", "poll_seconds", "until_idle_seconds"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name} is {value}; it must be at least 0")


@dataclass(frozen=True)
class WatchEvent:
    """What a watch says while it goes on.

    Attributes:
        kind: ``"start"``, ``"scored"``, ``"failed"``, ``"unreadable"`` (tried again later),
            ``"alarm"`` (one that has begun), ``"ended"`` (it has), or ``"note"``.
        name: the checkpoint, where there is one.
        text: the sentence of ``"unreadable"``, ``"failed"``, ``"alarm"``, ``"ended"``, ``"note"``.
        record: of the checkpoint, once there is one.
        selection: the choice among all checkpoints so far; ``None`` while there is none.
    """

    kind: Kind
    name: str = ""
    text: str = ""
    record: ScoreRecord | None = None
    selection: Selection | None = None


@dataclass(frozen=True)
class WatchResult:
    """What a watch leaves behind.

    Attributes:
        records: all of the run, in order of step.
        waiting: names of checkpoints that were not whole when it ended.
        alarm: the one that stands at the end, or ``None``.
        left_out: names that look like checkpoints of the run and were not scored.
        problem: why the last scan found no checkpoint, else empty.
    """

    records: tuple[ScoreRecord, ...]
    waiting: tuple[str, ...]
    alarm: Alarm | None
    left_out: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Tries:
    """How often a file could not be read, and when it is tried again."""

    count: int
    signature: Signature
    next_at: float
