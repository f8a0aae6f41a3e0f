"""The next checkpoint is read, and shown the images, while this one is scored."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

from densescope.features.checkpoints import files_of
from densescope.features.loaded import LoadedBackbone
from densescope.files import modified

Done = TypeVar("Done")


@dataclass(frozen=True)
class CheckpointInMemory:
    """A checkpoint in memory.

    Attributes:
        loaded: its backbone and provenance.
        modified: when the file that was read had last been changed, in nanoseconds.
        seconds: that reading took.
    """

    loaded: LoadedBackbone
    modified: int
    seconds: float


def load_checkpoint(path: Path, load: Callable[[Path], LoadedBackbone]) -> CheckpointInMemory:
    """Read one checkpoint; a file replaced while it is read counts as the older one.

    Raises:
        CheckpointError: as ``load`` does.
    """
    started, changed = time.perf_counter(), checkpoint_modified(path)
    loaded = load(path)
    return CheckpointInMemory(loaded, changed, time.perf_counter() - started)


def checkpoint_modified(path: Path) -> int:
    """When a checkpoint was last changed, in nanoseconds; of several files, the youngest."""
    return max((modified(item) for item in files_of(path)), default=0)


class Prefetcher(Generic[Done]):
    """Does work on checkpoints in a thread of its own, at most one ahead of the one taken.

    Use it as a context; its end waits for work that is under way, so that no thread is left.

    Args:
        work: from a path to what is made of the checkpoint there.
        name: of the thread.
    """

    def __init__(self, work: Callable[[Path], Done], name: str) -> None:
        self._work = work
        # a setting of this thread is what a thread of its own is to work with
        self._pool = ThreadPoolExecutor(
            1, f"densescope-{name}", torch.set_num_threads, (torch.get_num_threads(),)
        )
        self._begun: tuple[Path, Future[Done]] | None = None

    def __enter__(self) -> Self:
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
        """Start with a checkpoint, which is to be taken next."""
        self._begun = (path, self._pool.submit(self._work, path))

    def take(self, path: Path, following: Path | None = None) -> Done:
        """What is made of a checkpoint, once it is done; then the following one is begun.

        Raises:
            CheckpointError: as the work on this checkpoint does, and whatever else that raises.
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
