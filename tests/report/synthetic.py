"""A made-up run with the shapes of real ones: DSE rises, then one of its parts gives way."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.report import Previews, ReportData, build_report_data, preview_names
from densescope.selection import Selection, select_checkpoints

BLOCKS = 8
RUN = {
    "title": "dino-vit-small on ImageNet-100",
    "format": "dino",
    "architecture": "vit_small_patch16_224",
    "weights": "teacher",
    "images": {"count": 2048, "fingerprint": "sha256:5b1f…c2", "seed": 0, "size_pixels": 224},
    "versions": {"densescope": "0.1.0", "torch": "2.6.0", "timm": "1.0.15"},
}


class _Noise:
    """Replicates that share most of their noise between checkpoints, as paired images do."""

    def __init__(self, own: float, seed: int = 0) -> None:
        self.own = own
        self.generator = torch.Generator().manual_seed(seed)
        self.common = torch.randn(BLOCKS, generator=self.generator)

    def estimate(self, value: float, scale: float, *, seed_spread: float | None = None) -> Estimate:
        own = torch.randn(BLOCKS, generator=self.generator)
        wobble = (self.common + self.own * own) * scale / BLOCKS**0.5
        jitter = float(torch.randn((), generator=self.generator)) * scale * 0.25
        center = value + jitter
        return Estimate(center, tuple((center + wobble).tolist()), seed_spread)


def _rise(t: float, speed: float) -> float:
    return 1 - math.exp(-speed * t)


def _metrics(t: float, noise: _Noise) -> dict[str, Estimate]:
    fall = max(0.0, t - 0.45)
    inter = noise.estimate(
        1.02 + 0.30 * _rise(t, 6) - 0.12 * fall + 0.035 * math.sin(26 * t), 0.006, seed_spread=0.004
    )
    image = noise.estimate(0.78 - 0.10 * _rise(t, 5) + 0.02 * fall, 0.004, seed_spread=0.003)
    batch = noise.estimate(0.66 - 0.06 * _rise(t, 5) + 0.03 * fall, 0.004, seed_spread=0.003)
    intra = Estimate(
        (image.value + batch.value) / 2,
        tuple((a + b) / 2 for a, b in zip(image.replicates, batch.replicates, strict=True)),
    )
    rank = noise.estimate(0.34 + 0.36 * _rise(t, 7) - 0.42 * fall, 0.005)
    dse = inter.value - intra.value + rank.value
    return {
        "released.inter": inter,
        "released.intra": intra,
        "released.intra_image": image,
        "released.intra_batch": batch,
        "released.effective_rank": rank,
        "released.dse_lambda_1": Estimate(
            dse, tuple(dse + r - rank.value for r in rank.replicates)
        ),
        "paper.inter": noise.estimate(0.62 + 0.14 * _rise(t, 6) - 0.05 * fall, 0.003),
        "paper.intra": noise.estimate(0.30 - 0.05 * _rise(t, 5), 0.002),
        "paper.intra_image": noise.estimate(0.34 - 0.05 * _rise(t, 5), 0.002),
        "paper.intra_batch": noise.estimate(0.26 - 0.05 * _rise(t, 5), 0.002),
        "paper.effective_rank": noise.estimate(130 + 120 * _rise(t, 7) - 150 * fall, 2.0),
        "rankme": noise.estimate(110 + 170 * _rise(t, 3), 3.0),
        "dense_rankme": noise.estimate(135 + 125 * _rise(t, 7) - 160 * fall, 2.5),
        "alpha_req": noise.estimate(1.62 - 0.55 * _rise(t, 4), 0.012),
        "lidar": noise.estimate(60 + 90 * _rise(t, 2.5), 2.0),
        "outlier_fraction": noise.estimate(0.004 + 0.05 * fall**1.5, 0.001),
    }


def records(
    count: int = 24, *, failed: tuple[int, ...] = (), stride: int = 10, own: float = 0.02
) -> list[ScoreRecord]:
    """``count`` checkpoints; those at the given positions failed.

    ``own`` is the noise of each checkpoint by itself, as a part of what all share: with 0.02 the
    pick is told apart from all others, with 0.35 it is not.
    """
    noise = _Noise(own)
    rows = []
    for index in range(count):
        step = (index + 1) * stride
        metrics = _metrics((index + 1) / max(count, 2), noise)
        record = ScoreRecord(f"checkpoint{step:04d}.pth", step, scores={"-1": metrics})
        if index in failed:
            reason = f"{record.name} is cut off: 1,048,576 of 346,030,080 bytes; copy it again"
            record = replace(record, status="failed", error=reason, scores={})
        rows.append(record)
    return rows


def choose(run: list[ScoreRecord], definition: str = "released") -> Selection:
    """The choice of the package itself."""
    return select_checkpoints(run, definition=definition)


def previews(names: tuple[str, ...], *, images: int = 4, grid: int = 14, dim: int = 24) -> Previews:
    """Noise pictures and smooth patch grids."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(images, 3, 6, 6, generator=generator)
    photos = torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bilinear")
    base = torch.randn(images, dim, 4, 4, generator=generator)
    grids = {}
    for number, name in enumerate(names):
        mixed = base + 0.4 * number * torch.randn(base.shape, generator=generator)
        grids[name] = torch.nn.functional.interpolate(
            mixed, size=(grid, grid), mode="bicubic"
        ).half()
    return Previews((photos * 255).to(torch.uint8), grids)


def nearest_of_first(points: Tensor, clusters: int) -> Tensor:
    """Stands in for k-means: the nearest of the first points, a few apart."""
    centers = points[:: max(1, len(points) // clusters)][:clusters]
    return torch.cdist(points, centers).argmin(-1)


def report(
    count: int = 24,
    *,
    failed: tuple[int, ...] = (),
    with_previews: bool = False,
    alternatives: bool = True,
    run: dict[str, Any] | None = None,
    rows: list[ScoreRecord] | None = None,
) -> ReportData:
    """The whole of a synthetic report."""
    rows = records(count, failed=failed) if rows is None else rows
    selection = choose(rows) if any(row.status == "scored" for row in rows) else None
    names = preview_names(rows, selection) if selection else ()
    return build_report_data(
        rows,
        selection,
        previews(names) if with_previews else None,
        RUN if run is None else run,
        alternatives=(choose(rows, "paper"),) if alternatives and selection else (),
        cluster=nearest_of_first,
    )


def layered(run: list[ScoreRecord], depth: int = 6) -> list[ScoreRecord]:
    """The same run with every layer; later layers fall more, in the patch metrics only."""
    changed = ("released.", "paper.", "dense_rankme", "outlier")
    rows = []
    for index, record in enumerate(run):
        scores = {}
        for layer in range(-depth, 0):
            late = (layer + depth) / max(depth - 1, 1)
            fall = 1 - 0.25 * (1 - late) - 0.3 * late * index / len(run)
            scores[str(layer)] = {
                name: scaled(e, fall) if name.startswith(changed) else e
                for name, e in record.scores["-1"].items()
            }
        rows.append(replace(record, scores=scores))
    return rows


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """An estimate times a number."""
    replicates = tuple(factor * value for value in estimate.replicates)
    return replace(estimate, value=factor * estimate.value, replicates=replicates)
