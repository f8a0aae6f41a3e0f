"""Hand-made records of a run."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from densescope.estimate import Estimate
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.uncertainty import ProbedImages
from densescope.records import ProbeRecord, ScoreRecord

BLOCKS, COPIES = 16, 3
BASELINES = ("dense_rankme", "rankme", "alpha_req", "lidar", "outlier_fraction")


def name_of(step: int) -> str:
    return f"checkpoint{step:04}.pth"


def score(
    step: int,
    separability: float | Estimate,
    effective_rank: float | Estimate = 0.5,
    *,
    sha: str | None = None,
    paper: bool = False,
    **numbers: float,
) -> ScoreRecord:
    """A record with the released parts; ``inter`` holds the separability, ``intra`` is 0."""
    inter = separability if isinstance(separability, Estimate) else Estimate(separability)
    width = Estimate(0.0, (0.0,) * len(inter.replicates))
    effective_rank = (
        effective_rank if isinstance(effective_rank, Estimate) else Estimate(effective_rank)
    )
    row = {
        "released.inter": inter,
        "released.intra": width,
        "released.effective_rank": effective_rank,
    }
    if paper:
        row |= {"paper.inter": inter, "paper.intra": width, "paper.effective_rank": effective_rank}
    row |= {name: Estimate(value) for name, value in numbers.items()}
    return ScoreRecord(
        name_of(step),
        step,
        scores={"-1": row},
        checkpoint={"sha256": sha or f"hash {step}", "format": "dino"},
        timing={"load_seconds": 1.0, "metrics_seconds": 2.0, "written": "today"},
    )


def probe(step: int, *values: float, **changes: Any) -> ProbeRecord:
    fields: dict[str, Any] = {
        "name": name_of(step),
        "step": step,
        "unit": "epoch",
        "protocol": "linear",
        "dataset": "voc2012",
        "measure": "miou",
        "values": values,
        "checkpoint": {"sha256": f"hash {step}", "format": "dino"},
        "timing": {"fit_seconds": 100.0},
    }
    return ProbeRecord(**{**fields, **changes})


def run_of(
    separability: Sequence[float],
    measures: Sequence[float],
    effective_rank: Sequence[float] | None = None,
    numbers: Mapping[str, Sequence[float]] | None = None,
) -> tuple[list[ScoreRecord], list[ProbeRecord]]:
    """Scores and single-seed probes of steps 0, 1, ..."""
    dims = effective_rank if effective_rank is not None else [0.5] * len(separability)
    scores = [
        score(i, s, d, **{name: values[i] for name, values in (numbers or {}).items()})
        for i, (s, d) in enumerate(zip(separability, dims, strict=True))
    ]
    return scores, [probe(i, value) for i, value in enumerate(measures)]


def noisy_probes(
    truth: Sequence[float], seeds: int, noise: float, chance: random.Random, shared: float = 0.0
) -> list[ProbeRecord]:
    """Probes with normal noise; ``shared`` is the spread of what a seed adds to all of them."""
    common = [chance.gauss(0, shared) for _ in range(seeds)]
    return [
        probe(i, *(value + c + chance.gauss(0, noise) for c in common))
        for i, value in enumerate(truth)
    ]


def counted(step: int, rate: float, dataset: str, seed: int = 0) -> ProbeRecord:
    """A probe that is right at about this rate, on videos of three near-copies."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    noise = 0.01 * torch.randn(BLOCKS, 1, 2, generator=generator)
    rates = (rate + noise).expand(-1, COPIES, -1).flatten(0, 1).clamp(0.01, 0.99)
    both = (1000 * rates).round().long()
    truth = torch.full_like(both, 1000)
    counts = PixelCounts(torch.stack([both, truth, truth], 1))
    names = tuple(f"image{i}" for i in range(BLOCKS * COPIES))
    blocks = tuple(f"video{i // COPIES}" for i in range(BLOCKS * COPIES))
    images = ProbedImages(names, blocks, (), (counts,)).to_json()
    return probe(step, counts.mean_iou, dataset=dataset, images=images)


def a_set(dataset: str, rates: Sequence[float], seed: int = 0) -> list[ProbeRecord]:
    return [counted(10 * i, rate, dataset, seed) for i, rate in enumerate(rates)]
