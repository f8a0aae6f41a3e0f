"""Everything that is wrong with the files of a labelled set, at once and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densescope.errors import DataError
from densescope.evaluation.datasets.pairs import Pair
from densescope.evaluation.datasets.pixels import photo_size, read_indices

SHOWN = 3


@dataclass(frozen=True)
class Missing:
    """Files of one folder that have no partner in another.

    Attributes:
        what: what is missing, ``"mask"`` or ``"image"``.
        folder: where it was looked for.
        names: of those without it.
    """

    what: str
    folder: Path
    names: Sequence[str]


@dataclass(frozen=True)
class CheckedPair:
    """What one image and its mask turned out to be.

    Attributes:
        pair: the two files.
        image: columns and rows; ``None`` where it cannot be read.
        mask: the same of the mask.
        values: pixel values in the mask.
        problems: why a file cannot be read.
    """

    pair: Pair
    image: tuple[int, int] | None
    mask: tuple[int, int] | None
    values: frozenset[int]
    problems: tuple[str, ...] = ()


def inspect_pairs(pairs: Sequence[Pair], workers: int | None = None) -> list[CheckedPair]:
    """Decode every image and mask once, in threads, and say what they are."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return list(pool.map(_look, pairs))


def _look(pair: Pair) -> CheckedPair:
    problems: list[str] = []

    def tried(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except DataError as error:
            problems.append(str(error))
            return None

    values = tried(lambda: read_indices(pair.mask))
    size = None if values is None else (values.shape[1], values.shape[0])
    image = tried(lambda: photo_size(pair.image, size))
    found = frozenset() if values is None else frozenset(np.unique(values).tolist())
    return CheckedPair(pair, image, size, found, tuple(problems))


def complaints(
    looks: Sequence[CheckedPair],
    missing: Sequence[Missing],
    mapping: Mapping[int, int],
    ignored: Sequence[int],
) -> list[str]:
    """One sentence for each kind of fault, with how many there are and the first few by name.

    Args:
        looks: of all pairs.
        missing: files without a partner.
        mapping: pixel values that are classes.
        ignored: pixel values without a label.
    """
    found = [
        f"{_count(part.names, 'image' if part.what == 'mask' else 'mask')} without "
        f"{'a mask' if part.what == 'mask' else 'an image'} in {part.folder}: {_few(part.names)}"
        for part in missing
    ]
    unread = [problem for look in looks for problem in look.problems]
    if unread:
        found.append(f"{_count(unread, 'file')} that cannot be used: {_few(unread, '; ')}")
    sizes = [look for look in looks if look.image and look.mask and look.image != look.mask]
    if sizes:
        shown = [f"{one.pair.name} ({_size(one.image)}, mask {_size(one.mask)})" for one in sizes]
        found.append(f"{_count(sizes, 'mask')} of another size than the image: {_few(shown)}")
    return [*found, *_unknown_values(looks, mapping, ignored)]


def _unknown_values(
    looks: Sequence[CheckedPair], mapping: Mapping[int, int], ignored: Sequence[int]
) -> list[str]:
    known = {*mapping, *ignored}
    odd = [(look.pair.name, sorted(look.values - known)) for look in looks if look.values - known]
    if not odd:
        return []
    shown = [f"{name} ({', '.join(map(str, values[:SHOWN]))})" for name, values in odd]
    values = sorted({value for _, values in odd for value in values})
    some = ",".join(map(str, values[:5]))
    return [
        f"{_count(odd, 'mask')} with pixel values that are no class: {_few(shown)}; there "
        f"are {len(mapping)} classes ({value_range(sorted(mapping))}): name more, or leave "
        f"values out with --ignore {some}{',...' if len(values) > 5 else ''}"
    ]


def value_range(values: Sequence[int]) -> str:
    """``values 0 to 10``, or the first few where some are left out between."""
    if not values:
        return "none"
    whole = list(values) == list(range(values[0], values[-1] + 1))
    return f"values {values[0]} to {values[-1]}" if whole else f"values {_few(values)}"


def _count(things: Sequence[Any], what: str) -> str:
    return f"{len(things):,} {what}{'s' * (len(things) != 1)}"


def _few(things: Sequence[Any], between: str = ", ") -> str:
    return between.join(map(str, things[:SHOWN])) + (f"{between}..." if len(things) > SHOWN else "")


def _size(size: tuple[int, int] | None) -> str:
    return "unknown" if size is None else f"{size[0]} x {size[1]}"
