"""The fixed images of a run: drawn once with a seed, decoded once, shared by all checkpoints."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.features.image_files import decode
from densescope.features.layouts import listing
from densescope.features.prefetched import PrefetchedTensor
from densescope.features.sources import ImageSource as ImageSource
from densescope.features.sources import masks_sentence
from densescope.features.sources import open_images as open_images

if TYPE_CHECKING:
    from PIL.Image import Image

Done = TypeVar("Done")
READERS, READ_BY_ONE = 8, 16
ROUNDED_PIXELS = 1 << 20
LONGEST = 16  # times the short side: longer images are cropped before they are resized
CURE = "replace it, move it away, or skip such images with --skip-broken-images"


@dataclass(frozen=True)
class ImageSubset:
    """The images all checkpoints of a run are scored on.

    Attributes:
        source: where they come from.
        names: their names, in the random order they were drawn in.
        seed: what they were drawn with.
        fingerprint: sha256 over the names and encoded bytes of these images, in order.
        note: set when there were fewer images than were asked for.
        skipped: name -> reason of the images that were drawn but cannot be decoded, where the
            source skips them; the fingerprint includes their names.
    """

    source: ImageSource
    names: tuple[str, ...]
    seed: int
    fingerprint: str
    note: str | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of these images: which were skipped, which are no photos."""
        return tuple(filter(None, (self._skipped_sentence(), masks_sentence(self.source.names))))

    def _skipped_sentence(self) -> str:
        """Which images were skipped and why, the first of them in full; empty for none."""
        if not self.skipped:
            return ""
        first = next(iter(self.skipped.values()))
        names = listing(list(self.skipped))
        count = len(self.skipped)
        were = "1 image was" if count == 1 else f"{count:,} images were"
        return f"{were} skipped ({names}); the first: {first}"


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
        The subset with its fingerprint. All its images are read once; none is decoded, unless the
        source skips broken images: then all are, and the next of the draw take the place of those
        that cannot be.

    Raises:
        InputError: ``count`` is below 2.
        DataError: the source has fewer than 2 images, or one cannot be read.
    """
    if count < 2:
        raise InputError(f"cannot work with {count} image(s): ask for at least 2")
    if len(source) < 2:
        raise DataError(f"{source.location} holds {len(source)} image: at least 2 are needed")
    ranked = heapq.nsmallest(
        len(source) if source.skip_broken else count,
        source.names,
        key=lambda name: _rank(seed, name),
    )
    chosen, skipped = _decodable(source, ranked, count) if source.skip_broken else (ranked, {})
    names, note = tuple(chosen), None
    if len(names) < count:
        note = f"{count} images were asked for, {source.location} has {len(names)}: all are used"
    fingerprint = _fingerprint(source, names, skipped)
    return ImageSubset(source, names, seed, fingerprint, note, skipped)


def part_of(subset: ImageSubset, first: int, last: int) -> ImageSubset:
    """Images ``first`` to ``last`` (not included) of a subset, with a fingerprint of their own.

    Raises:
        DataError: an image cannot be read.
    """
    names = subset.names[first:last]
    fingerprint = _fingerprint(subset.source, names, subset.skipped)
    return replace(subset, names=names, fingerprint=fingerprint)


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
    return hashlib.sha256(f"{seed}\0".encode() + _bytes(name)).digest()


def _bytes(name: str) -> bytes:
    """A name in UTF-8; the bytes of one that is not UTF-8 became lone surrogates."""
    return name.encode("utf-8", "surrogatepass")


def _fingerprint(
    source: ImageSource, names: Sequence[str], skipped: Mapping[str, str] = MappingProxyType({})
) -> str:
    digest = hashlib.sha256()

    def feed(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)

    for name, data in zip(names, _each(names, lambda name: _read(source, name)), strict=True):
        feed(_bytes(name))
        feed(data)
    for name in skipped:
        feed(b"skipped")
        feed(_bytes(name))
    return digest.hexdigest()


def _decodable(
    source: ImageSource, ranked: Sequence[str], count: int
) -> tuple[list[str], dict[str, str]]:
    """The first names of images that can be decoded, and those before them that cannot: why."""

    def problem(name: str) -> str:
        try:
            decode(_read(source, name), f"image {name}", CURE, lambda image: as_rgb(image).load())
        except DataError as error:
            return str(error).removesuffix(CURE).rstrip(".: ")
        return ""

    names: list[str] = []
    skipped: dict[str, str] = {}
    with closing(_each(ranked, problem)) as problems:
        for name, reason in zip(ranked, problems, strict=False):
            if reason:
                skipped[name] = reason
            else:
                names.append(name)
            if len(names) == count:
                break
    if len(names) < 2:
        raise DataError(
            f"of {len(source)} images in {source.location} {len(names)} can be decoded: at least 2 "
            f"are needed. The first: {next(iter(skipped.values()), '')}"
        )
    return names, skipped


def _each(names: Sequence[str], work: Callable[[str], Done]) -> Generator[Done]:
    """The work on images in order, some ahead: file systems of a network answer many at once."""

    def several(first: int) -> list[Done]:
        return [work(name) for name in names[first : first + READ_BY_ONE]]

    window = READERS * READ_BY_ONE
    with ThreadPoolExecutor(READERS, "densescope-images") as pool:
        for start in range(0, len(names), window):
            firsts = range(start, min(start + window, len(names)), READ_BY_ONE)
            for some in pool.map(several, firsts):
                yield from some


def _read(source: ImageSource, name: str) -> bytes:
    try:
        return source.read(name)
    except DataError:
        raise
    except Exception as cause:  # a damaged image set has errors of its own
        reason = getattr(cause, "strerror", None) or cause
        raise DataError(
            f"cannot read image {name} of {source.location}: {reason}. {CURE}"
        ) from cause


def _decode(source: ImageSource, name: str, image_size: int, resize_size: int) -> np.ndarray:
    return decode(
        _read(source, name),
        f"image {name} of {source.location}",
        CURE,
        lambda image: np.array(_fit(as_rgb(image), image_size, resize_size)),
    )


def as_rgb(image: Image) -> Image:
    """An image as RGB: turned by its EXIF tag, without alpha, 16 bits scaled to 8.

    Raises:
        DataError: its pixels are floating-point.
    """
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise DataError("floating-point pixels have no declared range")
    if image.mode.startswith("I"):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(wide: np.ndarray) -> np.ndarray:
    """Sixteen bits as eight, some rows at a time: they need eight times their memory meanwhile."""
    narrow = np.empty(wide.shape, np.uint8)
    step = max(ROUNDED_PIXELS // max(wide.shape[1], 1), 1)
    for start in range(0, len(wide), step):
        rows = wide[start : start + step].astype(np.int64).clip(0, 65535)
        narrow[start : start + step] = (rows + 128) // 257
    return narrow


def _fit(image: Image, image_size: int, resize_size: int) -> Image:
    from PIL import Image

    short = min(image.size)
    width, height = (int(resize_size * side / short) for side in image.size)
    left, top = (round((side - image_size) / 2.0) for side in (width, height))
    if max(width, height) > LONGEST * resize_size:  # most of a strip would be cut off again
        across, down = (old / new for old, new in zip(image.size, (width, height), strict=True))
        right, bottom = (left + image_size) * across, (top + image_size) * down
        box = (left * across, top * down, min(right, image.width), min(bottom, image.height))
        return image.resize((image_size, image_size), Image.Resampling.BICUBIC, box)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + image_size, top + image_size))
