"""The weights of the next checkpoint are read while this one is scored."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from densescope.features.backbones import LoadedBackbone
from densescope.features.checkpoints import files_of


@dataclass(frozen=True)
class ReadCheckpoint:
    """A checkpoint in memory.

    Attributes:
        loaded: its backbone and provenance.
        modified: when the file that was read had last been changed, in nanoseconds.
        seconds: that reading took.
    """

    loaded: LoadedBackbone
    modified: int
    seconds: float


def read_checkpoint(path: Path, load: Callable[[Path], LoadedBackbone]) -> ReadCheckpoint:
    """Read one checkpoint; a file replaced while it is read counts as the older one.

    Raises:
        CheckpointError: as ``load`` does.
    """
    started, changed = time.perf_counter(), modified(path)
    loaded = load(path)
    return ReadCheckpoint(loaded, changed, time.perf_counter() - started)


def modified(path: Path) -> int:
    """When a checkpoint was last changed, in nanoseconds; of several files, the youngest."""
    return max(item.stat().st_mtime_ns for item in files_of(path))


class ReadAhead:
    """Reads checkpoints in a thread of its own, at most one ahead of the one that was taken.

    Use it as a context; its end waits for a read that is under way, so that no thread is left.

    Args:
        read: from a path to a checkpoint.
    """

    def __init__(self, read: Callable[[Path], ReadCheckpoint]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="densescope-read")
        self._begun: tuple[Path, Future[ReadCheckpoint]] | None = None

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._begun = None
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, path: Path) -> None:
        """Start to read a checkpoint, which is to be taken next."""
        self._begun = (path, self._pool.submit(self._read, path))

    def take(self, path: Path, following: Path | None = None) -> ReadCheckpoint:
        """A checkpoint, once it is read; then the following one is begun.

        Raises:
            CheckpointError: as reading this checkpoint does.
        """
        if self._begun is None or self._begun[0] != path:
            self.begin(path)
        assert self._begun is not None
        (_, future), self._begun = self._begun, None
        try:
            return future.result()
        finally:
            if following is not None:
                self.begin(following)
