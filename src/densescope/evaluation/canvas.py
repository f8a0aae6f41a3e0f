"""A stack of small canvases on which scenes are painted, all at once and in any order."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


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
