"""The part of the dense structure estimator that chance and k-means decide; no gradients here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densescope.numerics import clustering
from densescope.numerics.checks import full_precision
from densescope.numerics.workers import map_pieces, recorded, row_slices, worker_count

# Numbers that are worked on at once: small enough for the caches of a CPU (2**21 took twice the
# memory and was no faster there), large enough to fill an accelerator.
CHUNK_NUMBERS = 2**19
# k-means does many small operations: with twice as many numbers each, half as many.
CLUSTERED = 2.5
SHORTEST = 1e-12
ACCELERATOR_CHUNK_NUMBERS = 2**25


@dataclass(frozen=True)
class PatchOrder:
    """Which patches stand together in an effective rank, and whether they are L2-normalized first.

    Attributes:
        permutations: ``images patches``: position ``n`` takes patch ``permutations[i, n]`` of
            image ``i``.
        normalize: whether patches are L2-normalized.
    """

    permutations: Tensor
    normalize: bool


@dataclass(frozen=True)
class Assignment:
    """Which patch belongs to which cluster, and which patches stand together in ``dim``.

    A constant for the value core: gradients flow through the features only.

    Attributes:
        local_labels: ``images patches``, clusters of one image.
        global_labels: ``images patches``, clusters of the image's group.
        global_centroids: ``groups clusters dim``.
        permutations: ``images patches``: position ``n`` of ``dim`` takes patch
            ``permutations[i, n]`` of image ``i``.
        local_clusters: number of clusters per image.
        group_size: images per group; the last group may be smaller.
        normalize: whether patches are L2-normalized first.
    """

    local_labels: Tensor
    global_labels: Tensor
    global_centroids: Tensor
    permutations: Tensor
    local_clusters: int
    group_size: int
    normalize: bool

    @property
    def order(self) -> PatchOrder:
        """What the effective rank needs of it."""
        return PatchOrder(self.permutations, self.normalize)


def group_count(images: int, group_size: int) -> int:
    """Number of groups of consecutive images; the last may be smaller."""
    return -(-images // group_size)


def numbers_at_once(device: torch.device) -> int:
    """How many numbers a piece of work may hold on a device."""
    return CHUNK_NUMBERS if device.type == "cpu" else ACCELERATOR_CHUNK_NUMBERS


def group_slices(
    features: Tensor, group_size: int, factor: float = 1.0
) -> list[tuple[slice, slice]]:
    """Runs of (images, groups) that are worked on together: equal groups, bounded memory.

    ``factor`` times as many numbers as usual stand in one.
    """
    images, patches, dim = features.shape
    whole = images // group_size
    most = int(factor * numbers_at_once(features.device)) // (group_size * patches * dim)
    step = min(most, -(-whole // worker_count(features)))
    runs = []
    for first in range(0, whole, max(1, step)):
        last = min(first + max(1, step), whole)
        runs.append((slice(first * group_size, last * group_size), slice(first, last)))
    if whole * group_size < images:
        runs.append((slice(whole * group_size, images), slice(whole, whole + 1)))
    return runs


def unit(patches: Tensor, normalize: bool) -> Tensor:
    """Patches divided by their L2 norm, or as they are; ``... dim``."""
    if not normalize:
        return patches
    if recorded(patches):
        points: Tensor = _Unit.apply(patches)
        return points
    return torch.nn.functional.normalize(patches, dim=-1)


class _Unit(torch.autograd.Function):
    """What torch's normalization computes, with a gradient that goes through memory once."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(patches, dim=-1, keepdim=True)
        points: Tensor = patches / length.clamp_min(SHORTEST)
        ctx.save_for_backward(points, length)
        return points

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        shape = slope.shape
        points, length = (part.flatten(0, -2) for part in ctx.saved_tensors)
        slope = slope.reshape(points.shape)
        result = torch.empty_like(points)

        def piece(here: slice) -> None:
            part = points[here]
            along = (slope[here] * part).sum(-1, keepdim=True)
            along = torch.where(length[here] > SHORTEST, along, 0.0)
            torch.addcmul(slope[here], part, along, value=-1, out=result[here])
            result[here] /= length[here].clamp_min(SHORTEST)

        map_pieces(piece, row_slices(points), points)
        return result.view(shape)


def permute(images: int, patches: int, generator: torch.Generator) -> Tensor:
    """One random order of the patch positions per image, ``images patches``, on the CPU."""
    return torch.rand(images, patches, generator=generator, dtype=torch.float64).argsort(-1)


def draw_chance(
    images: int,
    patches: int,
    *,
    local_clusters: int,
    global_clusters: int,
    group_size: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Seeds of the local and of the global k-means, and the permutations, drawn in this order."""
    groups = group_count(images, group_size)
    local = clustering.seed_draws(images, local_clusters, generator)
    wide = clustering.seed_draws(groups, global_clusters, generator)
    return local, wide, permute(images, patches, generator)


@torch.no_grad()
def assign(
    features: Tensor,
    *,
    local_clusters: int,
    global_clusters: int,
    group_size: int,
    normalize: bool,
    generator: torch.Generator,
) -> Assignment:
    """Cluster every image and every group of consecutive images, and draw the permutations.

    Chance is that of :func:`draw_chance`, whatever the memory allows at once.
    """
    images, patches, dim = features.shape
    chance = draw_chance(
        images,
        patches,
        local_clusters=local_clusters,
        global_clusters=global_clusters,
        group_size=group_size,
        generator=generator,
    )
    local_draws, global_draws, permutations = (part.to(features.device) for part in chance)

    def piece(run: tuple[slice, slice]) -> tuple[Tensor, Tensor, Tensor]:
        here, there = run
        with full_precision(features):
            points = unit(features[here], normalize)
            grouped = points.reshape(there.stop - there.start, -1, dim)
            # what unit made is ours: no second copy of it
            wide = clustering.cluster(grouped, global_draws[there], in_place=normalize)
            local = clustering.cluster(points, local_draws[here], in_place=normalize)
        return local.labels, wide.labels.reshape(-1, patches), wide.centroids

    found = map_pieces(piece, group_slices(features, group_size, CLUSTERED), features)
    local_labels, global_labels, centroids = (torch.cat(part) for part in zip(*found, strict=True))
    return Assignment(
        local_labels, global_labels, centroids, permutations, local_clusters, group_size, normalize
    )
