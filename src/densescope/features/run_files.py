"""Checkpoints of a run, and the files and folders that may be some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from densescope.errors import DataError
from densescope.features.layouts import listing
from densescope.features.names import pattern_of, read_numbers

_UNFINISHED = (".tmp", ".part", ".partial", ".incomplete", ".lock", "~")
_CONFIGS = {"config.json", "open_clip_config.json"}
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|(open_clip_)?(pytorch_)?model.*\.bin")


def name_below(folder: Path, path: Path) -> str:
    """Name of a checkpoint: its path below the run's folder."""
    return path.relative_to(folder).as_posix()


def is_finished(path: Path) -> bool:
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


def finished_paths(folder: Path, deepest: int, *, strict: bool = False) -> Iterator[Path]:
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
        whole = is_finished(path)
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


@dataclass(frozen=True)
class RunCheckpoint:
    """One checkpoint of a run.

    Attributes:
        path: the file or folder; of rank files the lowest rank's.
        name: its path below the run's folder as records keep it, with ``/`` between its parts.
        step: its position in the run, which its name tells.
        unit: what ``step`` counts: ``"epoch"``, ``"step"``, or ``"checkpoint number"`` where that
            is not known.
        is_unit_known: whether the name or the user says so, and not the format; the counter in the
            file may tell better then.
        is_overwritten: training goes on writing into this file, which has no number of its own.
    """

    path: Path
    name: str
    step: int
    unit: str = "epoch"
    is_unit_known: bool = True
    is_overwritten: bool = False


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds.

    Attributes:
        checkpoints: in order.
        rule: what their names fit: ``"format"``, ``"general"`` (numbers in other names),
            ``"pattern"`` (the user's own), or ``"overwritten"`` (no number).
        gone: checkpoints that were there before, with the positions they have among the others.
        left_out: names that look like numbered checkpoints and are none of them.
        unnumbered: names that end as checkpoints do and have no number, such as ``last.ckpt``.
        doubles: groups of names at one position; of each the first is among the checkpoints.
    """

    checkpoints: tuple[RunCheckpoint, ...]
    rule: str
    gone: tuple[RunCheckpoint, ...] = ()
    left_out: tuple[str, ...] = ()
    unnumbered: tuple[str, ...] = ()
    doubles: tuple[tuple[str, ...], ...] = ()

    def check_doubles(self) -> None:
        """Refuse two checkpoints at one position.

        Raises:
            DataError: there are such; the sentence says how to choose.
        """
        if not self.doubles:
            return
        first = self.doubles[0]
        at = next(one for one in (*self.checkpoints, *self.gone) if one.name == first[0])
        patterns = list(dict.fromkeys(pattern_of(name) for name in first))
        choose = " or ".join(f"--pattern {quote(pattern)}" for pattern in patterns[:2])
        if len(patterns) == 1:
            choose = f"another --unit than {at.unit}, or a --pattern"
        raise DataError(
            f"{listing(list(first))} are all at {at.unit} {at.step}, and a run has one checkpoint "
            f"there: choose with {choose}"
        )
