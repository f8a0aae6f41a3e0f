"""Many small k-means at once, by the rules of the released dense structure estimator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.numerics.checks import (
    check_at_least,
    check_enough_rows,
    check_floating,
    check_shape,
    cpu_generator,
    full_precision,
)

ITERATIONS = 20
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Clustering:
    """Result of :func:`kmeans`.

    Attributes:
        labels: ``batch points``, int64: the assignment *before* the last update of the centroids.
        centroids: ``batch clusters dim``: the centroids *after* it.
    """

    labels: Tensor
    centroids: Tensor


def kmeans(
    points: Tensor,
    clusters: int,
    *,
    generator: torch.Generator,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Clustering:
    """Cluster each element of a batch on its own, all of them at once.

    The first centroid is a uniformly drawn point; each next one a point drawn with probability
    proportional to its distance to the nearest centroid so far. Then at most ``iterations`` times:
    assign each point to its nearest centroid, move each centroid to the mean of its points (an
    empty cluster keeps its centroid), and stop when the Frobenius norm of the shift of all
    centroids of the element is below ``tolerance``. Each element stops on its own.

    Args:
        points: ``batch points dim``; distances are taken after subtracting the mean point.
        clusters: at least 1 and at most the number of points.
        generator: source of chance, on the CPU: the same seed draws the same numbers whatever the
            device of ``points``. An element's draws depend on its place in the batch only.
        iterations: at least 1.
        tolerance: in units of the points.

    Returns:
        :class:`Clustering` on the device of ``points``; no gradients.

    Raises:
        InputError: wrong shape, NaN or infinity, more clusters than points, or no generator of the
            CPU.

    Source: Dai et al. (2025), arXiv 2510.17299, released code (rules only).

    Deviations: seeds by distance, not squared distance as k-means++ does; chance is drawn in our
    own order, so labels differ from the released code's for the same seed.

    Example:
        >>> pair = torch.tensor([[[0.0], [0.1], [5.0], [5.1]]])
        >>> result = kmeans(pair, 2, generator=torch.Generator().manual_seed(0))
        >>> sorted(round(c, 2) for c in result.centroids.flatten().tolist())
        [0.05, 5.05]
    """
    points = check_floating(points, "points").detach()
    check_shape(points, "batch points dim", "points")
    check_at_least(clusters, 1, "clusters")
    check_at_least(iterations, 1, "iterations")
    check_enough_rows(points.shape[1], clusters, "an element of points")
    draws = seed_draws(points.shape[0], clusters, cpu_generator(generator)).to(points.device)
    with full_precision(points):
        return cluster(points, draws, iterations, tolerance)


def seed_draws(batch: int, clusters: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers that choose the first centroids, ``batch clusters``, on the CPU."""
    return torch.rand(batch, clusters, generator=generator, dtype=torch.float64)


@torch.no_grad()
def cluster(
    points: Tensor,
    draws: Tensor,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    *,
    in_place: bool = False,
) -> Clustering:
    """Core of :func:`kmeans`: chance comes in as ``draws``, one uniform number per centroid.

    With ``in_place`` the points lose their mean for good.
    """
    mean = points.mean(1, keepdim=True)
    offsets = points.sub_(mean) if in_place else points - mean
    result = lloyd(offsets, seeds(offsets, draws), iterations, tolerance)
    return Clustering(result.labels, result.centroids + mean)


@torch.no_grad()
def seeds(points: Tensor, draws: Tensor) -> Tensor:
    """First centroids, ``batch clusters dim``: points drawn by distance to the nearest so far."""
    batch, count, dim = points.shape
    chosen = (draws[:, :1] * count).long()
    flat = points.reshape(-1, dim)
    base = torch.arange(batch, device=points.device).unsqueeze(1) * count
    centroids = points.new_empty(batch, draws.shape[1], dim)
    lengths = torch.linalg.vector_norm(points, dim=-1).square_()
    column = lengths.unsqueeze(-1)
    nearest = lengths
    for place in range(draws.shape[1]):
        if place:
            reach = nearest.sqrt().cumsum(-1, dtype=torch.float64)
            target = draws[:, place, None] * reach[:, -1:]
            chosen = torch.searchsorted(reach, target, right=True).clamp_max_(count - 1)
        center = flat.index_select(0, (base + chosen).flatten()).unsqueeze(1)
        centroids[:, place] = center[:, 0]
        squared = torch.baddbmm(column, points, center.mT, alpha=-2).squeeze(-1)
        squared += lengths.gather(1, chosen)
        # the chosen point itself must not be drawn again because of rounding
        squared.clamp_min_(0).scatter_(1, chosen, 0.0)
        nearest = torch.minimum(nearest, squared) if place else squared
    return centroids


@torch.no_grad()
def lloyd(
    points: Tensor,
    centroids: Tensor,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Clustering:
    """Alternate assignment and update; ``points`` should be centered (float32 distances).

    On an accelerator all iterations run, so that the host never waits: an element that has
    stopped stays as it was.
    """
    labels = points.new_zeros(points.shape[:2], dtype=torch.long)
    moving = torch.ones(len(points), dtype=torch.bool, device=points.device)
    for spent in range(1, iterations + 1):
        found = nearest_centroids(points, centroids)
        moved = _means(points, found, centroids)
        shift = (moved - centroids).norm(dim=(1, 2))
        labels = torch.where(moving[:, None], found, labels)
        centroids = torch.where(moving[:, None, None], moved, centroids)
        moving = moving & (shift >= tolerance)
        if points.device.type == "cpu" and 2 * int(moving.sum()) <= len(points):
            rest = moving.nonzero().squeeze(1)
            if len(rest) and spent < iterations:
                part = points.index_select(0, rest)
                further = lloyd(part, centroids[rest], iterations - spent, tolerance)
                labels[rest], centroids[rest] = further.labels, further.centroids
            break
    return Clustering(labels, centroids)


def nearest_centroids(points: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest centroid of every point, ``batch points``."""
    half = centroids.square().sum(-1, keepdim=True) / 2
    # min is several times faster than argmin here
    return torch.baddbmm(half, centroids, points.mT, alpha=-1).min(1).indices


def _means(points: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    batch, clusters, dim = centroids.shape
    if points.device.type == "cpu":
        cells = (labels + torch.arange(batch).unsqueeze(1) * clusters).flatten()
        counts = torch.bincount(cells, minlength=batch * clusters).reshape(batch, clusters, 1)
        sums = torch.zeros(batch * clusters, dim, dtype=points.dtype)
        sums = sums.index_add_(0, cells, points.reshape(-1, dim)).reshape(batch, clusters, dim)
    else:
        # a sum in a fixed order, which index_add_ has not there
        member = points.new_zeros(batch, clusters, points.shape[1])
        member.scatter_(1, labels.unsqueeze(1), 1.0)
        counts, sums = member.sum(-1, keepdim=True), member @ points
    return torch.where(counts > 0, sums / counts.clamp_min(1), centroids)
