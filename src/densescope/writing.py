"""Files appear whole or not at all; what a killed writer left is removed by the next one."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from densescope.files import is_local, make_folder, on_system
from densescope.locks import exclusive, lock

_SHOWN_BYTES = 150  # of a file's name in that of its temporary file: names end at 255 bytes
_TOKEN = 17  # length of ".<16 digits>"
_PART = re.compile(r"\..+\.([0-9]{1,7}|[0-9a-f]{16})\.part")
_DAY = 86400.0
SHARED, IN_USE = ".images-", "in-use.lock"  # a folder of decoded images, and its lock
YOUNG_SECONDS = 10.0  # a file so young is perhaps not locked yet
_PROBE_BYTES = 1 << 20
_tidied: set[tuple[int, Path]] = set()


def append_line(path: Path, line: str) -> None:
    """Append a line to a file of lines; one that a crash cut off before it stays a line of its own.

    Raises:
        DiskError: the system refuses; the file is as it was before.
    """
    make_folder(path.parent)
    with on_system(path), path.open("a+b", buffering=0) as stream:
        end = stream.seek(0, os.SEEK_END)
        begin = b""
        if end:
            stream.seek(-1, os.SEEK_END)
            begin = b"" if stream.read(1) == b"\n" else b"\n"
        data = begin + line.encode() + b"\n"
        try:
            if stream.write(data) != len(data):
                raise OSError(errno.ENOSPC, "cut off")
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file so that a reader sees the whole of it or nothing, also after a crash.

    The first such file in a folder also removes what killed writers left there.

    Yields:
        Where to write. On a disk that is a file beside it, which is flushed and renamed in the end;
        for an object store a local file, which is uploaded in the end.

    Raises:
        DiskError: the operating system refuses. Nothing half-written is left.
    """
    if not is_local(path):
        remote = cast(Any, path)
        with tempfile.TemporaryDirectory(prefix="densescope-") as folder:
            temporary = Path(folder) / path.name
            yield temporary
            remote.fs.put_file(str(temporary), remote.path)
        return
    make_folder(path.parent)
    with on_system(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        remove_abandoned(path.parent)
        with _reserved(path) as temporary:
            try:
                yield temporary
            except OSError:
                raise
            except Exception as cause:
                refused = _refusal_behind(cause, temporary)
                if refused is None:
                    raise
                raise refused from cause
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)


@contextmanager
def _reserved(path: Path) -> Iterator[Path]:
    """A new file beside a path, of a name that no other process takes, locked while it is used."""
    shown = os.fsencode(path.name)[:_SHOWN_BYTES].decode(errors="ignore")
    temporary = path.with_name(f".{shown}.{secrets.token_hex(8)}.part")
    with temporary.open("xb") as stream:
        try:
            lock(stream, wait=True)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of writers that were killed, once per folder and process.

    Such a file is locked as long as its writer lives. Where there are no locks, and of files that
    earlier versions left, a day without a change tells.
    """
    if (os.getpid(), folder) in _tidied:
        return
    _tidied.add((os.getpid(), folder))
    with suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if _PART.fullmatch(entry.name)]
        for part in found:
            _remove_if_abandoned(part)


def remove_shared_images(output: Path) -> None:
    """Remove decoded images that the processes of a killed sweep shared.

    Those of a sweep at work are locked.
    """
    for folder in output.glob(f"{SHARED}*"):
        try:
            is_young = time.time() - folder.stat().st_mtime < YOUNG_SECONDS
        except FileNotFoundError:
            continue
        if is_young:  # perhaps not locked yet
            continue
        with exclusive(folder / IN_USE, wait=False) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _remove_if_abandoned(part: Path) -> None:
    with suppress(OSError):
        age = time.time() - part.stat().st_mtime
        if len(part.suffixes[-2]) < _TOKEN:  # of an earlier version, which had no lock
            is_abandoned = age > _DAY
        else:
            with part.open("rb") as stream:
                held = lock(stream, wait=False)
            is_abandoned = age > (_DAY if held is None else YOUNG_SECONDS) and held is not False
        if is_abandoned:
            part.unlink()


def _refusal_behind(cause: Exception, temporary: Path) -> OSError | None:
    """What the system refused to a library that has words of its own for it, or ``None``.

    torch.save reports a full disk as a failed check of its own, safetensors as a text. What the
    system says is in that text, or it says it again when more is written.
    """
    said = re.search(r"os error (\d+)", str(cause))
    if said:
        number = int(said[1])
        return OSError(number, os.strerror(number))
    if isinstance(cause, RuntimeError) and temporary.is_file():
        try:
            with temporary.open("ab") as stream:
                stream.write(bytes(_PROBE_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as refused:
            return refused
    return None
