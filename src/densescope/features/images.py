"""The fixed images of a run: drawn once with a seed, decoded once, shared by all checkpoints."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.features.prefetched import PrefetchedTensor
from densescope.features.sources import ImageSource as ImageSource
from densescope.features.sources import open_images as open_images

if TYPE_CHECKING:
    from PIL.Image import Image

READERS, READ_BY_ONE = 8, 16


@dataclass(frozen=True)
class ImageSubset:
    """The images all checkpoints of a run are scored on.

    Attributes:
        source: where they come from.
        names: their names, in the random order they were drawn in.
        seed: what they were drawn with.
        fingerprint: sha256 over the names and encoded bytes of these images, in order.
        note: set when there were fewer images than were asked for.
    """

    source: ImageSource
    names: tuple[str, ...]
    seed: int
    fingerprint: str
    note: str | None = None

    def __len__(self) -> int:
        return len(self.names)


def draw_subset(source: ImageSource, count: int, seed: int) -> ImageSubset:
    """Draw images without replacement, in an order that only names and seed decide.

    Images are ranked by the sha256 of seed and name. So the draw does not depend on the order of
    the file system, a smaller draw is the beginning of a larger one, and adding images to the
    source changes a draw only where a new image enters it.

    Args:
        source: images to draw from.
        count: how many, at least 2; where there are fewer, all are taken and ``note`` says so.
        seed: any integer.

    Returns:
        The subset with its fingerprint (all its images are read once, none is decoded).

    Raises:
        InputError: ``count`` is below 2.
        DataError: the source has fewer than 2 images, or one cannot be read.
    """
    if count < 2:
        raise InputError(f"cannot work with {count} image(s): ask for at least 2")
    if len(source) < 2:
        raise DataError(f"{source.location} holds {len(source)} image: at least 2 are needed")
    names = tuple(sorted(source.names, key=lambda name: _rank(seed, name))[:count])
    note = None
    if len(names) < count:
        note = f"{count} images were asked for, {source.location} has {len(names)}: all are used"
    return ImageSubset(source, names, seed, _fingerprint(source, names), note)


def part_of(subset: ImageSubset, first: int, last: int) -> ImageSubset:
    """Images ``first`` to ``last`` (not included) of a subset, with a fingerprint of their own.

    Raises:
        DataError: an image cannot be read.
    """
    names = subset.names[first:last]
    return ImageSubset(subset.source, names, subset.seed, _fingerprint(subset.source, names))


def decode_subset(
    subset: ImageSubset,
    *,
    image_size: int,
    resize_size: int | None = None,
    workers: int | None = None,
) -> Tensor:
    """Decode, resize and crop every image of a subset.

    The short side becomes ``round(image_size * 256 / 224)`` pixels (bicubic, antialiased; small
    images are enlarged), then the centre is cropped. EXIF rotation is applied, gray, palette and
    CMYK images become RGB, alpha is dropped, 16-bit gray is scaled to 8 bits.

    Args:
        subset: images to decode.
        image_size: side of the square result in pixels.
        resize_size: length of the short side before the crop, where the default does not fit
            (images that already have the right size: ``resize_size=image_size``).
        workers: threads; all processors when left out.

    Returns:
        uint8 on the CPU, ``images 3 rows columns``, in the order of ``subset.names``.

    Raises:
        InputError: a size or the number of workers is impossible.
        DataError: an image cannot be read or decoded; the text names it.

    Source: preprocessing of the released code of arXiv 2510.17299.
    Deviations: EXIF rotation is applied; torchvision's ``ImageFolder`` ignores it.
    """
    with closing(
        decoding(subset, image_size=image_size, resize_size=resize_size, workers=workers)
    ) as images:
        return images[:]


def decoding(
    subset: ImageSubset,
    *,
    image_size: int,
    resize_size: int | None = None,
    workers: int | None = None,
) -> PrefetchedTensor:
    """:func:`decode_subset` in the background: a slice of the result waits for its images.

    Raises:
        InputError: a size or the number of workers is impossible.
    """
    if resize_size is None:
        resize_size = round(image_size * 256 / 224)
    if image_size < 1 or resize_size < image_size:
        raise InputError(
            f"cannot crop {image_size} pixels from a short side of {resize_size}: image_size must "
            "be at least 1, resize_size at least image_size"
        )
    workers = workers if workers is not None else os.cpu_count() or 1
    if workers < 1:
        raise InputError(f"cannot decode with {workers} workers: at least 1 is needed")
    pixels = torch.empty(len(subset), 3, image_size, image_size, dtype=torch.uint8)

    def decode(row: slice) -> None:
        name = subset.names[row.start]
        array = _decode(subset.source, name, image_size, resize_size)
        pixels[row.start] = torch.from_numpy(array).permute(2, 0, 1)

    return PrefetchedTensor(pixels, decode, workers=workers)


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def _fingerprint(source: ImageSource, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name, data in zip(names, _contents(source, names), strict=True):
        for part in (name.encode(), data):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def _contents(source: ImageSource, names: tuple[str, ...]) -> Iterator[bytes]:
    """The bytes of images in order, some ahead: file systems of a network answer many at once."""

    def read(first: int) -> list[bytes]:
        return [_read(source, name) for name in names[first : first + READ_BY_ONE]]

    window = READERS * READ_BY_ONE
    with ThreadPoolExecutor(READERS, "densescope-images") as pool:
        for start in range(0, len(names), window):
            firsts = range(start, min(start + window, len(names)), READ_BY_ONE)
            for some in pool.map(read, firsts):
                yield from some


def _read(source: ImageSource, name: str) -> bytes:
    try:
        return source.read(name)
    except OSError as cause:
        reason = cause.strerror or cause
        raise DataError(f"cannot read image {name} of {source.location}: {reason}") from cause


def _decode(source: ImageSource, name: str, image_size: int, resize_size: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    data = _read(source, name)
    # Decoders report a damaged file by a dozen kinds of exceptions; all mean the same here.
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = _as_rgb(image)
    except Exception as cause:
        known = not isinstance(cause, UnidentifiedImageError)
        reason = cause if known else "its bytes are those of no image format"
        raise DataError(
            f"image {name} of {source.location} cannot be decoded ({reason}): "
            "replace it or move it away"
        ) from cause
    return np.array(_fit(rgb, image_size, resize_size))


def _as_rgb(image: Image) -> Image:
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise DataError("floating-point pixels have no declared range")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _fit(image: Image, image_size: int, resize_size: int) -> Image:
    from PIL import Image

    width, height = image.size
    short = min(width, height)
    width, height = (int(resize_size * side / short) for side in (width, height))
    left, top = (round((side - image_size) / 2.0) for side in (width, height))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + image_size, top + image_size))
