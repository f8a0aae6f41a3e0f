"""The interface of a backbone, and the features that it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What a backbone says of a batch of images.

    Attributes:
        patches: one grid ``images dim rows columns`` per requested layer, after the final norm.
        image: ``images dim``: the class token; the mean of the patch tokens where there is none;
            global average pooling for convolutional networks and Swin.
    """

    patches: tuple[Tensor, ...]
    image: Tensor


@runtime_checkable
class Backbone(Protocol):
    """Anything that turns normalized images into :class:`Features`.

    Attributes:
        patch_size: pixels per cell of the feature grid.
        mean, std: normalization the images must have had, one number per channel.
        image_size: side in pixels it was built for.
    """

    patch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        """Features of ``images channels height width``; layers count from the end if negative."""
        ...
