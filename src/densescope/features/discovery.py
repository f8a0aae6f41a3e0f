"""The checkpoints of a run's folder, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from densescope.errors import DataError
from densescope.features.folder_remarks import nothing_found
from densescope.features.formats import FORMATS, find_format
from densescope.features.formats.row import Format
from densescope.features.names import (
    ENDINGS,
    PLAIN,
    UNITS,
    CheckpointNames,
    Numbers,
    OrderedName,
    looks_like_checkpoint,
    order_names,
    read_numbers,
)
from densescope.features.ranks import rank_files
from densescope.features.run_files import RunCheckpoint as RunCheckpoint
from densescope.features.run_files import RunFiles as RunFiles
from densescope.features.run_files import finished_paths, name_below
from densescope.files import fresh, location
from densescope.text import original_name, stored


def find_checkpoints(
    folder: str | Path,
    format: str | None = None,
    names: CheckpointNames | None = None,
    *,
    gone: Iterable[str] = (),
) -> RunFiles:
    """Checkpoints of a run in the order of the numbers in their names.

    The names that the format's training code writes come first: a pattern looks directly into the
    folder, or as many folders down as it has slashes; where a format has several, the first that
    finds anything is used. Where nothing has such a name, files that end as checkpoints do and
    have numbers (:func:`~densescope.features.names.read_numbers`) are taken. Files that training
    overwrites (``checkpoint.pth``) stand alone as number 0 where nothing has a number.

    Names with an epoch and a step are in order of both. The position is the epoch where each has
    one of its own, else the step. Of the files that the ranks of a run write for one step,
    the lowest rank's stands for all. Hidden and half-written files (``.tmp``, ``.part``) are
    skipped. A file of no bytes is listed: loading it says what is wrong with it.

    Args:
        folder: where the training code wrote its checkpoints.
        format: row of ``FORMATS``; ``None`` where it is not known yet.
        names: what the user says of the names.
        gone: names of checkpoints that were there before; together with those that are there they
            make the order.

    Returns:
        The checkpoints, and what else looks like some.

    Raises:
        DataError: there is no such folder, no file in it is a checkpoint, or their numbers make no
            order; the sentence says what is there.
    """
    row = None if format is None else find_format(format)
    folder, names = fresh(location(folder)), names or CheckpointNames()
    if folder.is_file():
        raise DataError(
            f"{folder} is a file: give the folder of the run, or score one file with "
            "densescope score"
        )
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    there = {name_below(folder, path): path for path in _candidates(folder, row, names)}
    before = (name if name in there else original_name(name) for name in gone)
    seen = {**{name: folder / name for name in before}, **there}
    numbers, rule = _numbered(seen, row, names)
    if not numbers.keys() & there.keys():
        latest = [] if names.pattern is not None else _overwritten(there, row)[:1]
        numbers, rule = {name: Numbers(plain=0) for name in latest}, "overwritten"
    if not numbers:
        raise DataError(nothing_found(folder, row, names))
    is_own = rule == "format" and row is not None and all(row.writes(name) for name in numbers)
    default = row.unit if row is not None and is_own else PLAIN
    ordered = order_names(numbers, unit=names.unit, default=default, folder=folder)
    groups: dict[int, list[OrderedName]] = {}
    for one in ordered:
        groups.setdefault(one.position, []).append(one)
    present = set(there.values())
    held = [
        RunCheckpoint(
            *(seen[one.name], stored(one.name), step),
            *(one.unit, one.is_unit_known, rule == "overwritten"),
        )
        for step, (one, *_) in groups.items()
    ]
    others = {name: path for name, path in there.items() if name not in {o.name for o in ordered}}
    left_out, unnumbered = _others(others, row, names)
    return RunFiles(
        tuple(one for one in held if one.path in present),
        rule,
        gone=tuple(one for one in held if one.path not in present),
        left_out=() if rule == "pattern" else left_out,
        unnumbered=unnumbered,
        doubles=tuple(
            tuple(stored(o.name) for o in group) for group in groups.values() if group[1:]
        ),
    )


def number_of(path: Path, row: Format) -> int | None:
    """The number in a name that the format's training code writes, in its unit; or ``None``."""
    return _own_numbers(path.as_posix(), row).counted_in(row.unit).of(row.unit)


def position_of(path: Path, row: Format) -> RunCheckpoint:
    """One checkpoint alone, with the position that its name tells; 0 where it tells none."""
    found = _own_numbers(path.as_posix(), row) or read_numbers(path.name)
    own, known = row.writes(path.as_posix()), found.plain is None
    counted = found.counted_in(row.unit if own else PLAIN)
    units = [unit for unit in (row.unit, *UNITS, PLAIN) if counted.of(unit) is not None]
    unit = units[0] if units else PLAIN
    step = counted.of(unit)
    return RunCheckpoint(path, path.name, 0 if step is None else step, unit, known)


def _candidates(folder: Path, row: Format | None, names: CheckpointNames) -> Iterator[Path]:
    patterns = [files.pattern for files in row.files] if row is not None else []
    if names.pattern is not None:
        patterns = [names.pattern]
    deepest = max((pattern.count("/") for pattern in patterns), default=0)
    deepest = 1000 if names.recursive else deepest
    for path in finished_paths(folder, deepest, strict=names.recursive):
        if rank_files(path)[0] == path:
            yield path


def _numbered(
    seen: dict[str, Path], row: Format | None, names: CheckpointNames
) -> tuple[dict[str, Numbers], str]:
    if names.pattern is not None:
        found = {name: names.search(name) for name in seen}
        return {name: numbers for name, numbers in found.items() if numbers}, "pattern"
    if row is not None:
        for files in row.files:
            found = {
                name: files.numbers(name)
                for name in seen
                if names.recursive or name.count("/") <= files.pattern.count("/")
            }
            if any(found.values()):
                return {name: numbers for name, numbers in found.items() if numbers}, "format"
    return _like_checkpoints(seen, names.recursive), "general"


def _like_checkpoints(seen: dict[str, Path], recursive: bool) -> dict[str, Numbers]:
    """Names that look like numbered checkpoints, with their numbers."""
    found = {
        name: read_numbers(name)
        for name, path in seen.items()
        if (recursive or "/" not in name) and (path.is_dir() or looks_like_checkpoint(name))
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def _overwritten(seen: Iterable[str], row: Format | None) -> list[str]:
    """Names of files that the format's training code overwrites, or any that is known."""
    rows = [row] if row is not None else [one for one in FORMATS.values() if one.files]
    patterns = dict.fromkeys(pattern for one in rows for pattern in one.latest)
    return [name for pattern in patterns for name in seen if fnmatch(Path(name).name, pattern)]


def _others(
    others: dict[str, Path], row: Format | None, names: CheckpointNames
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that look like numbered checkpoints, and those that end as checkpoints do."""
    overwritten = _overwritten(others, row)
    known = {*overwritten, *_of_rows_other_names(others, row)}
    left_out = [name for name in _like_checkpoints(others, names.recursive) if name not in known]
    unnumbered = [
        name
        for name in others
        if name in overwritten
        or (name not in {*left_out, *known} and "/" not in name and name.endswith(ENDINGS))
    ]
    return tuple(left_out), tuple(unnumbered)


def _of_rows_other_names(names: Iterable[str], row: Format | None) -> list[str]:
    """Names of the same checkpoints in another way, such as rank files beside whole teachers."""
    return [] if row is None else [name for name in names if row.writes(name)]


def _own_numbers(path: str, row: Format) -> Numbers:
    found = (files.numbers(path) for files in row.files)
    return next((one for one in found if one), Numbers())
