"""Models and images small enough to be watched in a test."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from densescope.metrics import ScoreSettings
from tests.tiny_run import ARCHITECTURE, OPTIONS

SETTINGS = ScoreSettings(global_clusters=6, lidar_images=0)
NUMBERS = {"densescope/dse", "densescope/effective_rank", "densescope/inter", "densescope/rankme"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int = 32, seed: int = 0) -> Tensor:
    shape = (count, 3, 32, 32)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def features(count: int = 32, seed: int = 0, dim: int = 8) -> Tensor:
    return torch.randn(count, 16, dim, generator=seeded(seed))


def vit(seed: int = 0) -> Any:
    import timm

    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        return timm.create_model(ARCHITECTURE, num_classes=0, **OPTIONS)


def shake(model: nn.Module, seed: int, size: float = 0.02) -> None:
    """Something like a training step."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
