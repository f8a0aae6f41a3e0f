"""What the label-free metrics of a checkpoint depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, TypedDict

from densescope.errors import InputError
from densescope.layers import ALL, Layers


class StructureOptions(TypedDict):
    """Settings of clusters, batches and blocks, as the functions of ``numerics`` name them."""

    blocks: int
    images_per_batch: int
    local_clusters: int
    global_clusters: int
    group_size: int


@dataclass(frozen=True)
class ScoreSettings:
    """What the numbers depend on; two scores compare only where these agree.

    Attributes:
        layers: blocks whose patch features are scored; negative counts from the end. ``"all"``
            scores every block of the backbone in one forward pass.
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
        metrics: rows of ``METRICS`` or groups of them that are computed; all by default. It
            changes no number, so it is not part of what two scores must agree in.
    """

    layers: Layers = (-1,)
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
    metrics: tuple[str, ...] | None = None

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
        if isinstance(self.layers, str) and self.layers != ALL:
            raise InputError(
                f"layers {self.layers!r}: give block numbers, such as (-4, -1), or {ALL!r}"
            )
        if len(set(self.layers)) != len(self.layers) and self.layers != ALL:
            raise InputError(f"layers {self.layers} name one block twice")
        if self.images_per_batch < self.group_size:
            raise InputError(
                f"images_per_batch {self.images_per_batch} is less than one group of "
                f"{self.group_size} images (group_size)"
            )

        self.stored  # noqa: B018, refuses unknown names

    @property
    def leading_layer(self) -> int:
        """The layer that a choice is made by: the last of the backbone where it is scored."""
        return -1 if self.layers == ALL or -1 in self.layers else int(self.layers[-1])

    def scores_layer(self, layer: int) -> bool:
        """Whether a layer is scored under this number; of all layers the last is ``-1``."""
        return layer < 0 if self.layers == ALL else layer in self.layers

    @property
    def stored(self) -> tuple[str, ...]:
        """The stored metrics to compute, in the order of ``METRICS``."""
        from densescope.metrics.chosen import stored_metrics

        return stored_metrics(self.metrics)

    @property
    def of_structure(self) -> StructureOptions:
        """What dense structure depends on, but for ``normalize`` and the seeds."""
        return {
            "blocks": self.blocks,
            "images_per_batch": self.images_per_batch,
            "local_clusters": self.local_clusters,
            "global_clusters": self.global_clusters,
            "group_size": self.group_size,
        }

    @property
    def draws_views(self) -> bool:
        """Whether any metric needs augmented views of the images."""
        from densescope.metrics.chosen import computations

        return self.lidar_images >= 2 and any(
            computation.reads == "views" for computation in computations(self.metrics)
        )

    def with_structure(self) -> ScoreSettings:
        """The same with dense structure among the metrics, on which choices and alarms rest."""
        if self.metrics is None:
            return self
        from densescope.metrics.chosen import STRUCTURE

        return replace(self, metrics=tuple(dict.fromkeys((*self.metrics, STRUCTURE))))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record: all that a number depends on."""
        document = {
            **asdict(self),
            "layers": self.layers if self.layers == ALL else list(self.layers),
        }
        del document["metrics"]
        return document
