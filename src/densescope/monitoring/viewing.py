"""Held-out images go through a model in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.features.extraction import ExtractedFeatures, extract
from densescope.features.normalization import Normalization
from densescope.metrics import ScoreSettings
from densescope.monitoring.metric import DenseMetric
from densescope.monitoring.models import (
    ReadTokens,
    StillBackbone,
    Tokens,
    Where,
    at_rest,
    device_of,
    draw_from,
    find_backbone,
    still,
    unwrapped,
)
from densescope.runs.environment import device_name


@dataclass(frozen=True)
class Viewer:
    """How a model is looked at.

    Attributes:
        mean, std: normalization the model was trained with.
        backbone: where in the model the backbone is.
        tokens: reads the patch tokens of a backbone of no known kind.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    backbone: Where = None
    tokens: ReadTokens | None = None

    def look(
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
        _check_size(unwrapped(part), size)
        if self.tokens is not None:
            part = Tokens(unwrapped(part), self.tokens)
        with at_rest(part):
            reader = still(part, image_size=size, mean=self.mean, std=self.std)
            for batch in batches:
                draw_from(part, metric.settings.seed + batch.start)
                extracted = _extract(reader, pixels, batch, metric.settings, device)
                metric.update(extracted.patches, batch, extracted.image)
        return {
            "architecture": kind,
            "weights": path or "model",
            "image_size": size,
            "grid": list(extracted.grid),
            "device": device_name(device),
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
    reader: StillBackbone,
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
