"""Features with the ids of the images they show, whatever order they came in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.numerics.checks import check_floating, check_shape

SAME_FEATURES = 0.05  # as a fraction; half precision on two devices differs by less


@dataclass(frozen=True)
class CollectedFeatures:
    """Features of some images, float32 on the CPU.

    Attributes:
        ids: ``images``, int64.
        patches: per layer ``images patches dim``.
        image: ``images dim``, or ``images 0`` where there are no image vectors.
    """

    ids: Tensor
    patches: tuple[Tensor, ...]
    image: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Patch features and image vectors, without the ids."""
        return (*self.patches, self.image)

    @property
    def fingerprint(self) -> str:
        """sha256 of the ids: whether two observations are of the same images."""
        return hashlib.sha256(self.ids.numpy().tobytes()).hexdigest()


def collect_features(
    features: Tensor | Sequence[Tensor],
    sample_ids: Tensor | Sequence[int],
    image_vectors: Tensor | None,
    layers: int,
) -> CollectedFeatures:
    """Features as they came in, checked.

    Raises:
        InputError: shapes that do not fit each other, or features that are NaN or infinite.
    """
    ids = _ids(sample_ids)
    patches = (features,) if isinstance(features, Tensor) else tuple(features)
    if len(patches) != layers:
        raise InputError(f"features of {len(patches)} layer(s) for {layers} in the settings")
    image = torch.empty(len(ids), 0) if image_vectors is None else image_vectors
    for tensor, axes, name in (
        *((grid, "images patches dim", "features") for grid in patches),
        *(((image, "images dim", "image_vectors"),) if image_vectors is not None else ()),
    ):
        check_floating(tensor, name, scaling="whole")
        if len(ids):
            check_shape(tensor, axes, name)
        if len(tensor) != len(ids):
            raise InputError(f"{name} has {len(tensor)} images for {len(ids)} sample_ids")
    return CollectedFeatures(ids, tuple(_still(grid) for grid in patches), _still(image))


def concatenated(parts: Sequence[CollectedFeatures], layers: int) -> CollectedFeatures:
    """Several batches as one; without any, tensors of no images.

    Raises:
        InputError: batches of different shapes.
    """
    parts = [part for part in parts if len(part)]
    if not parts:
        return no_features(layers)
    if len(parts) == 1:
        return parts[0]
    for position, first in enumerate(parts[0].tensors):
        for part in parts[1:]:
            here, there = tuple(first.shape[1:]), tuple(part.tensors[position].shape[1:])
            if here != there:
                raise InputError(
                    f"features of one image have shape {here} in one batch and {there} in "
                    "another: give all held-out images one size, or reset() after compute()"
                )
    patches = tuple(torch.cat(grids) for grids in zip(*(p.patches for p in parts), strict=True))
    return CollectedFeatures(
        torch.cat([part.ids for part in parts]), patches, torch.cat([part.image for part in parts])
    )


def no_features(layers: int) -> CollectedFeatures:
    """No images at all."""
    none = torch.empty(0, 0, 0)
    return CollectedFeatures(torch.empty(0, dtype=torch.int64), (none,) * layers, torch.empty(0, 0))


def in_order(everything: CollectedFeatures) -> CollectedFeatures:
    """Images in order of their ids, each once.

    Raises:
        InputError: an id came twice with features that differ.
    """
    if bool((everything.ids[1:] > everything.ids[:-1]).all()):
        return everything
    ids, order = torch.sort(everything.ids, stable=True)
    again = torch.zeros(len(ids), dtype=torch.bool)
    again[1:] = ids[1:] == ids[:-1]
    for tensor in everything.tensors:
        _check_twins(tensor, ids, order, again)
    kept = order[~again]
    return CollectedFeatures(
        ids[~again], tuple(grid[kept] for grid in everything.patches), everything.image[kept]
    )


def _check_twins(tensor: Tensor, ids: Tensor, order: Tensor, again: Tensor) -> None:
    """Copies that a sampler made agree up to rounding; those of other weights do not."""
    if not bool(again.any()):
        return
    later = again.nonzero().flatten()
    first, second = tensor[order[later - 1]].flatten(1), tensor[order[later]].flatten(1)
    apart = (first - second).norm(dim=1) > SAME_FEATURES * first.norm(dim=1)
    if bool(apart.any()):
        raise InputError(
            f"sample {int(ids[later[apart]][0])} came twice with different features: "
            "the model changed in between; reset() after every compute()"
        )


def _ids(sample_ids: Tensor | Sequence[int]) -> Tensor:
    ids = torch.as_tensor(sample_ids)
    if ids.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if ids.ndim != 1 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise InputError(
            f"sample_ids are {ids.dtype} of shape {tuple(ids.shape)}: give one integer per image"
        )
    return ids.detach().to("cpu", torch.int64)


def _still(tensor: Tensor) -> Tensor:
    """A float32 copy on the CPU: the caller may go on writing into its own."""
    return tensor.detach().to("cpu", torch.float32, copy=True)
