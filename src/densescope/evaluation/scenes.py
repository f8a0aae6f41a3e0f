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


class Canvas:
    """Images and pixel labels of ``scenes`` scenes; nearer things cover farther ones.

    Masks, tones and numbers of a part are ``scenes rows columns``, or ``scenes 1 1`` where one
    number per scene is enough. Coordinates run from 0 to 1, rightwards and downwards.
    """

    def __init__(self, scenes: int, size: int, generator: torch.Generator) -> None:
        self.scenes = scenes
        self.size = size
        self.generator = generator
        steps = (torch.arange(size) + 0.5) / size
        self.x = steps.view(1, 1, size)
        self.y = steps.view(1, size, 1)
        self.image = torch.zeros(scenes, 3, size, size)
        self.labels = torch.zeros(scenes, size, size, dtype=torch.uint8)
        self.nearness = torch.full((scenes, size, size), -math.inf)
        # Where the ground begins: a tilted, wavy line; above the picture in one scene of seven.
        height = self.uniform(0.12, 0.75) - self.happens(1 / 7) * 1.0
        wave = self.uniform(0, 0.05) * torch.sin(
            2 * math.pi * (self.uniform(0.5, 2.5) * self.x + self.uniform(0, 1))
        )
        self.horizon = height + self.uniform(-0.15, 0.15) * (self.x - 0.5) + wave
        self.height = height

    def uniform(self, low: float, high: float) -> Tensor:
        """One number per scene."""
        return low + (high - low) * torch.rand(self.scenes, 1, 1, generator=self.generator)

    def happens(self, probability: float) -> Tensor:
        """One boolean per scene."""
        return self.uniform(0, 1) < probability

    def noise(self, rows: int, columns: int | None = None) -> Tensor:
        """Random hills of about that many rows and columns, from -1 to 1."""
        shape = (self.scenes, 1, rows + 1, columns + 1 if columns else rows + 1)
        coarse = torch.rand(shape, generator=self.generator) * 2 - 1
        if min(shape[2:]) > self.size:
            coarse = coarse[:, :, : self.size, : self.size]
        smooth = F.interpolate(coarse, (self.size, self.size), mode="bilinear", align_corners=True)
        return smooth[:, 0]

    def grain(self) -> Tensor:
        """Noise of single pixels, from -1 to 1."""
        shape = (self.scenes, self.size, self.size)
        return torch.rand(shape, generator=self.generator) * 2 - 1

    def colors(self, hue: float) -> tuple[Tensor, Tensor]:
        """Two colors per scene, ``scenes 3 1 1``; half of them have nothing to do with ``hue``."""
        own = torch.where(self.happens(0.5), hue + self.uniform(-0.1, 0.1), self.uniform(0, 1))
        first = _rgb(own, self.uniform(0.05, 0.7), self.uniform(0.35, 0.95))
        contrast = self.uniform(0.45, 0.75)
        darker = first * contrast.unsqueeze(1)
        other = _rgb(self.uniform(0, 1), self.uniform(0.05, 0.7), self.uniform(0.2, 0.9))
        return first, torch.where(self.happens(0.3).unsqueeze(1), other, darker)

    def paint(
        self,
        label: int,
        mask: Tensor,
        nearness: Tensor,
        tone: Tensor,
        colors: tuple[Tensor, Tensor],
    ) -> None:
        """Lay a part over everything that is not nearer; ``tone`` mixes its two colors."""
        shape = self.labels.shape
        visible = mask.expand(shape) & (nearness.expand(shape) > self.nearness)
        mix = tone.clamp(-1, 1).add(1).div(2).unsqueeze(1)
        color = torch.lerp(*colors, mix)
        self.image = torch.where(visible.unsqueeze(1), color, self.image)
        self.labels.masked_fill_(visible, label)
        self.nearness = torch.where(visible, nearness, self.nearness)

    def light(self) -> None:
        """Daylight: strength, tint, a side the light comes from, haze and sensor noise."""
        tint = 1 + 0.15 * (torch.rand(self.scenes, 3, 1, 1, generator=self.generator) * 2 - 1)
        angle = self.uniform(0, 2 * math.pi)
        slope = angle.cos() * (self.x - 0.5) + angle.sin() * (self.y - 0.5)
        strength = self.uniform(0.75, 1.35) * (1 + self.uniform(0, 0.5) * slope)
        lit = self.image * tint * strength.unsqueeze(1)
        haze = self.uniform(0, 0.25).unsqueeze(1)
        self.image = lit * (1 - haze) + 0.6 * haze + 0.02 * self.grain().unsqueeze(1)


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sector = torch.stack([5 + 6 * hue, 3 + 6 * hue, 1 + 6 * hue], dim=1) % 6
    wheel = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return (value * saturation).unsqueeze(1) * -wheel + value.unsqueeze(1)


CHUNK = 64


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
    """Paint small landscapes with roads, lakes, trees, houses, animals and vehicles.

    Half of all colors are drawn without regard to the class, and places, sizes, occlusion, light
    and horizon vary, so that texture, shape and surroundings must tell the classes apart: color
    and place alone do not.

    Args:
        count: scenes, at least 1.
        size: side in pixels, at least 16.
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
        ('sky', 'ground', 'water', 'road', 'tree', 'house', 'animal', 'vehicle')
    """
    if count < 1 or size < 16:
        raise InputError(f"cannot paint {count} scenes of {size} pixels: at least 1 of 16")
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    labels = torch.empty(count, size, size, dtype=torch.uint8)
    for start in range(0, count, CHUNK):
        canvas = Canvas(CHUNK, size, generator)
        for label, part in enumerate(PARTS):
            for _ in range(part.copies):
                part.paint(canvas, label)
        canvas.light()
        here = slice(start, min(start + CHUNK, count))
        painted = canvas.image[: here.stop - start]
        images[here] = painted.clamp(0, 1).mul(255).round().to(torch.uint8)
        labels[here] = canvas.labels[: here.stop - start]
    return Scenes(images, labels, tuple(part.name for part in PARTS))


def save_scenes(scenes: Scenes, folder: str | os.PathLike[str]) -> None:
    """Write scenes as ``images/00000.png`` and ``masks/00000.png`` (gray, value = class)."""
    from PIL import Image

    for kind, tensor in (("images", scenes.images.permute(0, 2, 3, 1)), ("masks", scenes.labels)):
        target = Path(folder) / kind
        make_folder(target)
        for index, array in enumerate(tensor.numpy()):
            Image.fromarray(array).save(target / f"{index:05d}.png")


def _sky(canvas: Canvas, label: int) -> None:
    clouds = canvas.noise(3, 2) + 0.4 * canvas.noise(8, 4)
    tone = canvas.uniform(-1, 1) * (2 * canvas.y - 1) + canvas.uniform(0, 0.8) * clouds
    everywhere = torch.ones_like(canvas.labels, dtype=torch.bool)
    canvas.paint(label, everywhere, canvas.uniform(-9, -9), tone, canvas.colors(0.58))


def _ground(canvas: Canvas, label: int) -> None:
    tone = 0.7 * canvas.noise(20) + 0.7 * canvas.grain() + 0.4 * canvas.noise(4)
    mask = canvas.y > canvas.horizon
    canvas.paint(label, mask, canvas.uniform(-3, -3), tone, canvas.colors(0.28))


def _water(canvas: Canvas, label: int) -> None:
    middle_x, middle_y = canvas.uniform(0, 1), canvas.uniform(0.15, 0.95)
    wide, high = canvas.uniform(0.25, 0.8), canvas.uniform(0.12, 0.4)
    distance = ((canvas.x - middle_x) / wide) ** 2 + ((canvas.y - middle_y) / high) ** 2
    mask = (distance + 0.4 * canvas.noise(5) < 1) & (canvas.y > canvas.horizon)
    mask = mask & canvas.happens(0.6)
    phase = canvas.uniform(9, 16) * canvas.y + 0.35 * canvas.noise(10, 4)
    tone = torch.sin(2 * math.pi * phase) + 0.2 * canvas.grain()
    canvas.paint(label, mask, canvas.uniform(-2, -2), tone, canvas.colors(0.55))


def _road(canvas: Canvas, label: int) -> None:
    depth = ((canvas.y - canvas.horizon) / (1 - canvas.height)).clamp(min=0)
    bend = canvas.uniform(-0.8, 0.8) * depth * (1 - depth)
    far, near = canvas.uniform(0.1, 0.9), canvas.uniform(0, 1)
    offset = canvas.x - (far + (near - far) * depth + bend)
    width = canvas.uniform(0.12, 0.4) * (0.15 + depth)
    mask = (offset.abs() < width) & (canvas.y > canvas.horizon) & canvas.happens(0.6)
    dashes = torch.sin(2 * math.pi * canvas.uniform(3, 6) * depth.sqrt()) > 0
    line = (offset.abs() < 0.09 * width) & dashes
    edge = offset.abs() > 0.85 * width
    tone = torch.where(line | edge, 1.0, -0.8 + 0.12 * canvas.grain())
    canvas.paint(label, mask, canvas.uniform(-1, -1), tone, canvas.colors(0.1))


def _place(canvas: Canvas, small: float, large: float) -> tuple[Tensor, Tensor, Tensor]:
    """Feet (right, down) and size of a thing that stands on the ground; nearer is larger."""
    depth = canvas.uniform(0.05, 1)
    down = canvas.height.clamp(min=0.0) * (1 - depth) + depth * 1.05
    return canvas.uniform(0, 1), down, canvas.uniform(small, large) * (0.45 + 0.55 * depth)


def _tree(canvas: Canvas, label: int) -> None:
    x, y, size = _place(canvas, 0.4, 0.75)
    across, up = (canvas.x - x) / size, (y - canvas.y) / size
    ragged = canvas.noise(14)
    round_crown = (across / 0.42) ** 2 + ((up - 0.68) / 0.36) ** 2 + 0.35 * ragged < 1
    cone = (up > 0.22) & (across.abs() < 0.36 * (1.1 - up) + 0.05 * ragged)
    crown = torch.where(canvas.happens(0.4), cone, round_crown)
    trunk = (across.abs() < 0.06) & (up > 0) & (up < 0.5)
    present = canvas.happens(0.6)
    canvas.paint(label, trunk & present, y, canvas.noise(2, 30), canvas.colors(0.08))
    leaves = (1.6 * canvas.noise(24)).sign() * 0.8 + 0.4 * up
    canvas.paint(label, crown & present, y, leaves, canvas.colors(0.33))


def _house(canvas: Canvas, label: int) -> None:
    x, y, size = _place(canvas, 0.35, 0.7)
    across, up = (canvas.x - x) / size, (y - canvas.y) / size
    half, wall = canvas.uniform(0.3, 0.55), canvas.uniform(0.35, 0.7)
    present = canvas.happens(0.5)
    walls = (across.abs() < half) & (up > 0) & (up < wall)
    windows = canvas.uniform(2, 4)
    columns = ((across / half + 1) / 2 * windows) % 1
    storeys = (up / wall * canvas.uniform(1.2, 2.2)) % 1
    glass = ((columns - 0.5).abs() < 0.22) & ((storeys - 0.55).abs() < 0.25)
    bricks = 0.35 * torch.sin(2 * math.pi * canvas.uniform(10, 16) * up).sign()
    canvas.paint(
        label, walls & present, y, torch.where(glass, 1, bricks - 0.6), canvas.colors(0.05)
    )
    slope = (wall + canvas.uniform(0.2, 0.45) * (1 - across.abs() / (half * 1.15))) - up
    roof = (up >= wall) & (slope > 0)
    tiles = torch.sin(2 * math.pi * canvas.uniform(5, 9) * (across + 0.6 * up)).sign() * 0.6
    canvas.paint(label, roof & present, y, tiles, canvas.colors(0.0))


def _animal(canvas: Canvas, label: int) -> None:
    x, y, size = _place(canvas, 0.28, 0.5)
    facing = torch.where(canvas.happens(0.5), 1.0, -1.0)
    across, up = (canvas.x - x) / size * facing, (y - canvas.y) / size
    body = (across / 0.48) ** 2 + ((up - 0.5) / 0.25) ** 2 < 1
    head = ((across - 0.48) / 0.2) ** 2 + ((up - 0.78) / 0.18) ** 2 < 1
    legs = ((across.abs() - 0.28).abs() < 0.08) & (up > 0) & (up < 0.5)
    stripes = torch.sin(2 * math.pi * (canvas.uniform(3, 5) * across + 0.25 * canvas.noise(6)))
    spots = canvas.noise(12) * 3 - 0.8
    coat = torch.where(canvas.happens(0.5), stripes * 2, spots)
    mask = (body | head | legs) & canvas.happens(0.6)
    canvas.paint(label, mask, y, coat, canvas.colors(0.1))


def _vehicle(canvas: Canvas, label: int) -> None:
    x, y, size = _place(canvas, 0.35, 0.6)
    across, up = (canvas.x - x) / size, (y - canvas.y) / size
    body = (across.abs() < 0.5) & (up > 0.1) & (up < 0.36)
    cabin = (up >= 0.36) & (up < 0.6) & (across.abs() < 0.5 - 0.6 * (up - 0.2))
    glass = cabin & (up < 0.55) & (across.abs() < 0.42 - 0.6 * (up - 0.2)) & (across.abs() > 0.03)
    wheels = (across.abs() - 0.3) ** 2 + (up - 0.11) ** 2 < 0.12**2
    present = canvas.happens(0.6)
    tone = torch.where(glass, 0.9, -0.9 + 0.3 * up)
    canvas.paint(label, (body | cabin) & present, y, tone, canvas.colors(0.0))
    dark = tuple(color * 0.25 for color in canvas.colors(0.6))
    canvas.paint(label, wheels & present, y + 1e-3, up - up, (dark[0], dark[1]))


@dataclass(frozen=True)
class Part:
    """One class of things a scene may hold, and how often it is tried."""

    name: str
    paint: Callable[[Canvas, int], None]
    copies: int = 1


PARTS = (
    Part("sky", _sky),
    Part("ground", _ground),
    Part("water", _water),
    Part("road", _road),
    Part("tree", _tree, copies=3),
    Part("house", _house, copies=2),
    Part("animal", _animal, copies=2),
    Part("vehicle", _vehicle, copies=2),
)
