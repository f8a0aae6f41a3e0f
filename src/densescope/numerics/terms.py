"""Sums over clusters, spectra and the spread: what the definitions are made of.

Pure functions of features and an :class:`~densescope.numerics.assignment.Assignment`,
differentiable in the features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.numerics.assignment import Assignment, group_slices, numbers_at_once, unit
from densescope.numerics.single_precision import centered_norms, row_values
from densescope.numerics.workers import map_pieces, worker_count

PADDING = 1.12
# On a CPU, clusters of unlike size are padded only to fill this part of what is worked on at once.
FEW = 2


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
    images, _, dim = features.shape
    groups, clusters, _ = assignment.global_centroids.shape
    normalize = assignment.normalize
    local, wide = images * assignment.local_clusters, groups * clusters
    image = torch.arange(images, device=features.device).unsqueeze(1)
    cells = torch.stack(
        [
            assignment.local_labels + image * assignment.local_clusters,
            assignment.global_labels + image // assignment.group_size * clusters + local,
        ]
    )
    norms, counts = cell_norms(features, cells, local + wide, normalize)

    def piece(run: tuple[slice, slice]) -> Tensor:
        here, there = run
        grouped = unit(features[here], normalize).reshape(there.stop - there.start, -1, dim)
        labels = assignment.global_labels[here].reshape(len(grouped), -1)
        distances = other_distances(grouped, labels, assignment.global_centroids[there])
        return _sums(distances, labels, clusters)

    reach = torch.cat(map_pieces(piece, group_slices(features, assignment.group_size), features))
    first, second = (images, assignment.local_clusters), (groups, clusters)
    return Terms(
        norms[:local].reshape(first),
        counts[:local].reshape(first),
        norms[local:].reshape(second),
        counts[local:].reshape(second),
        reach,
        _local_reach(features, assignment) if local_reach else None,
    )


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
        distances = other_distances(points, labels, centroids, counts > 0)
        alone = ((counts > 0).sum(1, keepdim=True) < 2).expand_as(distances)
        return _sums(distances.masked_fill(alone, 0.0), labels, clusters)

    return torch.cat(map_pieces(piece, group_slices(features, assignment.group_size), features))


def _sums(distances: Tensor, labels: Tensor, clusters: int) -> Tensor:
    zeros = torch.zeros(len(labels), clusters, dtype=torch.float64, device=distances.device)
    return zeros.scatter_add(1, labels, distances.double())


def cell_norms(points: Tensor, cells: Tensor, count: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """Nuclear norm and size of each cluster, both ``count``.

    Clusters of one size, or of like size where there are few, are decomposed together.

    Args:
        points: ``... dim``.
        cells: ``labelings ...``: number of the cluster that each point belongs to, for one or more
            clusterings of the same points; 0 to ``count - 1`` over all of them.
        count: of clusters.
        normalize: divide points by their L2 norm first.
    """
    flat = points.reshape(-1, points.shape[-1])
    counts = torch.bincount(cells.flatten(), minlength=count)
    # large clusters first: what follows then fits into the memory they leave
    sizes, ranked = counts.sort(descending=True, stable=True)
    place = torch.empty_like(ranked)
    place[ranked] = torch.arange(count, device=place.device)
    order = place[cells.flatten()].argsort(stable=True) % len(flat)
    runs = list(_like_sizes(sizes, points.shape[-1]))

    def piece(run: ClusterRun) -> Tensor:
        rows = unit(flat.index_select(0, order[run.rows]), normalize)
        held = sizes[run.clusters]
        if not run.padded:
            return centered_norms(rows.reshape(len(held), -1, rows.shape[-1]), held, False)
        starts = (held.cumsum(0) - held).unsqueeze(1)
        index = starts + torch.arange(run.width, device=starts.device)
        return centered_norms(rows[index.clamp_max(len(rows) - 1)], held, True)

    norms = torch.zeros(count, dtype=torch.float64, device=points.device)
    if runs:
        found = torch.cat(map_pieces(piece, runs, points))
        norms = norms.index_put((ranked[: len(found)],), found)
    return norms, counts


@dataclass(frozen=True)
class ClusterRun:
    """Clusters that are decomposed together, and their rows, both in order of size."""

    clusters: slice
    rows: slice
    width: int
    padded: bool


def _like_sizes(sizes: Tensor, dim: int) -> Iterator[ClusterRun]:
    """Runs over descending sizes down to two rows.

    The one place where the host waits for the device: the sizes decide the shapes.
    """
    listed = [size for size in sizes.tolist() if size >= 2]
    most = numbers_at_once(sizes.device)
    few = most // FEW if sizes.device.type == "cpu" else most
    first = row = 0
    while first < len(listed):
        width = listed[first]
        least = (width - 2) / PADDING
        last, start = first, row
        while last < len(listed) and listed[last] >= least:
            held = (row - start) * dim
            if held >= (most if listed[last] == width else few):
                break
            row += listed[last]
            last += 1
        yield ClusterRun(slice(first, last), slice(start, row), width, width > listed[last - 1])
        first = last


def other_distances(
    points: Tensor, labels: Tensor, centroids: Tensor, present: Tensor | None = None
) -> Tensor:
    """Distance of every patch to the nearest centroid that is not its own, ``batch points``.

    With ``present``, ``batch clusters``, centroids of clusters that are not there do not count.
    """
    groups, clusters, dim = centroids.shape
    with torch.no_grad():
        mean = points.mean(1, keepdim=True)
        centers = centroids - mean
        half = centers.square().sum(-1, keepdim=True) / 2
        scores = torch.baddbmm(half, centers, (points - mean).mT, alpha=-1)
        if present is not None:
            scores.masked_fill_(~present.unsqueeze(-1), torch.inf)
        other = scores.scatter_(1, labels.unsqueeze(1), torch.inf).min(1).indices
        other += torch.arange(groups, device=other.device).unsqueeze(1) * clusters
    chosen = centroids.reshape(-1, dim).index_select(0, other.flatten()).reshape(points.shape)
    distance: Tensor = torch.linalg.vector_norm(chosen.sub_(points), dim=-1)
    return distance


def spread(features: Tensor, assignment: Assignment) -> Tensor:
    """Mean distance of a patch to the mean patch, ``s``; float64."""
    runs = [here for here, _ in group_slices(features, assignment.group_size)]
    total = features.shape[0] * features.shape[1]

    def summed(here: slice) -> Tensor:
        return unit(features[here], assignment.normalize).sum((0, 1), dtype=torch.float64)

    mean = torch.stack(map_pieces(summed, runs, features)).sum(0) / total

    def distance(here: slice) -> Tensor:
        offset = unit(features[here], assignment.normalize) - mean.to(features.dtype)
        length: Tensor = torch.linalg.vector_norm(offset, dim=-1)
        return length.sum(dtype=torch.float64)

    result = torch.stack(map_pieces(distance, runs, features)).sum() / total
    noise = 2 * torch.finfo(features.dtype).eps * mean.norm()
    return torch.where(result <= noise, 0.0, result)


def position_spectra(features: Tensor, assignment: Assignment, positions: int) -> Tensor:
    """Singular values of one patch per image for each of the first permuted positions.

    The matrices are ``images dim``, one per position; the result is ``positions values``.
    """

    def piece(run: range) -> Tensor:
        return row_values(position_rows(features, assignment, run))

    return torch.cat(map_pieces(piece, position_runs(features, positions), features))


def position_runs(features: Tensor, positions: int) -> list[range]:
    """Positions that are worked on together."""
    images, _, dim = features.shape
    most = numbers_at_once(features.device) // (images * dim)
    step = max(1, min(most, -(-positions // worker_count(features))))
    return [range(first, min(first + step, positions)) for first in range(0, positions, step)]


def position_rows(features: Tensor, assignment: Assignment, positions: range) -> Tensor:
    """The matrices of some positions, ``positions images dim``."""
    images, patches, dim = features.shape
    patch = assignment.permutations[:images, positions.start : positions.stop].T
    row = patch + torch.arange(images, device=features.device) * patches
    rows = features.reshape(-1, dim).index_select(0, row.flatten())
    return unit(rows, assignment.normalize).reshape(*patch.shape, dim)
