"""A split of a labelled data set: names, photos and masks of class ids."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets.classes import class_list
from densescope.evaluation.datasets.layout import IGNORE_INDEX, DatasetRow, Split
from densescope.evaluation.datasets.pairs import Pair, find_pairs, missing
from densescope.evaluation.datasets.pixels import read_bytes, read_indices, read_photo
from densescope.evaluation.datasets.rows import DATASETS

if TYPE_CHECKING:
    from PIL.Image import Image

UNKNOWN = -1
LARGEST_VALUE = 65535


@dataclass(frozen=True)
class SegmentationSet:
    """Images with a class id for every pixel; nothing is decoded until it is asked for.

    Attributes:
        dataset: name of its row in :data:`~densescope.evaluation.datasets.DATASETS`.
        split: name of the split.
        root: folder the data set lies in.
        classes: class names; the position is the class id.
        mapping: pixel value in the mask files -> class id.
        ignored: pixel values that become :attr:`ignore_index`.
        pairs: image and mask files, in a fixed order.
        note: what to know before comparing numbers with published ones, or ``None``.
    """

    dataset: str
    split: str
    root: Path
    classes: tuple[str, ...]
    mapping: Mapping[int, int]
    ignored: tuple[int, ...]
    pairs: tuple[Pair, ...]
    note: str | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names without suffix, relative to the split's folder of images."""
        return tuple(pair.name for pair in self.pairs)

    @property
    def ignore_index(self) -> int:
        """The class id of pixels without a label: 255 in every data set."""
        return IGNORE_INDEX

    def image(self, index: int) -> Tensor:
        """The photo, uint8, ``3 rows columns``, RGB.

        Raises:
            DataError: the file is damaged, or its size is not its mask's.
        """
        return torch.from_numpy(np.array(self.photo_and_mask(index)[0])).permute(2, 0, 1)

    def mask(self, index: int) -> Tensor:
        """Class ids, uint8, ``rows columns``; pixels without a label are 255.

        Raises:
            DataError: the file is damaged, a color image, or holds values that are no class.
        """
        return torch.from_numpy(self._class_ids(self.pairs[index].mask))

    def photo_and_mask(self, index: int) -> tuple[Image, np.ndarray[Any, Any]]:
        """Both of one pair, checked against each other: what preprocessing starts from."""
        pair = self.pairs[index]
        mask = self._class_ids(pair.mask)
        rows, columns = mask.shape
        return read_photo(pair.image, size=(columns, rows)), mask

    def image_bytes(self, index: int) -> bytes:
        """The encoded image file."""
        return read_bytes(self.pairs[index].image, "image")

    def subset(self, indices: Sequence[int]) -> SegmentationSet:
        """The same data set with only these images, in this order."""
        return replace(self, pairs=tuple(self.pairs[index] for index in indices))

    def fingerprint(self) -> str:
        """Sha256 over classes, mapping, names and the bytes of every image and mask, in order."""
        digest = hashlib.sha256()
        facts = repr((self.classes, sorted(self.mapping.items()), sorted(self.ignored)))
        _feed(digest, facts.encode())
        for pair in self.pairs:
            _feed(digest, pair.name.encode())
            _feed(digest, read_bytes(pair.image, "image"))
            _feed(digest, read_bytes(pair.mask, "mask"))
        return digest.hexdigest()

    def _class_ids(self, path: Path) -> np.ndarray[Any, Any]:
        values = read_indices(path)
        inside = values.astype(np.int64).clip(0, LARGEST_VALUE)
        ids: np.ndarray[Any, Any] = lookup_table(self.mapping, self.ignored)[inside]
        unknown = (ids == UNKNOWN) | (values != inside)
        if unknown.any():
            raise _unknown_values(self, path, values[unknown])
        return ids.astype(np.uint8)


def open_dataset(
    name: str,
    root: str | os.PathLike[str],
    split: str,
    *,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    ignored: Sequence[int] | None = None,
    images: str | None = None,
    masks: str | None = None,
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
        names: keep only these names, in this order (a published list, a part for tuning).

    Returns:
        The split. All image and mask files have been found; none has been decoded.

    Raises:
        InputError: no such data set or split, or an argument the data set does not take.
        DataError: files are missing, in doubt, or the split is empty.
    """
    row = _row(name)
    folder = Path(root)
    own = {"classes": classes, "ignored": ignored, "images": images, "masks": masks}
    place = _place(row, split, own)
    if not folder.is_dir():
        raise missing(row, folder, "")
    labels, mapping = row.classes, dict(row.mapping)
    none = row.ignored if ignored is None else tuple(ignored)
    if row.classes_file is not None:
        labels, mapping = class_list(folder / row.classes_file, classes, none)
    pairs = find_pairs(row, folder, place)
    note = _note(row, split, place, len(pairs))
    opened = SegmentationSet(name, split, folder, labels, mapping, none, pairs, note)
    return opened if names is None else _only(opened, names)


def lookup_table(mapping: Mapping[int, int], ignored: Sequence[int]) -> np.ndarray[Any, Any]:
    """``table[pixel value]`` is the class id, 255 where ignored, -1 where the value is no class."""
    table = np.full(LARGEST_VALUE + 1, UNKNOWN, dtype=np.int16)
    table[list(mapping)] = list(mapping.values())
    table[list(ignored)] = IGNORE_INDEX
    return table


def _row(name: str) -> DatasetRow:
    if name not in DATASETS:
        raise InputError(f"there is no data set {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name]


def _place(row: DatasetRow, split: str, own: Mapping[str, Any]) -> Split:
    given = [key for key, value in own.items() if value is not None]
    if given and row.classes_file is None:
        raise InputError(
            f"{row.name} has its own {' and '.join(given)}: leave the argument out, or open the "
            "files as 'folders'"
        )
    if row.any_split is not None:
        return replace(
            row.any_split,
            images=(own["images"] or row.any_split.images).format(split=split),
            masks=(own["masks"] or row.any_split.masks).format(split=split),
        )
    if split not in row.splits:
        raise InputError(f"{row.name} has no split {split!r}; it has: {', '.join(row.splits)}")
    return row.splits[split]


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


def _unknown_values(opened: SegmentationSet, path: Path, values: np.ndarray[Any, Any]) -> DataError:
    found, counts = np.unique(values, return_counts=True)
    shown = ", ".join(f"{v} ({n} pixels)" for v, n in zip(found[:5], counts[:5], strict=True))
    more = ", ..." if len(found) > 5 else ""
    return DataError(
        f"mask {path} holds values that {opened.dataset} does not define: {shown}{more}; check "
        "that these are its masks and not another variant's, or add the values to the classes or "
        "to what is ignored by opening them as 'folders'"
    )


def _feed(digest: Any, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "big"))
    digest.update(part)
