"""Records of made-up runs, for the tests of this folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from densescope.errors import NOT_FINITE
from densescope.estimate import Estimate
from densescope.records import ScoreRecord

PROVENANCE: dict[str, Any] = {
    "backbone": {"format": "dino", "architecture": "vit_small_patch16_224", "weights": "teacher"},
    "images": {"fingerprint": "f00d", "count": 2048},
    "settings": {"seed": 0, "blocks": 16},
    "image_size": 224,
}


def record(
    step: int,
    inter: Estimate | float,
    intra: Estimate | float,
    effective_rank: Estimate | float,
    *,
    definition: str = "released",
    **fields: Any,
) -> ScoreRecord:
    parts = {"inter": inter, "intra": intra, "effective_rank": effective_rank}
    scores = {
        f"{definition}.{name}": value if isinstance(value, Estimate) else Estimate(float(value))
        for name, value in parts.items()
    }
    known: dict[str, Any] = {"name": f"epoch{step}.pth", "provenance": PROVENANCE}
    return ScoreRecord(step=step, scores={"-1": scores}, **{**known, **fields})


def failed(step: int) -> ScoreRecord:
    return ScoreRecord(f"epoch{step}.pth", step, status="failed", error="cut off")


def diverged(step: int) -> ScoreRecord:
    error = f"epoch{step}.pth holds {NOT_FINITE} weights (norm.weight): the run diverged"
    return ScoreRecord(f"epoch{step}.pth", step, status="failed", error=error)


def plain_run(
    separability: Sequence[float], effective_rank: Sequence[float] | None = None, **fields: Any
) -> list[ScoreRecord]:
    """Without replicates; ``intra`` is 1 and ``effective_rank`` is separability if not given."""
    effective_rank = separability if effective_rank is None else effective_rank
    parts = zip(separability, effective_rank, strict=True)
    return [record(10 * i + 10, s + 1, 1.0, d, **fields) for i, (s, d) in enumerate(parts)]


def jackknifed(values: Sequence[float]) -> Estimate:
    """The mean of block values with its leave-one-block-out means."""
    total, count = sum(values), len(values)
    return Estimate(total / count, tuple((total - value) / (count - 1) for value in values))


def noisy_run(
    separability: Sequence[float],
    effective_rank: Sequence[float],
    *,
    noise: float,
    shared: float = 1.0,
    blocks: int = 16,
    seed: int = 0,
) -> list[ScoreRecord]:
    """Each block of images adds ``shared`` noise to all checkpoints and ``noise`` to each."""
    chance = random.Random(seed)
    common = [[chance.gauss(0, shared) for _ in range(blocks)] for _ in range(3)]

    def estimate(truth: float, part: int) -> Estimate:
        return jackknifed([truth + c + chance.gauss(0, noise) for c in common[part]])

    return [
        record(10 * i + 10, estimate(s + 1, 0), estimate(1.0, 1), estimate(d, 2))
        for i, (s, d) in enumerate(zip(separability, effective_rank, strict=True))
    ]
