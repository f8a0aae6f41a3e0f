"""The fixed images a monitor looks at: never trained on, the same at every moment of a run."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.features.images import ImageSubset, decode_subset, draw_subset, open_images


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


def held_out(
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
