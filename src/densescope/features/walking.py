"""Files of a folder that were finished, and folders that are one checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from densescope.errors import DataError
from densescope.features.names import read_numbers

_UNFINISHED = (".tmp", ".part", ".partial", ".incomplete", ".lock", "~")
_CONFIGS = {"config.json", "open_clip_config.json"}
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|(open_clip_)?(pytorch_)?model.*\.bin")


def below(folder: Path, path: Path) -> str:
    """Name of a checkpoint: its path below the run's folder."""
    return path.relative_to(folder).as_posix()


def is_whole(path: Path) -> bool:
    """Whether a path is a file that was finished, or a folder that is a checkpoint."""
    if path.name.startswith(".") or path.name.endswith(_UNFINISHED):
        return False
    return is_checkpoint_folder(path) if path.is_dir() else path.is_file()


def is_checkpoint_folder(folder: Path) -> bool:
    """Whether a folder as a whole is one checkpoint: its files are parts of it."""
    try:
        names = {path.name for path in folder.iterdir()}
    except PermissionError:
        return False
    has_weights = any(_WEIGHTS.fullmatch(name) for name in names)
    is_in_pieces = ".metadata" in names or any(name.endswith(".index.json") for name in names)
    return is_in_pieces or (has_weights and bool(names & _CONFIGS))


def walk(folder: Path, deepest: int, *, strict: bool = False) -> Iterator[Path]:
    """Whole files and checkpoint folders, at most so many folders down.

    Nothing below a checkpoint folder that has a number is looked at: those are its parts. Nor is a
    link that leads back to a folder that is looked at anyway.

    Args:
        folder: where to begin.
        deepest: folders down.
        strict: whether a sub-folder that may not be read is an error.

    Raises:
        DataError: a folder may not be read.
    """
    yield from _walk(folder, deepest, folder.resolve(), strict)


def _walk(folder: Path, deepest: int, top: Path, strict: bool) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except PermissionError as cause:
        if not strict and folder.resolve() != top:
            return
        raise DataError(f"{folder} may not be read ({cause.strerror}): check its mode") from cause
    for path in paths:
        whole = is_whole(path)
        if whole:
            yield path
        if deepest == 0 or not path.is_dir() or path.name.startswith("."):
            continue
        is_part = whole and bool(read_numbers(path.name))
        if not is_part and not _leads_back(path, top):
            yield from _walk(path, deepest - 1, top, strict)


def _leads_back(path: Path, top: Path) -> bool:
    """Whether a link leads to a folder below the top, or to one that the top lies in."""
    if not path.is_symlink():
        return False
    target = path.resolve()
    return target.is_relative_to(top) or top.is_relative_to(target)
