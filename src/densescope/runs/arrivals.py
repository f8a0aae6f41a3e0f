"""Which checkpoints of a folder are whole while a job writes into it, and what to say of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from densescope.errors import DataError
from densescope.features.checkpoints import files_of
from densescope.features.discovery import RunCheckpoint, RunFiles, find_checkpoints
from densescope.features.folder_remarks import folder_remarks
from densescope.features.formats import find_format
from densescope.features.names import CheckpointNames, OrderError
from densescope.files import modified

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Arrival:
    """A checkpoint as it lies in the folder now.

    Attributes:
        checkpoint: its file, name and position.
        signature: name, size and time of change of each of its files.
    """

    checkpoint: RunCheckpoint
    signature: Signature

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.checkpoint.name


class Arrivals:
    """Tells checkpoints that are still being written from those that are not.

    A checkpoint is settled when names, sizes and times of its files have not changed for
    ``settle_seconds``; one that was last written longer ago than that is settled at first sight. An
    atomic rename shows a whole file at once, which only waits out the time.

    Attributes:
        folder: where the training job writes.
        format: row of ``FORMATS``.
        settle_seconds: how long a file must have been left alone.
        names: what the user says of the names of checkpoints.
        recorded: names of checkpoints that have a record, whether their files are there or not.
        files: what the last scan found, or ``None``.
        left_out: names that look like checkpoints of the run and are not taken.
        problem: why the last scan found nothing, else empty.
    """

    def __init__(
        self,
        folder: Path,
        format: str,
        settle_seconds: float,
        *,
        names: CheckpointNames | None = None,
        recorded: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.format = format
        self.settle_seconds = settle_seconds
        self.names = names
        self.recorded = set(recorded)
        self.files: RunFiles | None = None
        self.left_out: tuple[str, ...] = ()
        self.problem = ""
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen: dict[str, tuple[Signature, float]] = {}

    def scan(self) -> tuple[list[Arrival], list[Arrival]]:
        """The settled checkpoints and the others, each in order of step."""
        settled: list[Arrival] = []
        moving: list[Arrival] = []
        for arrival in self._present():
            (settled if self._is_settled(arrival) else moving).append(arrival)
        return settled, moving

    def is_unchanged(self, arrival: Arrival) -> bool:
        """Whether the files are still those of the arrival."""
        return signature_of(arrival.checkpoint.path) == arrival.signature

    def _present(self) -> list[Arrival]:
        self.files, self.left_out, self.problem = None, (), ""
        try:
            self.files = find_checkpoints(
                self.folder, self.format, self.names, gone=sorted(self.recorded)
            )
        except (DataError, FileNotFoundError) as error:  # none yet, or one was deleted just now
            self.problem = str(error)
            names = error.names if isinstance(error, OrderError) else ()
            self.left_out = tuple(name for name in names if name not in self.recorded)
            return []
        doubles = (name for group in self.files.doubles for name in group[1:])
        self.left_out = (*self.files.left_out, *doubles)
        found = [(one, signature_of(one.path)) for one in self.files.checkpoints]
        return [Arrival(one, signature) for one, signature in found if signature]

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
        return tuple((file.name, file.stat().st_size, modified(file)) for file in files_of(path))
    except FileNotFoundError:
        return ()


REPEAT_SECONDS = 600.0  # between two times that nothing to score is said


class FolderNotes:
    """Sentences on a folder, each once; that there is nothing to score again and again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: set[str] = set()
        self._problem_at = 0.0

    def of(self, arrivals: Arrivals) -> list[str]:
        """What is new since the last scan."""
        if arrivals.files is None:
            return self._of_problem(arrivals.problem)
        new = [text for text in _sentences(arrivals, arrivals.files) if text not in self._said]
        self._said |= set(new)
        return new

    def _of_problem(self, problem: str) -> list[str]:
        now = self._clock()
        if problem in self._said and now - self._problem_at < REPEAT_SECONDS:
            return []
        self._said.add(problem)
        self._problem_at = now
        return [f"nothing to score yet: {problem}"]


def _sentences(arrivals: Arrivals, files: RunFiles) -> list[str]:
    remarks = folder_remarks(files, arrivals.folder, find_format(arrivals.format))
    sentences = [remark.text for remark in remarks]
    try:
        files.check_doubles()
    except DataError as error:
        sentences.append(f"{error}; until then the first of them stands for all")
    return sentences
