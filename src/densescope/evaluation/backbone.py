"""One backbone: it is shown the images of a run, then every number of it is computed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from densescope.estimate import Estimate
from densescope.features.batching import Batching
from densescope.features.extraction import (
    ExtractedFeatures,
    extract,
    extract_image_vectors,
    resolve_device,
)
from densescope.features.prefetched import Images, PrefetchedTensor
from densescope.metrics import ScoreSettings, compute_metrics

if TYPE_CHECKING:
    from densescope.features.backbones import Backbone

PREVIEW_IMAGES = 4


@dataclass(frozen=True)
class ScoringImages:
    """The images of a run, decoded once and shared by all its checkpoints.

    Attributes:
        pixels: uint8, ``images 3 height width``.
        views: uint8, ``samples 3 height width``: augmented views for LiDAR, or ``None``.
        sample_ids: the image each view was made of, ``samples``, or ``None``.
    """

    pixels: Images
    views: Images | None = None
    sample_ids: Tensor | None = None

    @property
    def waited(self) -> float:
        """Seconds that readers have waited for images that were still being made."""
        return sum(part.waited for part in self._filling())

    def close(self) -> None:
        """Make no more of what is still being made."""
        for part in self._filling():
            part.close()

    def _filling(self) -> list[PrefetchedTensor]:
        return [part for part in (self.pixels, self.views) if isinstance(part, PrefetchedTensor)]


@dataclass(frozen=True)
class BackboneFeatures:
    """What a backbone says of the images of a run; all that the numbers need of it.

    Attributes:
        extracted: features of the images.
        views: ``samples dim``, image vectors of augmented views, or ``None``.
        sample_ids: ``samples``, or ``None``.
        seconds: time per stage: ``images`` (waited for), ``extraction`` and ``views``; nothing is
            counted twice.
    """

    extracted: ExtractedFeatures
    views: Tensor | None
    sample_ids: Tensor | None
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class BackboneScore:
    """Everything scored of one backbone.

    Attributes:
        scores: layer (as text) -> number -> estimate.
        preview: patch grids of the last requested layer, ``images dim rows columns``.
        grid: its rows and columns.
        shapes: layer -> rows, columns and dim of its patch grid.
        seconds: time per stage: those of :class:`BackboneFeatures` and each computation.
    """

    scores: Mapping[str, Mapping[str, Estimate]]
    preview: Tensor
    grid: tuple[int, int]
    shapes: Mapping[str, tuple[int, int, int]]
    seconds: Mapping[str, float]


def score_backbone(
    backbone: Backbone,
    images: ScoringImages,
    settings: ScoreSettings,
    *,
    batch_size: int | Batching | None = None,
    device: str = "auto",
) -> BackboneScore:
    """Every number of the ``METRICS`` table for one backbone.

    Args:
        backbone: in evaluation mode.
        images: what :func:`~densescope.evaluation.prepared.prepare_images` made, the same for all
            checkpoints of a run.
        settings: what the numbers depend on.
        batch_size: images per forward pass, as in
            :func:`~densescope.features.extraction.extract`.
        device: ``"auto"``, or any torch device.

    Returns:
        Estimates per layer; numbers of the whole backbone stand under each layer.

    Raises:
        InputError: features that are NaN, infinite, or too few for the clusters.
        DataError: an image cannot be decoded.
    """
    features = backbone_features(backbone, images, settings, batch_size=batch_size, device=device)
    return score_features(features, settings, device=device)


def backbone_features(
    backbone: Backbone,
    images: ScoringImages,
    settings: ScoreSettings,
    *,
    batch_size: int | Batching | None = None,
    device: str = "auto",
) -> BackboneFeatures:
    """The first half of :func:`score_backbone`: all forward passes."""
    seconds: dict[str, float] = {}
    batching, precision = Batching.of(batch_size), settings.precision
    with _timed(seconds, "extraction", images):
        extracted = extract(
            backbone,
            images.pixels,
            layers=settings.layers,
            batch_size=batching,
            device=device,
            precision=precision,
            stay=True,
        )
    views = None
    if images.views is not None:
        with _timed(seconds, "views", images):
            views = extract_image_vectors(
                backbone, images.views, batch_size=batching, device=device, precision=precision
            )
    return BackboneFeatures(extracted, views, images.sample_ids, seconds)


def score_features(
    features: BackboneFeatures, settings: ScoreSettings, *, device: str = "auto"
) -> BackboneScore:
    """The second half of :func:`score_backbone`: all numbers."""
    seconds = dict(features.seconds)
    extracted, target = features.extracted, resolve_device(device)
    scores = compute_metrics(
        extracted.patches,
        extracted.image,
        replace(settings, layers=extracted.layers),
        device=target,
        views=features.views,
        sample_ids=features.sample_ids,
        grids=extracted.grids,
        stage=partial(_timed, seconds),
    )
    few = extracted.patches[-1][:PREVIEW_IMAGES].transpose(1, 2).cpu()
    preview = few.reshape(*few.shape[:2], *extracted.grid)
    shapes = {
        str(layer): (*grid, patches.shape[2])
        for layer, grid, patches in zip(
            extracted.layers, extracted.grids, extracted.patches, strict=True
        )
    }
    return BackboneScore(scores, preview, extracted.grid, shapes, seconds)


@contextmanager
def _timed(
    seconds: dict[str, float], stage: str, images: ScoringImages | None = None
) -> Iterator[None]:
    """Add the time of what is done inside to a stage; all of it has ended with a number.

    What it waits for images is counted as theirs.
    """
    started, before = time.perf_counter(), 0.0 if images is None else images.waited
    yield
    spent = time.perf_counter() - started
    if images is not None:
        waited = images.waited - before
        seconds["images"] = seconds.get("images", 0.0) + waited
        spent -= waited
    seconds[stage] = seconds.get(stage, 0.0) + spent
