"""Random crops of a photo and its mask, as published segmentation recipes draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]
TRIES = 10
HUE_LEVELS, HUE_RANGE = 256, 180


@dataclass(frozen=True)
class Augmentation:
    """How a training image becomes a crop.

    Attributes:
        kind: ``"scale-crop"`` (resize by a random factor, cut a square), ``"area-crop"`` (a
            random part of the area and aspect ratio, resized to a square) or ``"none"`` (the
            central square).
        scale: range of the factor, or of the fraction of the area.
        aspect: range of the aspect ratio of ``"area-crop"``.
        long_side: longest side before the factor, in pixels; ``None`` for any.
        largest_class: a crop of which one class fills more is drawn again, ten times at most.
        flip: probability of a mirror image.
        photometric: distort brightness, contrast, saturation and hue.
    """

    kind: str = "none"
    scale: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    long_side: int | None = None
    largest_class: float = 1.0
    flip: float = 0.0
    photometric: bool = False


def crop_pair(
    photo: Image,
    mask: Array,
    size: int,
    how: Augmentation,
    *,
    ignore: int,
    fill: tuple[int, ...],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One training crop.

    Args:
        photo: RGB.
        mask: class ids, ``rows columns``.
        size: side of the crop in pixels.
        how: what is random.
        ignore: label of what lies outside the image.
        fill: color of what lies outside the image.
        generator: everything random is drawn from it.

    Returns:
        uint8 ``3 size size`` and uint8 ``size size``.
    """
    if how.kind == "scale-crop":
        pixels, labels = _scale_crop(photo, mask, size, how, ignore, generator)
    elif how.kind == "area-crop":
        pixels, labels = _resized(photo, mask, _area_box(photo.size, how, generator), (size, size))
    else:
        side = min(photo.size)
        left, top = ((length - side) // 2 for length in photo.size)
        box = (left, top, left + side, top + side)
        pixels, labels = _resized(photo, mask, box, (size, size))
    if _uniform(generator) < how.flip:
        pixels, labels = pixels[:, ::-1], labels[:, ::-1]
    if how.photometric:
        pixels = distorted(np.ascontiguousarray(pixels), generator)
    canvas = np.empty((size, size, 3), dtype=np.uint8)
    canvas[:] = fill
    around = np.full((size, size), ignore, dtype=np.uint8)
    rows, columns = labels.shape
    canvas[:rows, :columns], around[:rows, :columns] = pixels, labels
    return torch.from_numpy(canvas).permute(2, 0, 1), torch.from_numpy(around)


def short_side_size(
    size: tuple[int, int], short: float, long: float | None = None
) -> tuple[int, int]:
    """Columns and rows once the short side has ``short`` pixels and the long at most ``long``."""
    factor = short / min(size)
    if long is not None:
        factor = min(factor, long / max(size))
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def distorted(pixels: Array, generator: torch.Generator) -> Array:
    """Photometric distortion: each of four changes with probability one half.

    Brightness moves by up to 32 of 255, contrast and saturation are multiplied by 0.5 to 1.5, the
    hue turns by up to 36 degrees; contrast comes before or after the colors, as often.
    """
    pixels = _linear(pixels, 1.0, _between(-32, 32, generator)) if _coin(generator) else pixels
    contrast_first = _coin(generator)
    if contrast_first:
        pixels = _contrast(pixels, generator)
    pixels = _colors(pixels, generator)
    return pixels if contrast_first else _contrast(pixels, generator)


def _scale_crop(
    photo: Image, mask: Array, size: int, how: Augmentation, ignore: int, generator: torch.Generator
) -> tuple[Array, Array]:
    factor = _between(*how.scale, generator)
    long = None if how.long_side is None else how.long_side * factor
    columns, rows = short_side_size(photo.size, size * factor, long)
    whole = (0.0, 0.0, float(photo.size[0]), float(photo.size[1]))
    pixels, labels = _resized(photo, mask, whole, (columns, rows))
    for _ in range(TRIES + 1):
        top, left = (_integer(max(length - size, 0) + 1, generator) for length in (rows, columns))
        cut = (slice(top, top + size), slice(left, left + size))
        counts = np.bincount(labels[cut].ravel(), minlength=256)
        counts[ignore] = 0
        several = (counts > 0).sum() > 1
        if how.largest_class >= 1 or (several and counts.max() < how.largest_class * counts.sum()):
            break
    return pixels[cut], labels[cut]


def _area_box(
    size: tuple[int, int], how: Augmentation, generator: torch.Generator
) -> tuple[float, float, float, float]:
    columns, rows = size
    for _ in range(TRIES):
        area = columns * rows * _between(*how.scale, generator)
        ratio = math.exp(_between(math.log(how.aspect[0]), math.log(how.aspect[1]), generator))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= columns and 0 < high <= rows:
            left, top = (
                _integer(columns - wide + 1, generator),
                _integer(rows - high + 1, generator),
            )
            return left, top, left + wide, top + high
    ratio = min(max(columns / rows, how.aspect[0]), how.aspect[1])
    wide = min(columns, round(rows * ratio))
    high = min(rows, round(columns / ratio))
    left, top = (columns - wide) // 2, (rows - high) // 2
    return left, top, left + wide, top + high


def _resized(
    photo: Image, mask: Array, box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[Array, Array]:
    """Part of a photo (bilinear, antialiased) and of its mask (nearest center), resized."""
    from PIL import Image as Pillow

    pixels = np.array(photo.resize(size, Pillow.Resampling.BILINEAR, box=box))
    left, top, right, bottom = box
    columns = np.floor(left + (np.arange(size[0]) + 0.5) / size[0] * (right - left)).astype(int)
    rows = np.floor(top + (np.arange(size[1]) + 0.5) / size[1] * (bottom - top)).astype(int)
    return pixels, mask[rows[:, None], columns[None, :]]


def _contrast(pixels: Array, generator: torch.Generator) -> Array:
    return _linear(pixels, _between(0.5, 1.5, generator), 0.0) if _coin(generator) else pixels


def _colors(pixels: Array, generator: torch.Generator) -> Array:
    from PIL import Image as Pillow

    saturation = _between(0.5, 1.5, generator) if _coin(generator) else None
    hue = _integer(36, generator) - 18 if _coin(generator) else 0
    if saturation is None and not hue:
        return pixels
    colors = np.array(Pillow.fromarray(pixels).convert("HSV"))
    if saturation is not None:
        colors[..., 1] = _linear(colors[..., 1], saturation, 0.0)
    turn = round(hue * HUE_LEVELS / HUE_RANGE)
    colors[..., 0] = (colors[..., 0].astype(np.int64) + turn) % HUE_LEVELS
    bands = [Pillow.fromarray(np.ascontiguousarray(colors[..., band])) for band in range(3)]
    return np.array(Pillow.merge("HSV", bands).convert("RGB"))


def _linear(values: Array, factor: float, shift: float) -> Array:
    result: Array = (values.astype(np.float32) * factor + shift).clip(0, 255).astype(np.uint8)
    return result


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * _uniform(generator)


def _integer(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _coin(generator: torch.Generator) -> bool:
    return _uniform(generator) < 0.5
