"""The checkpoints of a run's folder, in order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from densescope.errors import DataError
from densescope.features.format_words import score_command
from densescope.features.formats import FORMATS, Format, find_format
from densescope.features.ranks import rank_files

_UNFINISHED = (".tmp", ".part", ".partial", ".incomplete", ".lock", "~")
_ENDINGS = (".pth", ".pt", ".pth.tar", ".ckpt", ".bin", ".safetensors")


def find_checkpoints(folder: str | Path, format: str) -> list[tuple[Path, int]]:
    """Numbered checkpoints of a run, by the file names its training code writes.

    A pattern looks directly into the folder, or as many folders down as it has slashes; where a
    format has several, the first that finds anything is used. Files that training overwrites
    (``checkpoint.pth``) are left out when numbered ones exist, and stand alone as step 0
    otherwise. Of the files that the ranks of a run write for one step, the lowest rank's is listed
    and stands for all. Hidden and half-written files (``.tmp``, ``.part``) are skipped. A file of
    no bytes is listed: loading it says what is wrong with it.

    Args:
        folder: where the training code wrote its checkpoints.
        format: name of a row of ``FORMATS``.

    Returns:
        (path, number in its name), sorted by number; among equal numbers, by name.

    Raises:
        DataError: there is no such folder, or no file in it has a name of this format; the
            sentence names the pattern and the formats whose names are there.
    """
    row, folder = find_format(format), Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found = _numbered(folder, row)
    if found:
        return found
    latest = [
        (path, 0) for name in row.latest for path in sorted(folder.glob(name)) if _whole(path)
    ]
    if latest:
        return latest[:1]
    raise DataError(_nothing(folder, row))


def passed_over(
    folder: str | Path, format: str, checkpoints: Iterable[tuple[Path, int]]
) -> list[str]:
    """Files that look like checkpoints and are none of those that were found.

    Args:
        folder, format: as for :func:`find_checkpoints`.
        checkpoints: what it found there.

    Returns:
        Names of files that lie directly in the folder and end as checkpoints do, sorted. The files
        that the format's training code is known to overwrite are not among them.
    """
    row, folder = find_format(format), Path(folder)
    expected = {part for path, _ in checkpoints for part in rank_files(path)}
    expected |= {path for name in row.latest for path in folder.glob(name)}
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name.endswith(_ENDINGS) and path not in expected and _whole(path)
    )


def number_of(path: Path, row: Format) -> int | None:
    """The number in a checkpoint's name, or ``None``."""
    for names in row.files:
        tail = "/".join(path.parts[-1 - names.pattern.count("/") :])
        matched = re.fullmatch(names.pattern, tail)
        if matched:
            return int(matched.group(1))
    return None


def _numbered(folder: Path, row: Format) -> list[tuple[Path, int]]:
    for pattern in (names.pattern for names in row.files):
        found = []
        for depth in range(pattern.count("/") + 1):
            for path in folder.glob("/".join(["*"] * (depth + 1))):
                matched = re.fullmatch(pattern, path.relative_to(folder).as_posix())
                if matched and _whole(path) and rank_files(path)[0] == path:
                    found.append((path, int(matched.group(1))))
        if found:
            return sorted(found, key=lambda item: (item[1], item[0].name))
    return []


def _whole(path: Path) -> bool:
    if path.name.startswith(".") or path.name.endswith(_UNFINISHED):
        return False
    if path.is_dir():
        return (path / ".metadata").is_file() or (path / "config.json").is_file()
    return path.is_file()


def _nothing(folder: Path, row: Format) -> str:
    names = [*(names.example for names in row.files), *row.latest]
    if not names:
        return (
            f"{folder} cannot be taken for a run: format {row.name} is of single files without a "
            f"number; score one with: {score_command(row)}"
        )
    others = [
        name
        for name, other in FORMATS.items()
        if other is not row and name != "custom" and (_numbered(folder, other))
    ]
    hint = f"; names of these formats are there: {', '.join(others)}" if others else ""
    wanted = " or ".join(names)
    return f"no checkpoint of format {row.name} in {folder}: none is named like {wanted}{hint}"
