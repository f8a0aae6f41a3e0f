"""The images of a run as its checkpoints see them: decoded once, shared by processes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from densescope.evaluation.backbone import ScoringImages
from densescope.evaluation.cache import FeatureCache
from densescope.features.augmentation import AugmentationSettings, random_views
from densescope.features.images import ImageSubset, decoding
from densescope.features.prefetched import PrefetchedTensor
from densescope.locks import exclusive
from densescope.metrics import ScoreSettings

VIEW_CHUNK = 16
VIEWS = AugmentationSettings()
FORMAT = 1
LOCK = "decoding.lock"


def prepare_images(
    subset: ImageSubset,
    image_size: int,
    settings: ScoreSettings,
    *,
    workers: int = 4,
    folder: Path | None = None,
) -> ScoringImages:
    """Decode a run's images once, and draw the augmented views that LiDAR compares.

    Both is done in the background: who reads a batch of them waits for that batch. An image that
    cannot be decoded is found out by who reads it. Close them when they are no longer wanted.

    The views are those of the first ``settings.lidar_images`` images, drawn with the run's seed:
    every checkpoint sees the same ones.

    Args:
        subset: the run's images.
        image_size: side in pixels.
        settings: of the run.
        workers: threads that decode.
        folder: where decoded images are kept, memory-mapped by every process that uses it; the
            first one decodes while the others wait. In memory by default.

    Raises:
        DataError: an image that goes into ``folder`` cannot be read or decoded.
    """
    if folder is None:
        return _decoding(subset, image_size, settings, workers)
    cache = FeatureCache(folder)
    with exclusive(folder / LOCK, wait=True):
        found = _kept(cache, subset, image_size, settings)
        if found is None:
            with closing(_decoding(subset, image_size, settings, workers)) as images:
                _keep(cache, images, subset, settings)
            found = _kept(cache, subset, image_size, settings)
    assert found is not None
    return found


def _decoding(
    subset: ImageSubset, image_size: int, settings: ScoreSettings, workers: int
) -> ScoringImages:
    pixels = decoding(subset, image_size=image_size, workers=workers)
    if not settings.draws_views:
        return ScoringImages(pixels)
    sample_ids = _sample_ids(len(pixels), settings)
    generator = torch.Generator().manual_seed(settings.seed)
    views = torch.empty(len(sample_ids), *pixels.shape[1:], dtype=torch.uint8)

    def draw(rows: slice) -> None:
        shown = sample_ids[rows]
        chunk = pixels[int(shown[0]) : int(shown[-1]) + 1].float() / 255
        drawn = random_views(
            chunk,
            views=settings.lidar_views,
            size=image_size,
            settings=VIEWS,
            generator=generator,
        )
        views[rows] = drawn.mul_(255).round_().flatten(0, 1)

    # one thread, so that chunks draw from the generator in their order
    drawing = PrefetchedTensor(views, draw, step=VIEW_CHUNK * settings.lidar_views)
    return ScoringImages(pixels, drawing, sample_ids)


def _sample_ids(images: int, settings: ScoreSettings) -> torch.Tensor:
    """Which image each view shows: views of a chunk of images, one view of each after another."""
    chunks = torch.split(torch.arange(min(settings.lidar_images, images)), VIEW_CHUNK)
    return torch.cat([ids.repeat(settings.lidar_views) for ids in chunks])


def _keys(
    subset: ImageSubset, image_size: int, settings: ScoreSettings
) -> dict[str, dict[str, Any]]:
    """What the kept arrays are computed from."""
    seen = {"format": FORMAT, "images": subset.fingerprint, "image_size": image_size}
    keys = {"pixels": {**seen, "array": "pixels"}}
    if settings.draws_views:
        drawn = {
            "seed": settings.seed,
            "lidar_images": settings.lidar_images,
            "lidar_views": settings.lidar_views,
            "augmentation": asdict(VIEWS),
        }
        keys["views"] = {**seen, **drawn, "array": "views"}
    return keys


def _kept(
    cache: FeatureCache, subset: ImageSubset, image_size: int, settings: ScoreSettings
) -> ScoringImages | None:
    found = {name: cache.find(key) for name, key in _keys(subset, image_size, settings).items()}
    arrays = {
        name: PrefetchedTensor(array.mapped()) for name, array in found.items() if array is not None
    }
    if len(arrays) < len(found):
        return None
    if "views" not in arrays:
        return ScoringImages(arrays["pixels"])
    return ScoringImages(**arrays, sample_ids=_sample_ids(len(subset), settings))


def _keep(
    cache: FeatureCache, images: ScoringImages, subset: ImageSubset, settings: ScoreSettings
) -> None:
    for name, key in _keys(subset, images.pixels.shape[-1], settings).items():
        values = getattr(images, name)[:]
        with cache.writing(key, tuple(values.shape), dtype="uint8") as writer:
            writer.append(values)
