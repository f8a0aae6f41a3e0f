"""Small worlds to probe: images whose colors are their classes, and backbones that see or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.evaluation.datasets import SegmentationSet, open_dataset
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.probes import ProbeData, probe_data
from densescope.evaluation.uncertainty import ProbedImages
from densescope.features.backbones import Features

COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=np.int64)
SIZE, BLOCK = 32, 8


def write_world(root: Path, split: str, count: int, seed: int, *, ignored: bool = False) -> None:
    """Images of 4 x 4 blocks; the color of a block is its class, up to noise."""
    from PIL import Image

    chance = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        classes = chance.integers(0, 3, (SIZE // BLOCK, SIZE // BLOCK))
        mask = classes.repeat(BLOCK, 0).repeat(BLOCK, 1).astype(np.uint8)
        photo = COLORS[mask] + chance.integers(-30, 30, (SIZE, SIZE, 3))
        if ignored:
            mask[:BLOCK] = 255
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(
            root / "images" / split / f"{split}{index:03d}.png"
        )
        Image.fromarray(mask).save(root / "masks" / split / f"{split}{index:03d}.png")


def open_world(root: Path, split: str) -> SegmentationSet:
    return open_dataset("folders", root, split, classes=["red", "green", "blue"])


def world(root: Path, *, train: int = 16, test: int = 8, ignored: bool = False) -> ProbeData:
    write_world(root, "train", train, 1, ignored=ignored)
    write_world(root, "test", test, 2, ignored=ignored)
    return probe_data("blocks", open_world(root, "train"), open_world(root, "test"))


@dataclass
class Seeing:
    """Patch features are a fixed random map of the mean color of each patch; counts calls."""

    patch_size: int = 8
    image_size: int = SIZE
    dim: int = 16
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    calls: list[tuple[int, ...]] = field(default_factory=list)
    layers_asked: list[tuple[int, ...]] = field(default_factory=list)

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        self.calls.append(tuple(images.shape))
        self.layers_asked.append(tuple(layers))
        grids = tuple(self.grid(images, layer) for layer in layers)
        return Features(grids, grids[-1].mean((2, 3)))

    def grid(self, images: Tensor, layer: int) -> Tensor:
        chance = torch.Generator().manual_seed(7 + layer % 100)
        weight = torch.randn(self.dim, 3, generator=chance)
        return torch.einsum("dc,ncij->ndij", weight, F.avg_pool2d(images, self.patch_size))


class Blind(Seeing):
    """Features that have nothing to do with the image but are distinct for each."""

    def grid(self, images: Tensor, layer: int) -> Tensor:
        rows = images.shape[2] // self.patch_size
        grids = []
        for image in images:
            chance = torch.Generator().manual_seed(int(image.double().sum() * 1e6) % 2**31)
            grids.append(torch.randn(self.dim, rows, rows, generator=chance))
        return torch.stack(grids)


class Untrained(Seeing):
    """A small random network over pixels, as a checkpoint before training is."""

    def grid(self, images: Tensor, layer: int) -> Tensor:
        chance = torch.Generator().manual_seed(11)
        weight = torch.randn(self.dim, 3, self.patch_size, self.patch_size, generator=chance)
        return F.conv2d(images, weight / 14, stride=self.patch_size).tanh()


TINY: dict[str, Any] = {"image_size": SIZE}


PIXELS = 1000.0


def counts_of(rates: Tensor) -> PixelCounts:
    """Two classes in every image; ``rates`` of the pixels of each are found, ``images 2``."""
    hits = (rates.clamp(0, 1) * PIXELS).round().long()
    truth = torch.full_like(hits, int(PIXELS))
    missed = truth - hits
    return PixelCounts(torch.stack([hits, truth, hits + missed.flip(1)], 1))


def images_of(rates: Tensor, blocks: list[str], folds: tuple[int, ...] = ()) -> ProbedImages:
    names = tuple(f"image{number}" for number in range(len(rates)))
    return ProbedImages(names, tuple(blocks), folds, (counts_of(rates),))
