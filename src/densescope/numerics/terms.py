"""Sums over clusters, spectra and the spread: what both definitions are made of.

Pure functions of features and an :class:`~densescope.numerics.assignment.Assignment`,
differentiable in the features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.numerics.assignment import Assignment, numbers_at_once, pieces, unit
from densescope.numerics.spectrum import values_of
from densescope.numerics.workers import walk, worker_count

PADDING = 1.12


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
    """

    local_norms: Tensor
    local_counts: Tensor
    global_norms: Tensor
    global_counts: Tensor
    reach: Tensor

    def subset(self, images: Tensor, groups: Tensor) -> Terms:
        """The terms of some images and groups only (boolean masks)."""
        return Terms(
            self.local_norms[images],
            self.local_counts[images],
            self.global_norms[groups],
            self.global_counts[groups],
            self.reach[groups],
        )


def cluster_terms(features: Tensor, assignment: Assignment) -> Terms:
    """Walk through the images once and sum up what each cluster contributes."""
    clusters = assignment.global_centroids.shape[1]

    def piece(run: tuple[slice, slice]) -> tuple[Tensor, ...]:
        here, there = run
        points = unit(features[here], assignment.normalize)
        local = cluster_norms(points, assignment.local_labels[here], assignment.local_clusters)
        grouped = points.reshape(there.stop - there.start, -1, points.shape[-1])
        labels = assignment.global_labels[here].reshape(len(grouped), -1)
        wide = cluster_norms(grouped, labels, clusters)
        distances = other_distances(grouped, labels, assignment.global_centroids[there])
        reach = torch.zeros_like(wide[0]).scatter_add(1, labels, distances.double())
        return (*local, *wide, reach)

    found = walk(piece, pieces(features, assignment.group_size), features)
    return Terms(*(torch.cat(column) for column in zip(*found, strict=True)))


def cluster_norms(points: Tensor, labels: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Nuclear norm and size of every centered cluster, both ``batch clusters``.

    Clusters of like size are padded with zero rows to a common one and decomposed together.
    """
    batch, _, dim = points.shape
    cells = (labels + torch.arange(batch, device=labels.device).unsqueeze(1) * clusters).flatten()
    order = cells.argsort(stable=True)
    counts = torch.bincount(cells, minlength=batch * clusters)
    starts = counts.cumsum(0) - counts
    flat = points.reshape(-1, dim)
    norms, places = [], []
    for which, width in _like_sizes(counts, dim):
        inside = torch.arange(width, device=cells.device) < counts[which].unsqueeze(1)
        index = starts[which].unsqueeze(1) + torch.arange(width, device=cells.device)
        rows = flat[order[index.clamp_max(len(order) - 1)]].double() * inside.unsqueeze(-1)
        mean = rows.sum(1, keepdim=True) / counts[which, None, None]
        norms.append(values_of((rows - mean) * inside.unsqueeze(-1)).sum(-1))
        places.append(which)
    result = torch.zeros(batch * clusters, dtype=torch.float64, device=points.device)
    if norms:
        result = result.index_put((torch.cat(places),), torch.cat(norms))
    return result.reshape(batch, clusters), counts.reshape(batch, clusters)


def _like_sizes(counts: Tensor, dim: int) -> Iterator[tuple[Tensor, int]]:
    """Indices of clusters with two rows or more, cut into runs of similar size, with their size.

    The one place where the host waits for the device: the sizes decide the shapes.
    """
    sizes, order = counts.cpu().sort()
    listed = sizes.tolist()
    first = int((sizes < 2).sum())
    most = numbers_at_once(counts.device)
    while first < len(listed):
        limit = listed[first] * PADDING + 2
        last = first
        budget = 0
        while last < len(listed) and listed[last] <= limit and budget < most:
            budget = (last - first + 1) * listed[last] * dim
            last += 1
        yield order[first:last].to(counts.device), listed[last - 1]
        first = last


def other_distances(points: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """Distance of every patch to the nearest centroid that is not its own, ``batch points``."""
    with torch.no_grad():
        mean = points.mean(1, keepdim=True)
        centers = centroids - mean
        half = centers.square().sum(-1, keepdim=True) / 2
        scores = torch.baddbmm(half, centers, (points - mean).mT, alpha=-1)
        other = scores.scatter(1, labels.unsqueeze(1), torch.inf).min(1).indices
    chosen = centroids.gather(1, other.unsqueeze(-1).expand(-1, -1, centroids.shape[-1]))
    distance: Tensor = torch.linalg.vector_norm(points - chosen, dim=-1)
    return distance


def spread(features: Tensor, assignment: Assignment) -> Tensor:
    """Mean distance of a patch to the mean patch, ``s``; float64."""
    runs = [here for here, _ in pieces(features, assignment.group_size)]
    total = features.shape[0] * features.shape[1]

    def summed(here: slice) -> Tensor:
        return unit(features[here], assignment.normalize).sum((0, 1), dtype=torch.float64)

    mean = torch.stack(walk(summed, runs, features)).sum(0) / total

    def distance(here: slice) -> Tensor:
        offset = unit(features[here], assignment.normalize) - mean.to(features.dtype)
        length: Tensor = torch.linalg.vector_norm(offset, dim=-1)
        return length.sum(dtype=torch.float64)

    result = torch.stack(walk(distance, runs, features)).sum() / total
    noise = 2 * torch.finfo(features.dtype).eps * mean.norm()
    return torch.where(result <= noise, 0.0, result)


def position_spectra(features: Tensor, assignment: Assignment, positions: int) -> Tensor:
    """Singular values of one patch per image for each of the first permuted positions.

    The matrices are ``images dim``, one per position; the result is ``positions values``.
    """

    def piece(run: range) -> Tensor:
        return values_of(position_rows(features, assignment, run))

    return torch.cat(walk(piece, position_runs(features, positions), features))


def position_runs(features: Tensor, positions: int) -> list[range]:
    """Positions that are worked on together."""
    images, _, dim = features.shape
    most = numbers_at_once(features.device) // (images * dim)
    step = max(1, min(most, -(-positions // worker_count(features))))
    return [range(first, min(first + step, positions)) for first in range(0, positions, step)]


def position_rows(features: Tensor, assignment: Assignment, positions: range) -> Tensor:
    """The matrices of some positions, ``positions images dim``."""
    images = len(features)
    patch = assignment.permutations[:images, positions.start : positions.stop].T
    image = torch.arange(images, device=features.device)
    return unit(features[image, patch], assignment.normalize)
