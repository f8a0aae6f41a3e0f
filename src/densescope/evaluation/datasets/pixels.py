"""Image and mask files as pixels: photos become RGB, masks stay the numbers that were stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from densescope import files
from densescope.errors import DataError
from densescope.features.image_files import MOST_BYTES, decode
from densescope.features.images import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

EXIF_ORIENTATION = 0x0112
SWAPS_SIDES = (5, 6, 7, 8)
CURE = "replace it, or remove it and its label"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_file_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file, or a sentence that names it."""
    try:
        return files.read_bytes(path, MOST_BYTES)
    except OSError as cause:
        raise DataError(f"cannot read {what} {path}: {cause.strerror or cause}") from cause


def read_photo(path: Path, *, size: tuple[int, int], label: str = "mask") -> Image:
    """Decode a photo to RGB.

    Args:
        path: image file.
        size: columns and rows of its mask. A camera's rotation tag is followed only where that
            makes the sizes agree: masks are drawn on one pixel grid, and which one it was shows
            in the size. Where it does not show (a half turn, a square), the stored grid is taken.
        label: what errors call the file that ``size`` is from.

    Raises:
        DataError: unreadable, damaged, or no size that fits the mask's.
    """
    photo = decode_photo(read_file_bytes(path, "image"), str(path), size=size)
    if photo.size != size:
        raise DataError(
            f"image {path} has {_text(photo.size)} pixels, its {label} {_text(size)}: both "
            "must be of one size, neither resized nor rotated alone"
        )
    return photo


def photo_size(path: Path, size: tuple[int, int] | None) -> tuple[int, int]:
    """Columns and rows of a photo, which is decoded to see that it is whole, but coarsely.

    Args:
        path: image file.
        size: columns and rows of its mask, as in :func:`read_photo`.

    Raises:
        DataError: unreadable or damaged.
    """

    def shape_of(image: Image) -> tuple[int, int, bool]:
        columns, rows = image.size
        turned = image.getexif().get(EXIF_ORIENTATION) in SWAPS_SIDES
        image.draft(None, (1, 1))
        image.load()
        return columns, rows, turned

    columns, rows, turned = decode(read_file_bytes(path, "image"), f"image {path}", CURE, shape_of)
    fits_only_turned = turned and (columns, rows) != size and (rows, columns) == size
    return (rows, columns) if fits_only_turned else (columns, rows)


def decode_photo(data: bytes, name: str, *, size: tuple[int, int] | None = None) -> Image:
    """Encoded bytes to RGB; ``size`` as in :func:`read_photo`, but not enforced.

    Raises:
        DataError: the bytes are no whole image; the text has the name.
    """

    def rgb(image: Image) -> Image:
        if size is not None:
            _settle_rotation(image, size)
        photo = as_rgb(image)
        photo.load()  # before its file is closed
        return photo

    return decode(data, f"image {name}", CURE, rgb)


def _settle_rotation(image: Image, size: tuple[int, int]) -> None:
    rotated = image.getexif().get(EXIF_ORIENTATION) in SWAPS_SIDES
    fits_only_rotated = rotated and image.size != size and image.size[::-1] == size
    if not fits_only_rotated:
        image.getexif().pop(EXIF_ORIENTATION, None)


def read_indices(path: Path, *, label: str = "mask") -> np.ndarray[Any, Any]:
    """The numbers stored in a mask file, ``rows columns``; a palette is never applied.

    Raises:
        DataError: unreadable, damaged, a color image, or a format that loses numbers.
    """
    data = read_file_bytes(path, label)
    kind, mode, pixels = decode(
        data,
        f"{label} {path}",
        "replace it, or remove it and its image",
        lambda image: (image.format, image.mode, np.asarray(image)),
    )
    if kind == "JPEG":
        raise DataError(f"{label} {path} is a JPEG, which alters its numbers: write PNG")
    if pixels.ndim != 2 or mode in ("F", "LA", "PA"):
        raise DataError(
            f"{label} {path} is a color or floating-point image (mode {mode}): one integer a pixel "
            "is expected; convert its colors to numbers first, or name the folder of index masks"
        )
    return _undo_stretch(pixels, data, mode)


def _undo_stretch(pixels: np.ndarray[Any, Any], data: bytes, mode: str) -> np.ndarray[Any, Any]:
    """Pillow stretches 2- and 4-bit gray to 0-255; the ids are what the file holds."""
    if mode == "1":
        return pixels.astype(np.uint8)
    if mode == "L" and data.startswith(PNG_SIGNATURE):
        depth, color_type = data[24], data[25]
        if color_type == 0 and depth < 8:
            return pixels // np.uint8(255 // (2**depth - 1))
    return pixels


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
