"""The class list of folders that users name themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets.layout import IGNORE_INDEX

NUMBERED = re.compile(r"(\d+)\s*:\s*(.+)")


def class_list(
    path: Path,
    given: Sequence[str] | Mapping[int, str] | None,
    ignored: Sequence[int],
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names and ``pixel value -> class id``, from an argument or the file beside the data.

    Values that are ignored are no class: with names for 0, 1, 2 and 0 ignored, the class ids are
    0 for value 1 and 1 for value 2.

    Raises:
        InputError: no class is left, more than 255, a name twice, or an impossible value.
        DataError: no argument was given and the file is missing.
    """
    named = _numbered(given) if given is not None else _read(path)
    values = sorted(value for value in named if value not in ignored)
    names = tuple(named[value] for value in values)
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise InputError(f"{len(names)} classes cannot be told apart here: give 1 to 255 of them")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the class {twice!r} is named twice: give every value its own name")
    if not all(0 <= value <= 65535 for value in (*named, *ignored)):
        raise InputError("pixel values lie between 0 and 65535: correct the class list")
    return names, {value: index for index, value in enumerate(values)}


def _numbered(given: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    return dict(given) if isinstance(given, Mapping) else dict(enumerate(given))


def _read(path: Path) -> dict[int, str]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: write one class a line (or 'value: name'), or give classes=..."
        )
    text = path.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [NUMBERED.fullmatch(line) for line in lines]
    if not any(matches):
        return dict(enumerate(lines))
    if not all(matches):
        plain = next(line for line, match in zip(lines, matches, strict=True) if not match)
        raise DataError(
            f"{path} numbers some classes but not {plain!r}: number all lines ('value: name') or "
            "none"
        )
    pairs = [(int(match[1]), match[2]) for match in matches if match]
    if len({value for value, _ in pairs}) < len(pairs):
        raise DataError(f"{path} gives one value to two classes: every value needs one line")
    return dict(pairs)
