"""Where files lie: on this machine's disks, or in an object store that a URL names.

Everything above works on paths; one with a URL is a ``UPath`` of universal_pathlib, which has the
same methods. What a disk and an object store do differently is here.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from densescope.errors import DataError, DiskError, InputError

_BLOCK = 1 << 22  # bytes that are read ahead from an object store
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}


@runtime_checkable
class Remote(Protocol):
    """A path of universal_pathlib: a place in a file system, perhaps with options of it."""

    fs: Any
    path: str


def location(place: str | os.PathLike[str]) -> Path:
    """A path on this machine, or in an object store where a URL such as ``s3://bucket/run`` is.

    Raises:
        InputError: the URL's kind of store is not known, or a library for it is not installed.
    """
    if isinstance(place, Remote):
        return cast(Path, place)
    text = os.fspath(place)
    if "://" not in text:
        return Path(text)
    from upath import UPath

    scheme = text.split("://")[0]
    try:
        path = UPath(text)
        _ = path.fs
    except ImportError as cause:
        extra = _EXTRAS.get(scheme)
        what = f"'densescope[{extra}]'" if extra else f"what fsspec needs for it ({cause})"
        raise InputError(f"{text} is in an object store: pip install {what} to reach it") from cause
    except ValueError as cause:
        raise InputError(
            f"{text} names no known kind of store: take s3://, gs://, or another that fsspec knows"
        ) from cause
    return cast(Path, path)


def is_local(path: Path) -> bool:
    """Whether a path is on this machine's disks."""
    return isinstance(path, Path)


def on_disk(path: Path, what: str) -> Path:
    """The path, where it is on a disk.

    Raises:
        InputError: it is in an object store.
    """
    if not is_local(path):
        raise InputError(
            f"{what} cannot be {path}: object stores have no locks and cannot append to a file; "
            "name a folder on a disk"
        )
    return path


def fresh(folder: Path) -> Path:
    """The folder, of which nothing is remembered from an earlier look.

    Raises:
        DataError: it is in an object store that cannot be reached.
    """
    if not is_local(folder):
        try:
            cast(Any, folder).fs.invalidate_cache()
            folder.exists()
        except Exception as cause:  # every store has errors of its own
            first = f"{cause}".strip().splitlines()[0] if f"{cause}".strip() else repr(cause)
            raise DataError(
                f"{folder} cannot be reached ({first}): check the name, your credentials for the "
                "store and the connection"
            ) from cause
    return folder


def modified(path: Path) -> int:
    """When a file was last changed, in nanoseconds; object stores know it to the second."""
    if is_local(path):
        return path.stat().st_mtime_ns
    remote = cast(Any, path)
    return int(remote.fs.modified(remote.path).timestamp()) * 10**9


def opened(path: Path) -> BufferedReader:
    """A file to read from at any place; of an object store only what is asked for is fetched.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a socket: these may never end.
    """
    if is_local(path):
        return open(path, "rb", opener=_open_regular)
    remote = cast(Any, path)
    stream = remote.fs.open(remote.path, "rb", block_size=_BLOCK, cache_type="readahead")
    return cast(BufferedReader, stream)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, not a file", path)


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a file.

    Args:
        path: of a file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read, is no file, or has more bytes.
    """
    with opened(path) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def remove_folder(folder: Path) -> None:
    """Delete a folder and everything in it, where it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        remote = cast(Any, folder)
        remote.fs.rm(remote.path, recursive=True)


@contextmanager
def on_system(path: Path) -> Iterator[None]:
    """Let what the operating system refuses in this block be a sentence that names the path.

    Raises:
        DiskError: in place of any other ``OSError``.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as cause:
        raise DiskError.of(cause, path) from cause


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to, with those above it.

    Raises:
        DiskError: it is a file, or may not be written to.
    """
    with on_system(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if is_local(folder) and not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "cannot be written to")
