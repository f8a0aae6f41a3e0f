"""One process at a time: a lock that the system frees when its holder dies."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from densescope.files import is_local, make_folder, on_system

# What a file system without such locks answers; some network file systems are among them.
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


def lock(stream: IO[Any], *, wait: bool) -> bool | None:
    """Lock an open file until it is closed.

    Args:
        stream: the file.
        wait: until nobody else holds the lock.

    Returns:
        Whether it is held now; ``None`` where this system or file system has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as refused:
        if refused.errno in _NO_LOCKS:
            return None
        if refused.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


@contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file, which is made with its folder if need be and stays empty.

    Args:
        path: the file.
        wait: until it is free; else go on without it.

    Yields:
        Whether the lock is held. In an object store, and on a system or a file system without such
        locks, it always is.

    Raises:
        DiskError: the file cannot be made.
    """
    if not is_local(path):
        yield True
        return
    make_folder(path.parent)
    with on_system(path):
        stream = path.open("a")
    with stream:
        with on_system(path):
            held = lock(stream, wait=wait)
        yield held is not False
