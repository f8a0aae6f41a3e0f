"""The released definition as one would write it down: a loop over images and over clusters.

Written from the definition, without a line of anybody's code; no host synchronization per point.
It is the yardstick of the benchmark, and an independent second opinion in the tests.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Plain(NamedTuple):
    inter: Tensor
    intra_image: Tensor
    intra_batch: Tensor
    effective_rank: Tensor
    dse: Tensor


def kmeans(points: Tensor, clusters: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    first = torch.randint(0, len(points), (1,), generator=generator)
    centroids = points[first]
    for _ in range(clusters - 1):
        nearest = torch.cdist(points, centroids).amin(1)
        pick = torch.multinomial(nearest.cpu(), 1, generator=generator)  # the generator's device
        centroids = torch.cat([centroids, points[pick]])
    for _ in range(20):
        labels = torch.cdist(points, centroids).argmin(1)
        moved = centroids.clone()
        for cluster in range(clusters):
            members = points[labels == cluster]
            if len(members):
                moved[cluster] = members.mean(0)
        shift = (moved - centroids).norm()
        centroids = moved
        if shift < 1e-4:
            break
    return labels, centroids


def radii(points: Tensor, labels: Tensor, clusters: int) -> list[Tensor]:
    found = []
    for cluster in range(clusters):
        members = points[labels == cluster]
        if len(members) > 1:
            values = torch.linalg.svdvals(members - members.mean(0))
            found.append(values.sum() / max(len(members) - 1, points.shape[1]) ** 0.5)
    return found


def other_distance(points: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    distances = torch.cdist(points, centroids)
    distances[torch.arange(len(points)), labels] = torch.inf
    return distances.amin(1).mean()


def effective_rank(rows: Tensor) -> Tensor:
    values = torch.linalg.svdvals(rows)
    shares = values / values.sum() + 1e-12
    return (-(shares * shares.log()).sum()).exp()


def estimator(
    features: Tensor,
    generator: torch.Generator,
    local_clusters: int = 3,
    global_clusters: int = 24,
    group_size: int = 8,
) -> Plain:
    """The five released numbers on L2-normalized features."""
    points = torch.nn.functional.normalize(features, dim=-1)
    images, patches, dim = points.shape
    spread = (points - points.mean((0, 1))).norm(dim=-1).mean()
    one = torch.ones(())
    within = []
    for image in points:
        labels, _ = kmeans(image, local_clusters, generator)
        found = radii(image, labels, local_clusters)
        within.append(torch.stack(found).mean() if found else one)
    across, between = [], []
    for group in points.split(group_size):
        rows = group.flatten(0, 1)
        labels, centroids = kmeans(rows, global_clusters, generator)
        across += radii(rows, labels, global_clusters)
        between.append(other_distance(rows, labels, centroids))
    orders = [torch.randperm(patches, generator=generator) for _ in range(images)]
    shuffled = torch.stack([image[order] for image, order in zip(points, orders, strict=True)])
    ranks = torch.stack([effective_rank(shuffled[:, place]) for place in range(patches)])
    inter = torch.stack(between).mean() / spread
    intra_image = torch.stack(within).mean() / spread
    intra_batch = (torch.stack(across).mean() if across else one) / spread
    rank = ranks.mean() / min(images, dim)
    return Plain(
        inter, intra_image, intra_batch, rank, inter + rank - (intra_batch + intra_image) / 2
    )
