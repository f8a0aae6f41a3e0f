"""Errors a user can act on; the command line prints their text and nothing else."""

from __future__ import annotations

import errno
import os
from typing import Self

from densescope.text import shown

NOT_FINITE = "NaN or infinite"  # stands in every error about such features or weights


class DensescopeError(Exception):
    """Base of every error this package raises on purpose.

    The message is one sentence or two: what is wrong, where, and what to do about it.

    What it says of a file (names, keys, other errors) is made safe to print and to store.

    Attributes:
        is_of_option: whether an option has a value that no checkpoint of the run can take.
    """

    is_of_option = False

    def __init__(self, message: object = "") -> None:
        super().__init__(shown(message))


class InputError(DensescopeError):
    """An argument or a tensor is not what the function can work with."""


class OptionError(InputError):
    """An option has a value that cannot be, whatever the files hold."""

    is_of_option = True


class CheckpointError(DensescopeError):
    """A checkpoint file cannot be read, does not fit its format or not its architecture."""


class DataError(DensescopeError):
    """Images or labels are missing, unreadable or do not fit each other."""


class RecordError(DensescopeError):
    """A stored record is missing, damaged, or belongs to another run."""


class NewerRecordError(RecordError):
    """A stored record is of a later version of this package, which knows more of it."""


class DiskError(DensescopeError, OSError):
    """The operating system refused to write or read a file; no checkpoint is to blame."""

    @classmethod
    def of(cls, cause: OSError, path: object) -> Self:
        """The error as :func:`system_refusal` says it."""
        error = cls(system_refusal(cause, path))
        error.errno = cause.errno
        return error


_LONGEST_PATH = 1000  # characters in a sentence
_FULL = "free some space, or name a place on another disk; what was finished is kept"
_CURES = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EFBIG: ("the file would be larger than this system allows", _FULL),
    errno.EROFS: ("the file system is read-only", "name a folder that can be written to"),
    errno.EACCES: ("permission denied", "check the permissions of the file and of its folders"),
    errno.EPERM: ("not permitted", "check the owner and the attributes of the file"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "name another place"),
    errno.EEXIST: ("there is a file where a folder is needed", "name another folder"),
    errno.EISDIR: ("it is a folder", "name a file"),
    errno.ENOENT: ("it does not exist", "check the path"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "choose a shorter name"),
    errno.ELOOP: ("its symbolic links lead in a circle", "remove these links"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "close other programs"),
    errno.EIO: ("the disk reports an error", "check the disk and the connection to it"),
    errno.ESTALE: ("the network file system lost the file", "check that it is still mounted"),
}


def system_refusal(cause: OSError, path: object = None) -> str:
    """What the operating system refused, as one sentence with a cure.

    Args:
        cause: as the system reported it.
        path: the file or folder; the one that the error names by default.
    """
    known = _CURES.get(cause.errno or 0)
    reason, cure = known or (cause.strerror or str(cause), "check the path and the file system")
    place = path if path is not None else cause.filename
    text = os.fsdecode(place) if isinstance(place, str | bytes | os.PathLike) else place
    where = "a file" if text is None else shown(text, _LONGEST_PATH)
    return f"cannot read or write {where}: {reason}. {cure[0].upper()}{cure[1:]}"
