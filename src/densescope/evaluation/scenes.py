"""Procedural scenes with pixel labels: images of our own, for demos, tests and studies."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import InputError
from densescope.files import make_folder

CHUNK = 64  # scenes that are drawn at once
REGIONS = 3  # of a scene, each of another class
DARK, LIGHT = (0.0, 0.1, 0.25), (1.0, 0.9, 0.75)  # the same two colors in all scenes
SENSOR_NOISE = 0.03  # standard deviation


class Canvas:
    """Coordinates and random numbers of ``CHUNK`` scenes that are drawn together.

    Coordinates run from 0 to 1, rightwards and downwards.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        self.size = size
        self.generator = generator
        steps = (torch.arange(size) + 0.5) / size
        self.x = steps.view(1, 1, size)
        self.y = steps.view(1, size, 1)

    def uniform(self, low: float, high: float) -> Tensor:
        """One number per scene."""
        return low + (high - low) * torch.rand(CHUNK, 1, 1, generator=self.generator)

    def hills(self, cells: int) -> Tensor:
        """Smooth noise from -1 to 1 with that many cells along a side."""
        coarse = torch.rand(CHUNK, 1, cells + 1, cells + 1, generator=self.generator) * 2 - 1
        shape = (self.size, self.size)
        return F.interpolate(coarse, shape, mode="bilinear", align_corners=True)[:, 0]

    def wave(self, angle: float | Tensor, period: Tensor, *, tilt: float = 12) -> Tensor:
        """A slightly bent sine from -1 to 1 that begins anywhere.

        Args:
            angle: from the x axis to the direction in which it runs, in degrees.
            period: as a fraction of the side.
            tilt: the direction differs from ``angle`` by up to so many degrees.
        """
        turned = (angle + self.uniform(-tilt, tilt)) * math.pi / 180
        along = turned.cos() * self.x + turned.sin() * self.y
        phase = along / period + self.uniform(0, 1)
        return torch.sin(2 * math.pi * phase + 0.8 * self.hills(6))


def _steep(tone: Tensor, slope: float = 3) -> Tensor:
    """Dark and light with a narrow edge between them."""
    return torch.tanh(slope * tone) / math.tanh(slope)


def _plain(canvas: Canvas) -> Tensor:
    return 0.5 * canvas.hills(3)


def _stripes(canvas: Canvas, angle: float | Tensor) -> Tensor:
    return _steep(canvas.wave(angle, canvas.uniform(0.07, 0.11)))


def _rows(canvas: Canvas) -> Tensor:
    return _stripes(canvas, 90)


def _columns(canvas: Canvas) -> Tensor:
    return _stripes(canvas, 0)


def _diagonals(canvas: Canvas) -> Tensor:
    return _stripes(canvas, torch.where(canvas.uniform(0, 1) < 0.5, 45.0, -45.0))


def _checks(canvas: Canvas) -> Tensor:
    period = canvas.uniform(0.095, 0.14)
    return _steep(canvas.wave(0, period) * canvas.wave(90, period), 6)


def _dots(canvas: Canvas) -> Tensor:
    period = canvas.uniform(0.095, 0.13)
    return _steep(canvas.wave(45, period, tilt=15) + canvas.wave(-45, period, tilt=15) - 1)


def _grid(canvas: Canvas) -> Tensor:
    period = canvas.uniform(0.095, 0.14)
    return _steep(torch.maximum(canvas.wave(0, period), canvas.wave(90, period)) - 0.6, 4)


def _grain(canvas: Canvas) -> Tensor:
    return _steep(2 * canvas.hills(21), 2)


@dataclass(frozen=True)
class Texture:
    """One class: what its regions are covered with.

    Attributes:
        name: of the class.
        draw: canvas -> tones from -1 to 1, ``scenes rows columns``.
    """

    name: str
    draw: Callable[[Canvas], Tensor]


TEXTURES = (
    Texture("plain", _plain),
    Texture("rows", _rows),
    Texture("columns", _columns),
    Texture("diagonals", _diagonals),
    Texture("checks", _checks),
    Texture("dots", _dots),
    Texture("grid", _grid),
    Texture("grain", _grain),
)


@dataclass(frozen=True)
class Scenes:
    """Scenes and what is where in them.

    Attributes:
        images: uint8, ``images 3 rows columns``.
        labels: uint8, ``images rows columns``, indices into ``classes``.
        classes: names of the classes.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def make_scenes(count: int, *, size: int = 64, seed: int) -> Scenes:
    """Draw collages of three regions, each covered with a texture of another class.

    Classes differ in their texture only. Phase, period, tilt and contrast of a texture, which of
    its two tones is the lighter one, and place and outline of its region are random, and all
    textures have the same colors. So the color of a patch says little, pixels of all textures have
    nearly the same mean, and a network must learn to recognize patterns wherever they begin. What a
    texture looks like beside a patch can be foretold from the patch, so a network can learn it
    without labels.

    Args:
        count: scenes, at least 1.
        size: side in pixels, at least 16. Textures scale with it: a period is 0.07 to 0.14 of
            the side, about one patch of an 8 x 8 grid.
        seed: the same seed gives the same scenes, and a smaller count the first of them.

    Returns:
        The scenes; the global random state is left alone.

    Raises:
        InputError: count or size is too small.

    Example:
        >>> scenes = make_scenes(2, size=32, seed=0)
        >>> scenes.images.shape, scenes.labels.shape
        (torch.Size([2, 3, 32, 32]), torch.Size([2, 32, 32]))
        >>> scenes.classes
        ('plain', 'rows', 'columns', 'diagonals', 'checks', 'dots', 'grid', 'grain')
    """
    if count < 1 or size < 16:
        raise InputError(f"cannot draw {count} scenes of {size} pixels: at least 1 of 16")
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    labels = torch.empty(count, size, size, dtype=torch.uint8)
    for start in range(0, count, CHUNK):
        here = slice(start, min(start + CHUNK, count))
        pixels, classes = _draw(Canvas(size, generator))
        images[here] = pixels[: here.stop - start].clamp(0, 1).mul(255).round().to(torch.uint8)
        labels[here] = classes[: here.stop - start].to(torch.uint8)
    return Scenes(images, labels, tuple(texture.name for texture in TEXTURES))


def save_scenes(scenes: Scenes, folder: str | os.PathLike[str]) -> None:
    """Write scenes as ``images/00000.png`` and ``masks/00000.png`` (gray, value = class)."""
    from PIL import Image

    for kind, tensor in (("images", scenes.images.permute(0, 2, 3, 1)), ("masks", scenes.labels)):
        target = Path(folder) / kind
        make_folder(target)
        for index, array in enumerate(tensor.numpy()):
            Image.fromarray(array).save(target / f"{index:05d}.png")


def _draw(canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Pixels around [0, 1], ``scenes 3 rows columns``, and classes, ``scenes rows columns``."""
    regions, generator = _regions(canvas), canvas.generator
    drawn = torch.rand(CHUNK, len(TEXTURES), generator=generator).argsort(1)[:, :REGIONS]
    classes = _of_region(drawn, regions)
    tone = torch.zeros(classes.shape)
    for label, texture in enumerate(TEXTURES):
        tone = torch.where(classes == label, texture.draw(canvas), tone)
    contrast = 0.6 + 0.4 * torch.rand(CHUNK, REGIONS, generator=generator)
    lighter = torch.rand(CHUNK, REGIONS, generator=generator) < 0.5
    tone = tone * _of_region(torch.where(lighter, contrast, -contrast), regions)
    shade = 1 + 0.1 * canvas.hills(2)
    pixels = _colored(tone) * shade[:, None]
    noise = torch.randn(pixels.shape, generator=generator)
    return pixels + SENSOR_NOISE * noise, classes


def _regions(canvas: Canvas) -> Tensor:
    """Number of the nearest of a few random places, with wavy borders, ``scenes rows columns``."""
    distances = []
    for _ in range(REGIONS):
        x, y = canvas.uniform(0.1, 0.9), canvas.uniform(0.1, 0.9)
        away = ((canvas.x - x).square() + (canvas.y - y).square()).sqrt()
        distances.append(away + 0.05 * canvas.hills(6))
    return torch.stack(distances).argmin(0)


def _of_region(values: Tensor, regions: Tensor) -> Tensor:
    """The value of every pixel's region; ``values`` is ``scenes regions``."""
    return values.gather(1, regions.flatten(1)).view_as(regions)


def _colored(tone: Tensor) -> Tensor:
    mix = (tone.unsqueeze(1) + 1) / 2
    dark, light = (torch.tensor(color).view(3, 1, 1) for color in (DARK, LIGHT))
    return dark + (light - dark) * mix
