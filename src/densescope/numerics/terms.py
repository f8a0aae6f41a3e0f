"""Sums over clusters, spectra and the spread: what the definitions are made of.

Pure functions of features and an :class:`~densescope.numerics.assignment.Assignment`,
differentiable in the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densescope.numerics.assignment import (
    Assignment,
    PatchOrder,
    group_slices,
    numbers_at_once,
    unit,
)
from densescope.numerics.cells import cell_norms
from densescope.numerics.single_precision import row_values
from densescope.numerics.workers import map_pieces, recorded, worker_count


@dataclass(frozen=True)
class Terms:
    """Sums over the clusters of each image and of each group, in float64.

    Attributes:
        local_norms: ``images clusters``, nuclear norm of each centered cluster.
        local_counts: ``images clusters``, its patches.
        global_norms: ``groups clusters``, the same for the clusters of groups.
        global_counts: ``groups clusters``.
        reach: ``groups clusters``, sum over a cluster's patches of the distance to the nearest
            centroid other than their own.
        local_reach: ``images clusters``, the same for the clusters of images; ``None`` where no
            definition asks for it.
    """

    local_norms: Tensor
    local_counts: Tensor
    global_norms: Tensor
    global_counts: Tensor
    reach: Tensor
    local_reach: Tensor | None = None

    def subset(self, images: Tensor, groups: Tensor) -> Terms:
        """The terms of some images and groups only (boolean masks)."""
        return Terms(
            self.local_norms[images],
            self.local_counts[images],
            self.global_norms[groups],
            self.global_counts[groups],
            self.reach[groups],
            None if self.local_reach is None else self.local_reach[images],
        )


def cluster_terms(features: Tensor, assignment: Assignment, *, local_reach: bool = False) -> Terms:
    """Sum up what each cluster contributes."""
    images = len(features)
    groups, clusters, _ = assignment.global_centroids.shape
    local, wide = images * assignment.local_clusters, groups * clusters
    image = torch.arange(images, device=features.device).unsqueeze(1)
    cells = torch.stack(
        [
            assignment.local_labels + image * assignment.local_clusters,
            assignment.global_labels + image // assignment.group_size * clusters + local,
        ]
    )
    norms, counts = cell_norms(features, cells, local + wide, assignment.normalize)

    first, second = (images, assignment.local_clusters), (groups, clusters)
    return Terms(
        norms[:local].reshape(first),
        counts[:local].reshape(first),
        norms[local:].reshape(second),
        counts[local:].reshape(second),
        _Reach.apply(features, assignment),
        _local_reach(features, assignment) if local_reach else None,
    )


class _Reach(torch.autograd.Function):
    """Sum over every cluster's patches of the distance to the nearest other centroid."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, assignment: Assignment) -> Tensor:
        clusters = assignment.global_centroids.shape[1]

        def piece(run: tuple[slice, slice]) -> tuple[Tensor, Tensor, Tensor]:
            points, labels, centroids = _grouped(features, assignment, run)
            other = nearest_other(points, labels, centroids)
            distances = torch.linalg.vector_norm(_chosen(centroids, other).sub_(points), dim=-1)
            return _sums(distances, labels, clusters), other.flatten(), distances.flatten()

        runs = group_slices(features, assignment.group_size)
        found = map_pieces(piece, runs, features)
        reach, other, distances = (torch.cat(part) for part in zip(*found, strict=True))
        ctx.save_for_backward(features, other, distances)
        ctx.assignment = assignment
        return reach

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        features, other, distances = ctx.saved_tensors
        result = torch.empty_like(features)
        other, distances = (part.view(features.shape[:2]) for part in (other, distances))
        slope = slope.to(features.dtype)

        def piece(run: tuple[slice, slice]) -> None:
            here, there = run
            points, labels, centroids = _grouped(features, ctx.assignment, run)
            chosen = _chosen(centroids, other[here].reshape(labels.shape))
            apart = distances[here].reshape(labels.shape)
            factor = torch.where(apart > 0, slope[there].gather(1, labels) / apart, 0.0)
            torch.sub(points, chosen, out=chosen).mul_(factor.unsqueeze(-1))
            result[here] = chosen.view(result[here].shape)

        map_pieces(piece, group_slices(features, ctx.assignment.group_size), features)
        return result, None


def _grouped(
    features: Tensor, assignment: Assignment, run: tuple[slice, slice]
) -> tuple[Tensor, Tensor, Tensor]:
    """Patches, their labels and the centroids of some groups, ``groups patches`` first."""
    here, there = run
    groups, dim = there.stop - there.start, features.shape[-1]
    points = unit(features[here], assignment.normalize).reshape(groups, -1, dim)
    labels = assignment.global_labels[here].reshape(groups, -1)
    return points, labels, assignment.global_centroids[there]


def _local_reach(features: Tensor, assignment: Assignment) -> Tensor:
    """As ``reach``, of the clusters of each image: 0 where an image has only one."""
    clusters = assignment.local_clusters

    def piece(run: tuple[slice, slice]) -> Tensor:
        points = unit(features[run[0]], assignment.normalize)
        labels = assignment.local_labels[run[0]]
        member = points.new_zeros(len(points), clusters, points.shape[1])
        member.scatter_(1, labels.unsqueeze(1), 1.0)
        counts = member.sum(-1)
        centroids = member @ points / counts.clamp_min(1).unsqueeze(-1)
        other = nearest_other(points, labels, centroids, counts > 0)
        distances = torch.linalg.vector_norm(_chosen(centroids, other) - points, dim=-1)
        alone = ((counts > 0).sum(1, keepdim=True) < 2).expand_as(distances)
        return _sums(distances.masked_fill(alone, 0.0), labels, clusters)

    return torch.cat(map_pieces(piece, group_slices(features, assignment.group_size), features))


def _sums(distances: Tensor, labels: Tensor, clusters: int) -> Tensor:
    zeros = torch.zeros(len(labels), clusters, dtype=torch.float64, device=distances.device)
    return zeros.scatter_add(1, labels, distances.double())


def nearest_other(
    points: Tensor, labels: Tensor, centroids: Tensor, present: Tensor | None = None
) -> Tensor:
    """Index of the nearest centroid that is not a patch's own, ``batch points``; no gradient.

    With ``present``, ``batch clusters``, centroids of clusters that are not there do not count.
    """
    with torch.no_grad():
        mean = points.mean(1, keepdim=True)
        centers = centroids - mean
        half = centers.square().sum(-1, keepdim=True) / 2
        scores = torch.baddbmm(half, centers, (points - mean).mT, alpha=-1)
        if present is not None:
            scores.masked_fill_(~present.unsqueeze(-1), torch.inf)
        return scores.scatter_(1, labels.unsqueeze(1), torch.inf).min(1).indices


def _chosen(centroids: Tensor, index: Tensor) -> Tensor:
    """One centroid per patch, ``batch points dim``."""
    batch, clusters, dim = centroids.shape
    index = index + torch.arange(batch, device=index.device).unsqueeze(1) * clusters
    return centroids.reshape(-1, dim).index_select(0, index.flatten()).reshape(*index.shape, dim)


def spread(features: Tensor, assignment: Assignment) -> Tensor:
    """Mean distance of a patch to the mean patch, ``s``; float64."""
    s: Tensor = _Spread.apply(features, assignment)
    return s


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, assignment: Assignment) -> Tensor:
        runs = [here for here, _ in group_slices(features, assignment.group_size)]
        total = features.shape[0] * features.shape[1]

        def summed(here: slice) -> Tensor:
            return unit(features[here], assignment.normalize).sum((0, 1), dtype=torch.float64)

        mean = torch.stack(map_pieces(summed, runs, features)).sum(0) / total

        def distance(here: slice) -> Tensor:
            offset = unit(features[here], assignment.normalize) - mean.to(features.dtype)
            length: Tensor = torch.linalg.vector_norm(offset, dim=-1)
            return length

        lengths = torch.cat(map_pieces(distance, runs, features))
        result = lengths.sum(dtype=torch.float64) / total
        ctx.save_for_backward(features, mean, lengths)
        ctx.assignment = assignment
        noise = 2 * torch.finfo(features.dtype).eps * mean.norm()
        return torch.where(result <= noise, 0.0, result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        features, mean, lengths = ctx.saved_tensors
        runs = [here for here, _ in group_slices(features, ctx.assignment.group_size)]
        result = torch.empty_like(features)
        factor = torch.where(lengths > 0, slope.to(features.dtype) / lengths.numel() / lengths, 0.0)

        def direction(here: slice) -> Tensor:
            part = torch.sub(features[here], mean.to(features.dtype), out=result[here])
            return part.mul_(factor[here].unsqueeze(-1)).sum((0, 1), dtype=torch.float64)

        total = torch.stack(map_pieces(direction, runs, features)).sum(0) / lengths.numel()

        def less(here: slice) -> None:
            result[here] -= total.to(features.dtype)

        map_pieces(less, runs, features)
        return result, None


def position_spectra(features: Tensor, order: PatchOrder, positions: int) -> Tensor:
    """Singular values of one patch per image for each of the first permuted positions.

    The matrices are ``images dim``, one per position; the result is ``positions values``.
    """
    if recorded(features):
        return row_values(position_rows(features, order, range(positions)))

    def piece(run: range) -> Tensor:
        return row_values(position_rows(features, order, run))

    return torch.cat(map_pieces(piece, position_runs(features, positions), features))


def position_runs(features: Tensor, positions: int) -> list[range]:
    """Positions that are worked on together."""
    images, _, dim = features.shape
    most = numbers_at_once(features.device) // (images * dim)
    step = max(1, min(most, -(-positions // worker_count(features))))
    return [range(first, min(first + step, positions)) for first in range(0, positions, step)]


def position_rows(features: Tensor, order: PatchOrder, positions: range) -> Tensor:
    """The matrices of some positions, ``positions images dim``."""
    images, patches, dim = features.shape
    patch = order.permutations[:images, positions.start : positions.stop].T
    row = patch + torch.arange(images, device=features.device) * patches
    rows = features.reshape(-1, dim).index_select(0, row.flatten())
    return unit(rows, order.normalize).reshape(*patch.shape, dim)
