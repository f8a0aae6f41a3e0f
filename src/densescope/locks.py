"""One process at a time: a lock that the system frees when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densescope.files import is_local


@contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file, which is made with its folder if need be and stays empty.

    Args:
        path: the file.
        wait: until it is free; else go on without it.

    Yields:
        Whether the lock is held. On a system and in an object store without such locks it always
        is.
    """
    if not is_local(path):
        yield True
        return
    try:
        import fcntl
    except ImportError:
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            yield False
            return
        yield True
