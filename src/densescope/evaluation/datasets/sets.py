"""A split of a labelled data set: names, photos and masks of class ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.evaluation.blocks import BlockRule, folder_block
from densescope.evaluation.datasets.layout import IGNORE_INDEX
from densescope.evaluation.datasets.pairs import Pair
from densescope.evaluation.datasets.pixels import (
    decode_photo,
    read_file_bytes,
    read_indices,
    read_photo,
)

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
        drawn: how this half was drawn, for a record; ``None`` where the files have splits.
        block_of: name of an image -> the block it belongs to, such as a video.
    """

    dataset: str
    split: str
    root: Path
    classes: tuple[str, ...]
    mapping: Mapping[int, int]
    ignored: tuple[int, ...]
    pairs: tuple[Pair, ...]
    note: str | None = None
    drawn: Mapping[str, Any] | None = None
    block_of: BlockRule = folder_block

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names without suffix, relative to the split's folder of images."""
        return tuple(pair.name for pair in self.pairs)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Which images belong together: the block of each."""
        return tuple(map(self.block_of, self.names))

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
        return read_file_bytes(self.pairs[index].image, "image")

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
            _feed(digest, read_file_bytes(pair.image, "image"))
            _feed(digest, read_file_bytes(pair.mask, "mask"))
        return digest.hexdigest()

    def _class_ids(self, path: Path) -> np.ndarray[Any, Any]:
        values = read_indices(path)
        inside = values if values.dtype.kind == "u" else values.clip(0, LARGEST_VALUE)
        ids: np.ndarray[Any, Any] = lookup_table(self.mapping, self.ignored)[inside]
        unknown = (ids == UNKNOWN) | (values != inside)
        if unknown.any():
            raise _unknown_values(self, path, values[unknown])
        return ids.astype(np.uint8)


def joined_splits(splits: Sequence[SegmentationSet]) -> SegmentationSet:
    """All images of several splits as one; a name gets its split before it.

    The blocks are those that the images have in their splits; an image that is a block of its own
    stays one.
    """
    first = splits[0]
    pairs = [replace(p, name=f"{one.split}/{p.name}") for one in splits for p in one.pairs]
    notes = [one.note for one in splits if one.note]
    return replace(
        first,
        split="+".join(one.split for one in splits),
        pairs=tuple(pairs),
        note="; ".join(dict.fromkeys(notes)) or None,
        drawn=None,
        block_of=partial(_block_without_split, first.block_of),
    )


def _block_without_split(rule: BlockRule, name: str) -> str:
    own = name.partition("/")[2]
    block = rule(own)
    return name if block == own else block


def lookup_table(mapping: Mapping[int, int], ignored: Sequence[int]) -> np.ndarray[Any, Any]:
    """``table[pixel value]`` is the class id, 255 where ignored, -1 where the value is no class."""
    table = np.full(LARGEST_VALUE + 1, UNKNOWN, dtype=np.int16)
    table[list(mapping)] = list(mapping.values())
    table[list(ignored)] = IGNORE_INDEX
    return table


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


class HasImages(Protocol):
    """Any of this package's sets."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images, in order."""

    def image_bytes(self, index: int) -> bytes:
        """The encoded image file."""


def overlap(train: HasImages, test: HasImages, *, by: str = "bytes") -> list[str]:
    """Names of test images whose content is also in the training set.

    Names play no role; every file of both sets is read. A crop, a resized copy, a JPEG saved again
    or the next frame of a video is not found: an empty list does not prove independence.

    Args:
        train: what is trained or fitted on, with ``names`` and ``image_bytes(index)``.
        test: what is reported.
        by: ``"bytes"`` compares files; ``"pixels"`` decoded pixels, which also finds the same
            image in another lossless format or with other metadata, and takes much longer.

    Returns:
        Names as in ``test``, in its order.

    Raises:
        InputError: ``by`` is neither.
        DataError: an image cannot be read or decoded.
    """
    if by not in ("bytes", "pixels"):
        raise InputError(f"images cannot be compared by {by!r}: choose 'bytes' or 'pixels'")
    known = {_hash(train, index, by) for index in range(len(train.names))}
    return [name for index, name in enumerate(test.names) if _hash(test, index, by) in known]


def _hash(images: HasImages, index: int, by: str) -> bytes:
    data = images.image_bytes(index)
    if by == "pixels":
        photo = decode_photo(data, images.names[index])
        data = repr(photo.size).encode() + photo.tobytes()
    return hashlib.sha256(data).digest()
