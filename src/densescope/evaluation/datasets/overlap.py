"""Test images that were trained on by accident."""

from __future__ import annotations

import hashlib
from typing import Protocol

from densescope.errors import InputError
from densescope.evaluation.datasets.pixels import decode_photo


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
