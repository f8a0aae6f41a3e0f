"""Hand-made records of a run."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from densescope.estimate import Estimate
from densescope.records import ProbeRecord, ScoreRecord

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
