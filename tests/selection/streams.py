"""Made-up streams of patch features, read by the real estimator: runs that collapse or do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.numerics.replicates import estimate_structure
from densescope.records import ScoreRecord
from tests.selection.runs import record

IMAGES, PATCHES, DIM, CLASSES = 96, 16, 24, 8
SETTINGS = {"images_per_batch": 96, "global_clusters": 8, "group_size": 4}


@dataclass
class Stream:
    """Fixed images; each checkpoint sees their classes more or less clearly."""

    generator: torch.Generator
    classes: Tensor
    detail: Tensor
    directions: Tensor

    @classmethod
    def seeded(cls, seed: int) -> Stream:
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        labels = torch.randint(CLASSES, (IMAGES, PATCHES), generator=generator)
        directions = torch.linalg.qr(drawn(DIM, DIM)).Q
        return cls(generator, drawn(CLASSES, DIM)[labels], drawn(IMAGES, PATCHES, DIM), directions)

    def features(self, clarity: float, decay: float = 1.0, wobble: float = 0.15) -> Tensor:
        """``images patches dim``; directions fade as ``exp(-decay * place)``."""
        mixed = clarity * self.classes + self.detail
        mixed = mixed + wobble * torch.randn(mixed.shape, generator=self.generator)
        return (mixed @ self.directions) * torch.exp(-decay * torch.arange(DIM) / DIM)


def learned(step: int) -> float:
    return 0.3 + 2.2 * (1 - math.exp(-step / 4))


def improving(stream: Stream, step: int) -> Tensor:
    return stream.features(learned(step))


def flat(stream: Stream, step: int) -> Tensor:
    return stream.features(1.2, wobble=0.5)


def trading(stream: Stream, step: int) -> Tensor:
    """Classes become clear while the directions slowly fade, as in a healthy short run."""
    return stream.features(learned(step), decay=0.5 + 1.5 * (1 - math.exp(-step / 4)))


def losing_directions(stream: Stream, step: int, fall: int) -> Tensor:
    return stream.features(learned(step), decay=1 + 3 * max(0, step - fall + 1))


def losing_classes(stream: Stream, step: int, fall: int) -> Tensor:
    return stream.features(learned(step) if step < fall else 0.1)


def losing_everything(stream: Stream, step: int, fall: int) -> Tensor:
    """All patches approach one vector, and then are that vector."""
    features = stream.features(learned(step))
    spread = 1.0 if step < fall else (0.1, 0.01, 0.0)[min(step - fall, 2)]
    return torch.ones(DIM) + spread * features


HEALTHY: dict[str, Callable[[Stream, int], Tensor]] = {
    "improving": improving,
    "flat": flat,
    "trading": trading,
}
COLLAPSING: dict[str, Callable[[Stream, int, int], Tensor]] = {
    "directions": losing_directions,
    "classes": losing_classes,
    "everything": losing_everything,
}


def observed(features: Tensor, step: int) -> ScoreRecord:
    scores = estimate_structure(features, definitions=("released",), seeds=(0,), **SETTINGS)
    parts = (scores[f"released.{part}"] for part in ("inter", "intra", "effective_rank"))
    return record(step, *parts)
