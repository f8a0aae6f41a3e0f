"""Held-out images go through a model in training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.features.extraction import ExtractedFeatures, extract
from densescope.features.images import ImageSubset, decode_subset, draw_subset, open_images
from densescope.features.normalization import Normalization
from densescope.features.wrappers import unwrap_module
from densescope.metrics import ScoreSettings
from densescope.monitoring.metric import DenseMetric
from densescope.monitoring.models import (
    ReadOnlyBackbone,
    ReadTokens,
    TokenModule,
    Where,
    device_of,
    evaluation_mode,
    find_backbone,
    read_only_backbone,
    seed_evaluation,
)
from densescope.runs.environment import device_description


@dataclass(frozen=True)
class HeldOut:
    """Images and where they came from.

    Attributes:
        pixels: uint8, ``images 3 rows columns``.
        source: where they came from, in words.
        seed: what they were drawn with, or ``None``.
        fingerprint: sha256 that tells whether two runs looked at the same images.
    """

    pixels: Tensor
    source: str
    seed: int | None
    fingerprint: str

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def image_size(self) -> int:
        """Side in pixels, as a record says it: the columns."""
        return self.pixels.shape[-1]

    def to_json(self) -> dict[str, object]:
        """What a record says of its images, under the names a sweep uses."""
        return {
            "source": self.source,
            "seed": self.seed,
            "count": len(self),
            "fingerprint": self.fingerprint,
        }


def load_held_out(
    images: Tensor | ImageSubset | str | os.PathLike[str],
    *,
    count: int,
    seed: int,
    image_size: int,
    workers: int | None = None,
) -> HeldOut:
    """Decode the images once.

    Args:
        images: a uint8 tensor ``images 3 rows columns``, a subset that was drawn before, or a
            folder, tar shards or Hugging Face image set to draw ``count`` images from.
        count: see ``images``; not used for a tensor or a subset.
        seed: see ``images``.
        image_size: side in pixels after the crop; a tensor has its own.
        workers: threads that decode.

    Raises:
        InputError: a tensor of another dtype or shape, or of fewer than 2 images.
        DataError: the images cannot be read.
    """
    if isinstance(images, Tensor):
        return _of_tensor(images)
    if not isinstance(images, ImageSubset):
        images = draw_subset(open_images(images), count, seed)
    pixels = decode_subset(images, image_size=image_size, workers=workers)
    return HeldOut(pixels, images.source.location, images.seed, images.fingerprint)


def _of_tensor(images: Tensor) -> HeldOut:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(
            f"held-out images are {images.dtype} of shape {tuple(images.shape)}: give uint8, "
            "images x 3 x rows x columns, not normalized"
        )
    if len(images) < 2:
        raise InputError(f"{len(images)} held-out image(s): give at least 2, better 512")
    pixels = images.detach().cpu().contiguous().clone()
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    digest.update(pixels.numpy().tobytes())
    return HeldOut(pixels, "tensor", None, digest.hexdigest())


@dataclass(frozen=True)
class ModelReader:
    """How a model in training is read.

    Attributes:
        mean, std: normalization the model was trained with.
        backbone: where in the model the backbone is.
        tokens: reads the patch tokens of a backbone of no known kind.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    backbone: Where = None
    tokens: ReadTokens | None = None

    def read(
        self, model: Any, pixels: Tensor, batches: Sequence[range], metric: DenseMetric
    ) -> dict[str, Any]:
        """Show batches of images to a model and its features to a metric.

        Args:
            model: a network in training; it is left as it was.
            pixels: uint8, ``images 3 rows columns``.
            batches: which images to show at once; their numbers are the sample ids.
            metric: takes the features.

        Returns:
            What a record says of the model: architecture, weights, image size, grid, device and
            normalization.

        Raises:
            InputError: the model cannot be read, its features are NaN, or memory ran out.
        """
        part, path = find_backbone(model, self.backbone)
        kind, device, size = type(part).__name__, device_of(part), pixels.shape[-1]
        _check_size(unwrap_module(part), size)
        if self.tokens is not None:
            part = TokenModule(unwrap_module(part), self.tokens)
        with evaluation_mode(part):
            reader = read_only_backbone(part, image_size=size, mean=self.mean, std=self.std)
            for batch in batches:
                seed_evaluation(part, metric.settings.seed + batch.start)
                extracted = _extract(reader, pixels, batch, metric.settings, device)
                metric.update(extracted.patches, batch, extracted.image)
        return {
            "architecture": kind,
            "weights": path or "model",
            "image_size": size,
            "grid": list(extracted.grid),
            "device": device_description(device),
            "normalization": Normalization(reader.mean, reader.std).to_json(),
        }


def _check_size(model: Any, size: int) -> None:
    embed = getattr(model, "patch_embed", None)
    wanted = getattr(embed, "img_size", None)
    if wanted is None or not getattr(embed, "strict_img_size", False):
        return
    if tuple(wanted) != (size, size):
        raise InputError(
            f"the model takes images of {wanted[0]} pixels and the held-out ones have {size}: "
            f"give DenseMonitor image_size={wanted[0]}"
        )


def share_of_batches(images: int, batch_size: int, rank: int, ranks: int) -> list[range]:
    """Whole batches for one rank; where they do not come out even, some are shown twice.

    The batches are the same for any number of ranks, so that features are, to the last bit.

    Example:
        >>> share_of_batches(10, 4, 1, 2)
        [range(4, 8), range(0, 4)]
    """
    starts = range(0, images, batch_size)
    each = -(-len(starts) // ranks)
    mine = [starts[(rank + i * ranks) % len(starts)] for i in range(each)]
    return [range(start, min(start + batch_size, images)) for start in mine]


def _extract(
    reader: ReadOnlyBackbone,
    pixels: Tensor,
    batch: range,
    settings: ScoreSettings,
    device: torch.device,
) -> ExtractedFeatures:
    try:
        return extract(
            reader,
            pixels[batch.start : batch.stop],
            layers=settings.layers,
            batch_size=len(batch),
            device=str(device),
            precision=settings.precision,
        )
    except InputError as cause:
        place = f"in the batch of images {batch.start} to {batch.stop - 1}"
        raise InputError(f"{place}, {cause}") from cause
