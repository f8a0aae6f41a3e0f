"""Intrinsic dimension and cluster quality of a sample of patches, from distances alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.numerics.checks import check_at_least, check_floating, check_shape
from densescope.numerics.clustering import kmeans

DISCARDED = 0.1  # of the points, those with the largest ratios: they bend the fit of TwoNN
SIZES = 4  # of the nested samples behind the slope of MST lengths, each half the next
NEIGHBORS = 10
LISTED = 64  # neighbors of a point that are looked up once
CLUSTERS = 24


NumbersOfSets = Callable[["PatchSample", Tensor], Sequence[float]]
"""A sample and masks of its points, ``sets points``, to a number of each set."""


@dataclass(frozen=True)
class PatchSample:
    """Some patches of some images, and the distances between them.

    Attributes:
        points: ``points dim``.
        image: ``points``, the image of each.
        distances: ``points points``, Euclidean.
        neighbors: ``points many``, the nearest points of each without itself, in order.
    """

    points: Tensor
    image: Tensor
    distances: Tensor
    neighbors: Tensor

    @property
    def everything(self) -> Tensor:
        """A mask that keeps all points."""
        return torch.ones(len(self.points), dtype=torch.bool, device=self.points.device)


def draw_patches(features: Tensor, size: int, *, generator: torch.Generator) -> PatchSample:
    """Equally many patches of equally spaced images, ``size`` of them or a few less.

    Args:
        features: ``images patches dim``.
        size: at least 8.
        generator: chooses the patches of an image, on the CPU.

    Raises:
        InputError: wrong shape, NaN or infinity, or fewer than 8 patches in all.
    """
    features = check_floating(features, "features", scaling="whole")
    check_shape(features, "images patches dim", "features")
    check_at_least(size, 8, "the size of a sample")
    images, patches, _ = features.shape
    check_at_least(images * patches, 8, "the number of patches")
    taken = torch.arange(min(images, size)) * images // min(images, size)
    each = min(patches, max(1, size // len(taken)))
    order = torch.rand(len(taken), patches, generator=generator).argsort(1)[:, :each]
    image = taken.repeat_interleave(each)
    points = features[image.to(features.device), order.flatten().to(features.device)].double()
    offsets = points - points.mean(0)
    distances = torch.cdist(offsets, offsets)
    others = distances.clone().fill_diagonal_(torch.inf)
    nearest = others.topk(min(LISTED, len(points) - 1), largest=False).indices
    return PatchSample(points, image, distances, nearest)


def each_set(number: Callable[[PatchSample, Tensor], float]) -> NumbersOfSets:
    """A number of one set of points, for several sets."""
    return lambda sample, sets: [number(sample, kept) for kept in sets]


def two_nearest_dimension(sample: PatchSample, kept: Tensor) -> float:
    """TwoNN: the dimension that the ratio of the distances to the two nearest neighbors tells of.

    The slope through the origin of ``-log(1 - F)`` against ``log(r_2 / r_1)``, without the largest
    tenth of the ratios; ``F`` is their empirical distribution. At least 0. Invariant to rotation,
    scale and shift.

    Args:
        sample: the points.
        kept: mask of the points that count.

    Returns:
        NaN where fewer than three points differ.

    Source: Facco et al. (2017), "Estimating the intrinsic dimension of datasets by a minimal
        neighborhood information".

    Deviations: points with a twin at distance 0 are left out, as their ratio is infinite.
    """
    nearest, _ = _nearest(sample, kept, 2)
    nearest = nearest[nearest[:, 0] > 0]
    ratios = (nearest[:, 1] / nearest[:, 0]).log().sort().values
    count = len(ratios)
    used = int(count * (1 - DISCARDED))
    if used < 2:
        return float("nan")
    empirical = torch.arange(1, count + 1, device=ratios.device).double() / count
    x, y = ratios[:used], -torch.log1p(-empirical[:used])
    return float((x * y).sum() / x.square().sum())


def tree_dimensions(sample: PatchSample, sets: Tensor) -> list[float]:
    """The dimension that the growth of minimum spanning trees tells of, for several sets.

    ``1 / (1 - slope)`` of the line through log length against log size of the minimum spanning
    trees of four nested samples. Invariant to rotation, scale and shift.

    Args:
        sample: the points; the nested samples are every second, fourth and eighth of a set.
        sets: ``sets points``, masks of the points that count, at least 16 each.

    Returns:
        Above 1; infinite where the length grows as fast as the size; NaN where it is 0.

    Raises:
        InputError: a set of fewer than 16 points.

    Source: IdEst, arXiv 2606.03338; Steele (1988) for the growth ``n^(1 - 1/d)``.
    """
    check_at_least(int(sets.sum(1).min()), 2**SIZES, "the number of patches of a sample")
    place = sets.cumsum(1) - 1
    masks = [sets & (place % 2**level == 0) for level in range(SIZES)]
    lengths = torch.stack([tree_lengths(sample.distances, each) for each in masks], 1).cpu()
    sizes = torch.stack([each.sum(1) for each in masks], 1).double().cpu().log()
    offsets = sizes - sizes.mean(1, keepdim=True)
    slopes = (offsets * lengths.log()).sum(1) / offsets.square().sum(1)
    return torch.where(slopes < 1, 1 / (1 - slopes), torch.inf * slopes.isfinite()).tolist()


def tree_lengths(distances: Tensor, sets: Tensor) -> Tensor:
    """Lengths of the minimum spanning trees of several sets of points, by Prim's algorithm.

    Args:
        distances: ``points points``.
        sets: ``sets points``, masks; none is empty.

    Returns:
        ``sets``.
    """
    rows = torch.arange(len(sets), device=distances.device)
    nearest = sets.int().argmax(1)
    outside = sets.clone()
    reach = torch.full(sets.shape, torch.inf, dtype=distances.dtype, device=distances.device)
    lengths = distances.new_zeros(len(sets))
    for _ in range(int(sets.sum(1).max()) - 1):
        outside[rows, nearest] = False
        reach = torch.minimum(reach, distances[nearest]).masked_fill_(~outside, torch.inf)
        steps, nearest = reach.min(1)
        lengths += steps.masked_fill(steps.isinf(), 0.0)
    return lengths


def sample_clusters(sample: PatchSample, *, generator: torch.Generator) -> Tensor:
    """k-means labels of the points, 24 clusters or fewer for a small sample."""
    clusters = min(CLUSTERS, max(2, len(sample.points) // 4))
    return kmeans(sample.points.unsqueeze(0), clusters, generator=generator).labels[0]


def cluster_learnability(labels: Tensor) -> Callable[[PatchSample, Tensor], float]:
    """Accuracy with which the nearest neighbors of a point tell its cluster, from 0 to 1.

    Each point is left out in turn, and the most frequent cluster of its ten nearest neighbors is
    the guess. High where the clusters are regions of their own.

    Args:
        labels: ``points``, of :func:`sample_clusters`.

    Source: Lu et al. (2022), "Using representation expressiveness and learnability to evaluate
        self-supervised learning methods", arXiv 2206.01251.

    Deviations: patches in place of image vectors, leaving one out in place of an online order.
    """

    def number(sample: PatchSample, kept: Tensor) -> float:
        _, found = _nearest(sample, kept, min(NEIGHBORS, int(kept.sum()) - 1))
        votes = torch.nn.functional.one_hot(labels[found], int(labels.max()) + 1).sum(1)
        return float((votes.argmax(1) == labels[kept]).double().mean())

    return number


def davies_bouldin(labels: Tensor) -> Callable[[PatchSample, Tensor], float]:
    """Davies-Bouldin index of k-means clusters: how wide they are for their distance.

    ``mean_i max_j (s_i + s_j) / |c_i - c_j|`` with ``s`` the mean distance to the centroid ``c``.
    At least 0; low where clusters are narrow and apart. Invariant to rotation, scale and shift.

    Args:
        labels: ``points``, of :func:`sample_clusters`.

    Source: Davies and Bouldin (1979), "A cluster separation measure"; as scikit-learn has it.
    """

    def number(sample: PatchSample, kept: Tensor) -> float:
        points, ours = sample.points[kept], labels[kept]
        hits = torch.nn.functional.one_hot(ours).to(points.dtype)
        hits = hits[:, hits.sum(0) > 0]
        sizes = hits.sum(0)
        centroids = hits.T @ points / sizes.unsqueeze(1)
        place = hits.argmax(1)
        spread = hits.T @ torch.linalg.vector_norm(points - centroids[place], dim=1) / sizes
        apart = torch.cdist(centroids, centroids)
        likeness = (spread[:, None] + spread[None]) / apart
        return float(likeness.fill_diagonal_(0).max(1).values.mean())

    return number


def _nearest(sample: PatchSample, kept: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Distances to the nearest points that count, and which they are: ``kept count`` each."""
    left = int(kept.sum())
    if left < 3:
        raise InputError(f"a sample of {left} patches has no neighbors to compare")
    rows = kept.nonzero()[:, 0]
    near = sample.neighbors[rows]
    if int(kept[near].sum(1).min()) < count:  # many of the nearest do not count
        near = sample.distances[rows].clone()
        near[torch.arange(left, device=near.device), rows] = torch.inf
        near = near.argsort(1)[:, :-1]
    # those that count first, in their order
    first = (~kept[near]).byte().argsort(dim=1, stable=True)[:, :count]
    found = near.gather(1, first)
    return sample.distances[rows].gather(1, found), found
