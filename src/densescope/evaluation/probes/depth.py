"""Linear depth: a patch spreads its depth over bins, many learning rates at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.errors import DataError
from densescope.evaluation.probes.row import EngineResult, ProbeTask, edge_note
from densescope.evaluation.probes.sources import (
    PatchSource,
    Standardization,
    patch_source,
    standardization,
)
from densescope.evaluation.probes.splits import held_out, split_features

IMAGES = 32


@dataclass(frozen=True)
class DepthSettings:
    """Numbers of the depth probe.

    Attributes:
        learning_rates: rates to choose from, all trained at once.
        weight_decay: decoupled, of weights and biases.
        bins: equally wide between the least and the greatest training depth.
        floor: added to every bin's share after the rectifier.
        steps: of the optimizer, with a cosine decay of the rate to zero.
        batch_images: images of a step.
        mean_weight: weight of the squared mean of the log error beside its variance.
        held_out_fraction: part of the training images on which the rate is chosen.
    """

    learning_rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    weight_decay: float = 1e-2
    bins: int = 256
    floor: float = 0.1
    steps: int = 1000
    batch_images: int = 16
    mean_weight: float = 0.15
    held_out_fraction: float = 0.2


@dataclass(frozen=True)
class _World:
    source: PatchSource
    standardize: Standardization
    depths: Tensor
    grid: tuple[int, int]
    centers: Tensor
    settings: DepthSettings


@dataclass(frozen=True)
class DepthErrors:
    """Sums over measured pixels; those of parts of a data set add up.

    Attributes:
        pixels: how many were measured.
        squares: sum of squared errors in square meters.
        close: pixels whose depth is within a factor of 1.25.
        relative: sum of absolute errors over depths.
    """

    pixels: float = 0.0
    squares: float = 0.0
    close: float = 0.0
    relative: float = 0.0

    def __add__(self, other: DepthErrors) -> DepthErrors:
        return DepthErrors(
            self.pixels + other.pixels,
            self.squares + other.squares,
            self.close + other.close,
            self.relative + other.relative,
        )

    @property
    def rmse(self) -> float:
        """Root of the mean squared error over all pixels, in meters."""
        return math.sqrt(self.squares / self.pixels) if self.pixels else math.nan

    @property
    def delta_1(self) -> float:
        """Fraction of pixels within a factor of 1.25."""
        return self.close / self.pixels if self.pixels else math.nan

    @property
    def absolute_relative(self) -> float:
        """Mean of absolute errors over depths."""
        return self.relative / self.pixels if self.pixels else math.nan


def depth_errors(predicted: Tensor, truth: Tensor) -> DepthErrors:
    """Compare positive predictions with depths of the same shape; 0 was not measured."""
    measured = truth > 0
    found, true = predicted[measured].double(), truth[measured].double()
    ratio = torch.maximum(found / true, true / found)
    return DepthErrors(
        float(measured.sum()),
        float((found - true).square().sum()),
        float((ratio < 1.25).sum()),
        float(((found - true).abs() / true).sum()),
    )


def depth_linear(task: ProbeTask) -> EngineResult:
    """Engine: choose the rate on held-out training images, train again, read the test half."""
    settings: DepthSettings = task.row.settings
    train = split_features(task, "train")
    measured = train.labels[train.labels > 0]
    if not len(measured):
        raise DataError("no training pixel has a depth: 0 means that nothing was measured")
    source = patch_source(train.patches[0])
    counted = torch.ones(source.images, source.patches, dtype=torch.bool)
    centers = torch.linspace(float(measured.min()), float(measured.max()), settings.bins)
    standardize = standardization(source, counted)
    world = _World(source, standardize, train.labels, train.grid, centers, settings)
    rates, table = _choose(world, task.seeds)
    everything = torch.arange(source.images)
    heads = [_train(world, everything, (rates,), seed)[0] for seed in task.seeds]
    test = split_features(task, "test")
    asked = _World(
        patch_source(test.patches[0]), standardize, test.labels, test.grid, centers, settings
    )
    errors = [_measure(asked, head, torch.arange(asked.source.images)) for head in heads]
    details = {
        "learning_rate": rates,
        "held_out_rmse": {f"{rate:g}": value for rate, value in table.items()},
        "delta_1": [error.delta_1 for error in errors],
        "absolute_relative": [error.absolute_relative for error in errors],
        "bins_meters": [float(centers[0]), float(centers[-1])],
        **edge_note("learning rate", [rates], settings.learning_rates),
    }
    return EngineResult(tuple(error.rmse for error in errors), details)


def _choose(world: _World, seeds: tuple[int, ...]) -> tuple[float, dict[float, float]]:
    settings = world.settings
    sums = dict.fromkeys(settings.learning_rates, 0.0)
    for seed in seeds:
        kept, out = held_out(world.source.images, settings.held_out_fraction, seed)
        heads = _train(world, kept, settings.learning_rates, seed)
        for rate, head in zip(settings.learning_rates, heads, strict=True):
            sums[rate] += _measure(world, head, out).rmse / len(seeds)
    return min(sums, key=lambda rate: sums[rate]), sums


def _train(world: _World, images: Tensor, rates: tuple[float, ...], seed: int) -> Tensor:
    """Weights with the bias as last row: ``rates dim+1 bins``."""
    settings, source = world.settings, world.source
    generator = torch.Generator().manual_seed(seed)
    start = 0.01 * torch.randn(source.dim + 1, settings.bins, generator=generator)
    start[-1] = 0
    heads = [start.clone().requires_grad_() for _ in rates]
    groups = [{"params": [head], "lr": rate} for head, rate in zip(heads, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(settings.steps):
        while len(order) < min(settings.batch_images, len(images)):
            order = torch.cat([order, images[torch.randperm(len(images), generator=generator)]])
        batch, order = order[: settings.batch_images], order[settings.batch_images :]
        found = _predict(world, torch.stack(heads), batch)
        loss = _log_loss(found, world.depths[batch], settings.mean_weight)
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
    return torch.stack([head.detach() for head in heads])


def _predict(world: _World, heads: Tensor, images: Tensor) -> Tensor:
    """Depth in meters, ``heads images rows columns`` at the size of the labels."""
    source = world.source
    numbers = images[:, None] * source.patches + torch.arange(source.patches)
    values = world.standardize(source.take(numbers))
    logits = torch.einsum("npd,hdb->hnpb", values, heads[:, :-1]) + heads[:, None, None, -1]
    shares = logits.relu() + world.settings.floor
    depth = (shares * world.centers).sum(-1) / shares.sum(-1)
    grids = depth.unflatten(2, world.grid)  # type: ignore[no-untyped-call]
    size = (world.depths.shape[1], world.depths.shape[2])
    return F.interpolate(grids, size, mode="bilinear", align_corners=False)


def _log_loss(predicted: Tensor, truth: Tensor, mean_weight: float) -> Tensor:
    """Per head ``sqrt(var(g) + w mean(g)^2)`` of the log errors g, which is scale-invariant."""
    measured = truth > 0
    if not bool(measured.any()):
        return predicted.sum((1, 2, 3)) * 0
    error = predicted[:, measured].log() - truth[measured].log()
    spread = error.var(1, correction=0) + mean_weight * error.mean(1).square()
    return (spread + 1e-12).sqrt()


@torch.no_grad()
def _measure(world: _World, head: Tensor, images: Tensor) -> DepthErrors:
    total = DepthErrors()
    for part in torch.split(images, IMAGES):
        total += depth_errors(_predict(world, head[None], part)[0], world.depths[part])
    return total
