"""Every label-free number, and what it is computed from: the ``METRICS`` table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.numerics import intervals

Better = Literal["higher", "lower", "near 1", "within a run"]


@dataclass(frozen=True)
class ScoreSettings:
    """What the numbers depend on; two scores compare only where these agree.

    Attributes:
        layers: blocks whose patch features are scored; negative counts from the end.
        normalize: L2-normalize patch vectors first (METHOD of the released command).
        local_clusters: k of the k-means within one image.
        global_clusters: k of the k-means within one group of images.
        group_size: images per group.
        images_per_batch: images per value of the effective dimensionality, which depends on it.
        clustering_seeds: clusterings averaged per number; their spread is reported.
        blocks: blocks of images of the jackknife behind every interval.
        lidar_images: images whose augmented views LiDAR compares; 0 leaves LiDAR out.
        lidar_views: augmented views per image.
        seed: seed of clusterings, permutations and augmented views.
        precision: ``"float32"`` or ``"bfloat16"`` (autocast of the forward pass).
    """

    layers: tuple[int, ...] = (-1,)
    normalize: bool = True
    local_clusters: int = 3
    global_clusters: int = 24
    group_size: int = 8
    images_per_batch: int = 1024
    clustering_seeds: int = 2
    blocks: int = 16
    lidar_images: int = 256
    lidar_views: int = 10
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        least = {
            "local_clusters": 2,
            "global_clusters": 2,
            "group_size": 1,
            "images_per_batch": 2,
            "clustering_seeds": 1,
            "blocks": 2,
            "lidar_images": 0,
            "lidar_views": 2,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {bound}")
        if not self.layers:
            raise InputError("no layer to score; name at least one, -1 is the last block")
        if len(set(self.layers)) != len(self.layers):
            raise InputError(f"layers {self.layers} name one block twice")
        if self.images_per_batch < self.group_size:
            raise InputError(
                f"images_per_batch {self.images_per_batch} is less than one group of "
                f"{self.group_size} images (group_size)"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {**asdict(self), "layers": list(self.layers)}


@dataclass(frozen=True)
class ScoredFeatures:
    """Features of one layer of one backbone.

    Attributes:
        patches: ``images patches dim``.
        image: ``images dim``, the backbone's own image vector.
        views: ``samples dim``, image vectors of augmented views, or ``None``.
        sample_ids: ``samples``, or ``None``.
    """

    patches: Tensor
    image: Tensor
    views: Tensor | None
    sample_ids: Tensor | None


@dataclass(frozen=True)
class Metric:
    """One row: which numbers it gives, from what, and which way is good.

    Attributes:
        name: the row's name; a sweep stores its numbers under ``numbers``.
        numbers: keys of the estimates that ``compute`` returns.
        reads: ``"patches"`` (per layer), ``"image"`` or ``"views"`` (of the whole backbone).
        better: direction in which the number is good (``docs/reference/metrics.md``).
        compute: features and settings to estimates by number.
        source: where the definition comes from.
    """

    name: str
    numbers: tuple[str, ...]
    reads: Literal["patches", "image", "views"]
    better: Better
    compute: Callable[[ScoredFeatures, ScoreSettings], Mapping[str, Estimate]]
    source: str


def _structure(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    return intervals.estimate_structure(
        features.patches,
        seeds=tuple(settings.seed + i for i in range(settings.clustering_seeds)),
        blocks=settings.blocks,
        images_per_batch=settings.images_per_batch,
        normalize=settings.normalize,
        local_clusters=settings.local_clusters,
        global_clusters=settings.global_clusters,
        group_size=settings.group_size,
    )


def _of_patches(
    name: str, features: ScoredFeatures, settings: ScoreSettings
) -> Mapping[str, Estimate]:
    return {name: _baseline(name, features.patches, settings)}


def _of_image(
    name: str, features: ScoredFeatures, settings: ScoreSettings
) -> Mapping[str, Estimate]:
    return {name: _baseline(name, features.image, settings)}


def _of_views(
    name: str, features: ScoredFeatures, settings: ScoreSettings
) -> Mapping[str, Estimate]:
    if features.views is None:
        return {}
    return {name: _baseline(name, features.views, settings, features.sample_ids)}


def _baseline(
    name: str, values: Tensor, settings: ScoreSettings, sample_ids: Tensor | None = None
) -> Estimate:
    return intervals.estimate_baseline(
        name,
        values,
        sample_ids=sample_ids,
        blocks=settings.blocks,
        group_size=settings.group_size,
    )


COMPONENTS = ("inter", "intra", "intra_image", "intra_batch", "effective_rank")

METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric(
            "dense_structure",
            (
                *(f"released.{part}" for part in (*COMPONENTS, "dse")),
                *(f"paper.{part}" for part in COMPONENTS),
            ),
            "patches",
            "within a run",
            _structure,
            "Dai et al. (2025), arXiv 2510.17299",
        ),
        Metric(
            "dense_rankme",
            ("dense_rankme",),
            "patches",
            "within a run",
            partial(_of_patches, "dense_rankme"),
            "RankMe on patches; Garrido et al. (2023), arXiv 2210.02885",
        ),
        Metric(
            "outlier_fraction",
            ("outlier_fraction",),
            "patches",
            "lower",
            partial(_of_patches, "outlier_fraction"),
            "Darcet et al. (2024), arXiv 2309.16588",
        ),
        Metric(
            "rankme",
            ("rankme",),
            "image",
            "within a run",
            partial(_of_image, "rankme"),
            "Garrido et al. (2023), arXiv 2210.02885",
        ),
        Metric(
            "alpha_req",
            ("alpha_req",),
            "image",
            "near 1",
            partial(_of_image, "alpha_req"),
            "Agrawal et al. (2022), alpha-ReQ",
        ),
        Metric(
            "lidar",
            ("lidar",),
            "views",
            "within a run",
            partial(_of_views, "lidar"),
            "Thilak et al. (2024), arXiv 2312.04000",
        ),
    )
}
