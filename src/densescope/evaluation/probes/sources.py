"""Patch vectors wherever they lie: a tensor in memory, or an array of the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from densescope.evaluation.cache import StoredArray
from densescope.numerics.workers import slices, sum_pieces

MEMORY_BYTES = 2 << 30
COPIED = 2**16  # numbers that are worked on in a copy: larger ones leave gaps in the memory


class PatchSource(Protocol):
    """Patch vectors of a set of images, the patches of an image row by row."""

    @property
    def images(self) -> int:
        """How many images there are."""

    @property
    def patches(self) -> int:
        """How many patches an image has."""

    @property
    def dim(self) -> int:
        """Length of a patch vector."""

    def rows(self, start: int, stop: int) -> Tensor:
        """``images patches dim``, float32."""

    def of(self, images: Tensor) -> Tensor:
        """All patches of some images, ``images patches dim``."""

    def take(self, indices: Tensor) -> Tensor:
        """Patches by number (image * patches + patch); the shape of ``indices`` and ``dim``."""


@dataclass(frozen=True)
class TensorPatches:
    """Patch vectors in memory, ``images patches dim``."""

    values: Tensor

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.values)

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        return self.values.shape[1]

    @property
    def dim(self) -> int:
        """Length of a patch vector."""
        return self.values.shape[2]

    def rows(self, start: int, stop: int) -> Tensor:
        """``images patches dim``."""
        return self.values[start:stop]

    def of(self, images: Tensor) -> Tensor:
        """``images patches dim``."""
        return self.values[images]

    def take(self, indices: Tensor) -> Tensor:
        """Patches by number."""
        return self.values.flatten(0, 1)[indices]


@dataclass(frozen=True)
class StoredPatches:
    """Patch vectors in the cache, ``images rows columns dim``."""

    array: StoredArray

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.array)

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        return self.array.shape[1] * self.array.shape[2]

    @property
    def dim(self) -> int:
        """Length of a patch vector."""
        return self.array.shape[3]

    def rows(self, start: int, stop: int) -> Tensor:
        """``images patches dim``."""
        return self.array.rows(start, stop).flatten(1, 2)

    def of(self, images: Tensor) -> Tensor:
        """``images patches dim``."""
        return self.array.take(images).flatten(1, 2)

    def take(self, indices: Tensor) -> Tensor:
        """Patches by number."""
        return self.array.take_patches(indices)


def patch_source(values: Tensor | StoredArray) -> PatchSource:
    """A tensor ``images patches dim`` or a stored grid; the latter in memory where it fits."""
    if isinstance(values, Tensor):
        return TensorPatches(values)
    stored = StoredPatches(values)
    if stored.images * stored.patches * stored.dim * 4 <= MEMORY_BYTES:
        return TensorPatches(values.whole().flatten(1, 2))
    return stored


@dataclass(frozen=True)
class Standardization:
    """``(x - center) / deviation`` per dimension.

    Attributes:
        center: mean of the rows it was fitted on, ``dim``.
        deviation: their standard deviation, at least 1e-6.
    """

    center: Tensor
    deviation: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Standardized values, the last axis being ``dim``."""
        return (values - self.center).div_(self.deviation)


def standardization(source: PatchSource, counted: Tensor) -> Standardization:
    """Center and deviation of the counted patches (``images patches``, boolean), in two passes.

    Centers first: a variance from sums of squares would drown in the mean of a collapsed model.
    """
    total = int(counted.sum())
    parts = slices(source.images, max(COPIED // (source.patches * source.dim), 1))
    like = torch.empty(1).expand(source.images, source.patches, source.dim)

    def kept(part: slice) -> Tensor:
        return source.rows(part.start, part.stop)[counted[part]].double()

    center = sum_pieces(lambda part: kept(part).sum(0), parts, like) / total
    squares = sum_pieces(lambda part: (kept(part) - center).square_().sum(0), parts, like)
    deviation = (squares / max(total - 1, 1)).sqrt()
    return Standardization(center.float(), deviation.float().clamp(min=1e-6))
