"""Which checkpoints of a folder are whole, while a training job goes on writing into it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from densescope.errors import DataError
from densescope.features.checkpoints import files_of
from densescope.features.discovery import find_checkpoints

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Arrival:
    """A checkpoint as it lies in the folder now.

    Attributes:
        path: the file or folder; of rank files the lowest rank's.
        name: its path below the run's folder.
        step: the number in its name.
        signature: name, size and time of change of each of its files.
    """

    path: Path
    name: str
    step: int
    signature: Signature


class Arrivals:
    """Tells checkpoints that are still being written from those that are not.

    A checkpoint is settled when names, sizes and times of its files have not changed for
    ``settle_seconds``; one that was last written longer ago than that is settled at first sight. An
    atomic rename shows a whole file at once, which only waits out the time.

    Attributes:
        folder: where the training job writes.
        format: row of ``FORMATS``.
        settle_seconds: how long a file must have been left alone.
    """

    def __init__(
        self,
        folder: Path,
        format: str,
        settle_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.format = format
        self.settle_seconds = settle_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen: dict[str, tuple[Signature, float]] = {}

    def look(self) -> tuple[list[Arrival], list[Arrival]]:
        """The settled checkpoints and the others, each in order of step."""
        settled: list[Arrival] = []
        moving: list[Arrival] = []
        for arrival in self._present():
            (settled if self._is_settled(arrival) else moving).append(arrival)
        return settled, moving

    def is_unchanged(self, arrival: Arrival) -> bool:
        """Whether the files are still those of the arrival."""
        return signature_of(arrival.path) == arrival.signature

    def _present(self) -> list[Arrival]:
        try:
            found = find_checkpoints(self.folder, self.format)
        except (DataError, FileNotFoundError):  # none yet, or one was deleted just now
            return []
        present = []
        for path, step in found:
            signature = signature_of(path)
            if signature:
                name = path.relative_to(self.folder).as_posix()
                present.append(Arrival(path, name, step, signature))
        return present

    def _is_settled(self, arrival: Arrival) -> bool:
        now = self._clock()
        signature, since = self._seen.get(arrival.name, ((), now))
        if signature != arrival.signature:
            since = now
            self._seen[arrival.name] = (arrival.signature, since)
        youngest = max(changed for _, _, changed in arrival.signature) / 1e9
        age = max(now - since, self._wall_clock() - youngest if not signature else 0.0)
        if age >= self.settle_seconds:
            self._seen[arrival.name] = (arrival.signature, now - age)
            return True
        return False


def signature_of(path: Path) -> Signature:
    """Name, size and time of change of every file of a checkpoint; empty once one is gone."""
    try:
        stats = [(file.name, file.stat()) for file in files_of(path)]
    except FileNotFoundError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
