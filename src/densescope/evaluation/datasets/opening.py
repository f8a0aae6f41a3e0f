"""From the name of a data set and a folder to one of its splits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets.layout import DatasetRow, Split, class_list
from densescope.evaluation.datasets.pairs import find_pairs, missing
from densescope.evaluation.datasets.rows import DATASETS
from densescope.evaluation.datasets.sets import SegmentationSet


def open_dataset(
    name: str,
    root: str | os.PathLike[str],
    split: str,
    *,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    ignored: Sequence[int] | None = None,
    images: str | None = None,
    masks: str | None = None,
    image_suffix: str | None = None,
    mask_suffix: str | None = None,
    names: Sequence[str] | None = None,
) -> SegmentationSet:
    """Open one split of a data set.

    Args:
        name: a row of :data:`~densescope.evaluation.datasets.DATASETS`.
        root: the folder that holds the row's ``tree``.
        split: one of the row's splits; any folder name for ``folders`` and ``scenes``.
        classes: only for ``folders``: class names (the position is the pixel
            value), or pixel value -> name (class ids then follow the values' order); read from
            ``classes.txt`` below the root when left out.
        ignored: only for the same: pixel values without a label, ``(255,)`` when left out.
        images: only for the same: folder of images below the root, ``images/{split}``.
        masks: only for the same: folder of masks below the root, ``masks/{split}``.
        image_suffix: only for the same: what follows the name of an image, such as ``_rgb.png``;
            any usual extension when left out.
        mask_suffix: only for the same: what follows the name of its mask, such as ``_mask.png``.
        names: keep only these names, in this order (a published list, a part for tuning).

    Returns:
        The split. All image and mask files have been found; none has been decoded.

    Raises:
        InputError: no such data set or split, or an argument the data set does not take.
        DataError: files are missing, in doubt, or the split is empty.

    Deviations: a pixel value that the data set does not define is an error when its mask is read;
        most training code counts it as a class or ignores it.
    """
    row = find_dataset(name)
    folder = Path(root)
    own = {
        "classes": classes,
        "ignored": ignored,
        "images": images,
        "masks": masks,
        "image_suffix": image_suffix,
        "mask_suffix": mask_suffix,
    }
    place = _place(row, split, own)
    if not folder.is_dir():
        raise missing(row, folder, "")
    labels, mapping = row.classes, dict(row.mapping)
    none = row.ignored if ignored is None else tuple(ignored)
    if row.classes_file is not None:
        labels, mapping = class_list(folder / row.classes_file, classes, none)
    pairs = find_pairs(row, folder, place)
    note = _note(row, split, place, len(pairs))
    opened = SegmentationSet(
        name, split, folder, labels, mapping, none, pairs, note, block_of=row.block_of
    )
    return opened if names is None else _only(opened, names)


def find_dataset(name: str) -> DatasetRow:
    """The row of ``DATASETS``.

    Raises:
        InputError: there is no such data set.
    """
    if name not in DATASETS:
        raise InputError(f"there is no data set {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name]


def find_split(row: DatasetRow, split: str) -> Split:
    """Where the files of a split lie.

    Raises:
        InputError: the data set has no such split.
    """
    if row.any_split is not None:
        return row.any_split
    if split not in row.splits:
        raise InputError(f"{row.name} has no split {split!r}; it has: {', '.join(row.splits)}")
    return row.splits[split]


def _place(row: DatasetRow, split: str, own: Mapping[str, Any]) -> Split:
    given = [key for key, value in own.items() if value is not None]
    if given and row.classes_file is None:
        raise InputError(
            f"{row.name} has its own {' and '.join(given)}: leave the argument out, or open the "
            "files as 'folders'"
        )
    usual = find_split(row, split)
    if row.any_split is None:
        return usual
    return replace(
        usual,
        images=(own["images"] or usual.images).replace("{split}", split),
        masks=(own["masks"] or usual.masks).replace("{split}", split),
        image_suffixes=_suffixes(own["image_suffix"], usual.image_suffixes),
        mask_suffixes=_suffixes(own["mask_suffix"], usual.mask_suffixes),
    )


def _suffixes(given: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    return usual if given is None else (given,)


def _note(row: DatasetRow, split: str, place: Split, found: int) -> str | None:
    parts = [row.note] if row.note else []
    if place.count is not None and found != place.count:
        parts.insert(0, f"{found} of the {place.count} images of the split {split} are here")
    return "; ".join(parts) or None


def _only(opened: SegmentationSet, names: Sequence[str]) -> SegmentationSet:
    where = {name: index for index, name in enumerate(opened.names)}
    absent = [name for name in names if name not in where]
    if absent or not names:
        raise DataError(
            f"{len(absent)} of {len(names)} names are not in the split {opened.split} of "
            f"{opened.dataset}{': ' if absent else ''}{', '.join(absent[:3])}; names have no "
            f"suffix, such as {opened.names[0]}"
        )
    kept = opened.subset([where[name] for name in names])
    part = f"{len(names)} of {len(opened)} images were chosen by name"
    return replace(kept, note="; ".join(filter(None, (part, opened.note))))
