"""Files of a folder that were finished, and folders that are one checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

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
    names = {path.name for path in folder.iterdir()}
    has_weights = any(_WEIGHTS.fullmatch(name) for name in names)
    is_in_pieces = ".metadata" in names or any(name.endswith(".index.json") for name in names)
    return is_in_pieces or (has_weights and bool(names & _CONFIGS))


def walk(folder: Path, deepest: int) -> Iterator[Path]:
    """Whole files and checkpoint folders, at most so many folders down.

    Nothing below a checkpoint folder that has a number is looked at: those are its parts.
    """
    for path in sorted(folder.iterdir()):
        if is_whole(path):
            yield path
        is_part = is_whole(path) and bool(read_numbers(path.name))
        if deepest > 0 and path.is_dir() and not path.name.startswith(".") and not is_part:
            yield from walk(path, deepest - 1)
