"""The released code's k-means and draw order, written from its description, for comparison."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from densescope.numerics.assignment import Assignment
from densescope.numerics.structure import DenseStructure, structure_of


def seeded_kmeans(points: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """One clustering; a fresh generator gives what reseeding the global one would."""
    generator = torch.Generator().manual_seed(seed)
    centroids = points[torch.randint(0, len(points), (1,), generator=generator)]
    for _ in range(clusters - 1):
        nearest = torch.cdist(points, centroids).amin(1)
        pick = torch.multinomial(nearest / nearest.sum(), 1, generator=generator)
        centroids = torch.cat([centroids, points[pick]])
    for _ in range(20):
        labels = torch.cdist(points, centroids).argmin(1)
        moved = torch.stack(
            [
                points[labels == k].mean(0) if (labels == k).any() else centroids[k]
                for k in range(clusters)
            ]
        )
        shift = (moved - centroids).norm()
        centroids = moved
        if shift < 1e-4:
            break
    # the permutations go on from where the last clustering left the generator
    seeded_kmeans.generator = generator  # type: ignore[attr-defined]
    return labels, centroids


def released_structure(
    features: Tensor, seed: int, local: int = 3, wide: int = 24, group: int = 8
) -> DenseStructure:
    """The released definition with the chance of the released code."""
    points = normalize(features, dim=-1)
    local_labels = torch.stack([seeded_kmeans(image, local, seed)[0] for image in points])
    found = [seeded_kmeans(part.flatten(0, 1), wide, seed) for part in points.split(group)]
    generator = seeded_kmeans.generator  # type: ignore[attr-defined]
    images, patches, _ = features.shape
    orders = [torch.randperm(patches, generator=generator) for _ in range(images)]
    assignment = Assignment(
        local_labels,
        torch.cat([labels for labels, _ in found]).reshape(images, patches),
        torch.stack([centroids for _, centroids in found]),
        torch.stack(orders),
        local,
        group,
        normalize=True,
    )
    return structure_of(features, assignment, "released")
