"""Which image belongs to which mask."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densescope.errors import DataError
from densescope.evaluation.datasets.layout import DatasetRow, Split

SHOWN = 3


@dataclass(frozen=True)
class Pair:
    """An image file and its mask file."""

    name: str
    image: Path
    mask: Path


def find_pairs(row: DatasetRow, root: Path, split: Split) -> tuple[Pair, ...]:
    """All pairs of a split, in the order of its list or else sorted by name.

    Raises:
        DataError: a folder or list is missing, the split is empty, an image or mask is missing,
            or two files claim one name.
    """
    for folder in (split.images, split.masks):
        if not (root / folder).is_dir():
            raise missing(row, root, folder)
    listed = None if split.listing is None else _listed(row, root, split.listing)
    if listed == []:
        raise DataError(
            f"the list {root / str(split.listing)} names no image, so the split is empty: get it "
            f"again from {row.obtain}, or choose another split"
        )
    return match_files(
        root / split.images,
        root / split.masks,
        image_suffixes=split.image_suffixes,
        mask_suffixes=split.mask_suffixes,
        names=listed,
    )


def match_files(
    images: Path,
    masks: Path,
    *,
    image_suffixes: Sequence[str],
    mask_suffixes: Sequence[str],
    names: Sequence[str] | None = None,
    label: str = "mask",
) -> tuple[Pair, ...]:
    """Pair the files of two folders by name: all images sorted, or those of ``names``.

    ``label`` is what errors call a file of the second folder.

    Raises:
        DataError: a folder is missing or empty, a file is missing, or two claim one name.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist: name the folders of images and of labels")
    photos, labels = files_by_name(images, image_suffixes), files_by_name(masks, mask_suffixes)
    names = sorted(photos) if names is None else names
    if not names:
        raise DataError(
            f"{images} holds no image, so the split is empty: looked for names that end in "
            f"{', '.join(image_suffixes)}"
        )
    _complain("image", [name for name in names if name not in photos], images, image_suffixes)
    _complain(label, [name for name in names if name not in labels], masks, mask_suffixes)
    return tuple(Pair(name, photos[name], labels[name]) for name in names)


def missing(row: DatasetRow, root: Path, what: str) -> DataError:
    """The error for an absent part of a data set, with the expected tree and where to get it."""
    absent = root / what if root.is_dir() else root
    return DataError(
        f"{absent} does not exist: {row.title} is expected below {root} as\n{row.tree}\n"
        f"and can be had from {row.obtain}"
    )


def files_by_name(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files below a folder that end in one of the suffixes, by their name without it.

    Raises:
        DataError: two files claim one name.
    """
    found: dict[str, Path] = {}
    visited = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(parent).relative_to(folder)
        for file in sorted(files):
            suffix = next((end for end in suffixes if file.lower().endswith(end.lower())), None)
            if suffix is None or file.startswith("."):
                continue
            name = (below / file[: -len(suffix)]).as_posix()
            if name in found:
                raise DataError(
                    f"{found[name].name} and {file} in {Path(parent)} both claim the name {name}: "
                    "keep one of them"
                )
            found[name] = Path(parent) / file
    return found


def _listed(row: DatasetRow, root: Path, listing: str) -> list[str]:
    """Names in a list; of a line with paths (as some lists have), the first file's name."""
    path = root / listing
    if not path.is_file():
        raise missing(row, root, listing)
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    names = [Path(words[0]).stem if "/" in words[0] else words[0] for words in lines if words]
    return _unique(path, names)


def _unique(path: Path, names: list[str]) -> list[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{path} lists {name} twice: remove one line")
        seen.add(name)
    return names


def _complain(what: str, absent: Sequence[str], folder: Path, suffixes: Sequence[str]) -> None:
    if absent:
        shown = ", ".join(absent[:SHOWN]) + (", ..." if len(absent) > SHOWN else "")
        raise DataError(
            f"{folder} lacks the {what} of {len(absent)} name(s): {shown}; unpack the data set "
            f"again (the files end in {', '.join(suffixes)}), or take these names out of the split"
        )
