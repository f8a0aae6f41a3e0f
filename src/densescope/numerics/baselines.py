"""The metrics dense structure is compared with, each with its conventions as arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.numerics.checks import check_at_least, check_floating, check_shape
from densescope.numerics.spectrum import effective_rank, entropy_rank, gram_values

RANKME_EPSILON = 1e-7
LIDAR_DELTA = 1e-4
LIDAR_EPSILON = 1e-8
FIT_RANKS = (4, 100)
OUTLIER_FACTOR = 3.0
NUMBERS_AT_ONCE = 2**22


def rankme(vectors: Tensor, *, epsilon: float = RANKME_EPSILON) -> Tensor:
    """Effective rank of one vector per image.

    ``exp(-sum p log p)`` with ``p = sigma / sum sigma + epsilon`` over the *uncentered* singular
    values. From 1 to ``min(images, dim)``; higher is read as better within runs of one method.
    Invariant to rotation, scale and image order; repeating all images changes nothing beyond
    ``epsilon`` while there are more images than dimensions.

    Args:
        vectors: ``images dim``; the paper uses 25,600 images. Grows with their number.
        epsilon: added outside the division.

    Returns:
        float64, 0-d, same device, differentiable once; 0 for a matrix of zeros.

    Raises:
        InputError: wrong shape, NaN or infinity.

    Source: Garrido et al. (2023), "RankMe", equation 1.

    Deviations: libraries differ by a factor of three on one matrix (centered, squared, epsilon
    1e-5); none of them is meant here.

    Example:
        >>> round(rankme(torch.eye(8)).item(), 3)
        8.0
    """
    vectors = check_floating(vectors, "vectors", scaling="whole")
    check_shape(vectors, "images dim", "vectors")
    return effective_rank(vectors, epsilon=epsilon)


def dense_rankme(features: Tensor, *, epsilon: float = RANKME_EPSILON) -> Tensor:
    """RankMe of all patches of all images, ``images * patches`` vectors; see :func:`rankme`.

    Equals the dimension of dense structure up to sampling (all patches at once, not one per
    image), epsilon and scale.

    Args:
        features: ``images patches dim``.
        epsilon: added outside the division.

    Returns:
        float64, 0-d, same device; 0 for zeros. No gradients.

    Raises:
        InputError: wrong shape, NaN or infinity.

    Example:
        >>> round(dense_rankme(torch.eye(8).reshape(2, 4, 8)).item(), 3)
        8.0
    """
    features = check_floating(features, "features", scaling="whole")
    check_shape(features, "images patches dim", "features")
    return rank_of([moments(features.flatten(0, 1))], epsilon)


def alpha_req(
    vectors: Tensor,
    *,
    center: bool = True,
    ranks: tuple[int, int] = FIT_RANKS,
    weighted: bool = True,
) -> Tensor:
    """Decay of the eigenvalue spectrum of the covariance.

    ``alpha`` in ``lambda_i ~ i^-alpha``: the negative slope of a least squares line through
    ``log lambda_i`` against ``log i``. Any real number; *near 1* is read as good, neither high
    nor low is. Invariant to rotation, scale and image order, and to repeating all images.

    Args:
        vectors: ``images dim``, at least 3 images.
        center: subtract the mean first.
        ranks: first and last rank of the fit, from 1; cut at the number of non-zero eigenvalues.
            This choice alone has moved alpha from 0.80 to 1.66.
        weighted: weight rank ``i`` by ``1 / i``.

    Returns:
        float64, 0-d, same device, no gradients; NaN where fewer than two eigenvalues are left.

    Raises:
        InputError: wrong shape, NaN or infinity, or ranks that are not an increasing pair from 1.

    Source: Agrawal et al. (2022), "alpha-ReQ".

    Deviations: none known from the authors' code, whose fit (centered, weight 1/rank, ranks 4 to
    100) is the default.

    Example:
        >>> decaying = torch.diag(torch.arange(1, 65, dtype=torch.float64) ** -0.5)
        >>> round(alpha_req(decaying, center=False, ranks=(1, 64)).item(), 6)
        1.0
    """
    vectors = check_floating(vectors, "vectors", scaling="whole")
    check_shape(vectors, "images dim", "vectors")
    check_at_least(len(vectors), 3, "the number of images")
    if not 1 <= ranks[0] < ranks[1]:
        raise InputError(f"ranks is {ranks}; it must be an increasing pair starting at 1 or later")
    return alpha_of([moments(vectors)], center, ranks, weighted)


def lidar(
    views: Tensor,
    sample_ids: Tensor,
    *,
    delta: float = LIDAR_DELTA,
    epsilon: float = LIDAR_EPSILON,
) -> Tensor:
    """Effective rank of what tells images apart, in units of what tells views of one image apart.

    ``exp(-sum p log p)``, ``p = lambda / sum lambda + epsilon`` over the eigenvalues of
    ``S_w^{-1/2} S_b S_w^{-1/2}``: ``S_b`` the covariance of the images' mean views, ``S_w`` the
    mean covariance of the views of one image plus ``delta`` times the identity. From 1 to
    ``min(images - 1, dim)``; higher is read as better. Invariant to rotation and to the order of
    views; *not* to scale, because of ``delta``.

    Args:
        views: ``views dim``, several augmented views of each image, in any order.
        sample_ids: ``views``, integers: which image a view shows. At least two images with two
            views each; there should be more images than dimensions, else ``S_b`` caps the number.
        delta: added to the diagonal of ``S_w``.
        epsilon: added outside the division.

    Returns:
        float64, 0-d, same device, no gradients; 0 where all images have the same mean view.

    Raises:
        InputError: wrong shape, NaN or infinity, an image with one view, fewer than two images.

    Source: Thilak et al. (2024), "LiDAR". Defaults of ``delta`` and ``epsilon`` are those of
    stable-pretraining; the paper gives none.

    Deviations: grouped by ``sample_ids``, never by position.

    Example:
        >>> views = torch.tensor([[1.0, 0.0], [1.1, 0.0], [-1.0, 0.0], [-1.1, 0.0]])
        >>> round(lidar(views, torch.tensor([0, 0, 1, 1])).item(), 3)
        1.0
    """
    views, sample_ids = checked_views(views, sample_ids)
    return lidar_of([scatter(views, sample_ids)], delta, epsilon)


def outlier_fraction(features: Tensor, *, factor: float = OUTLIER_FACTOR) -> Tensor:
    """Fraction of patch tokens with a norm far above the others.

    The share of patches whose L2 norm exceeds ``factor`` times the median norm of all patches.
    From 0 to below 0.5; lower is better: large vision transformers turn patches of plain
    background into stores of global information, and these spoil dense tasks. Invariant to
    rotation, scale, order and repetition. Norms before normalization: do not pass unit vectors.

    Args:
        features: ``images patches dim``.
        factor: greater than 1. High-norm tokens were reported with about ten times the norm of
            the rest; 3 is the middle between 1 and 10 on a logarithmic scale, so both modes are
            far from the threshold whatever the scale of a model.

    Returns:
        float64, 0-d, same device, no gradients.

    Raises:
        InputError: wrong shape, NaN or infinity, a factor of 1 or less.

    Source: Darcet et al. (2024), "Vision Transformers Need Registers".

    Deviations: the source reads a fixed threshold (150 for one model) off a histogram, which no
    other model shares. A final norm layer, whose output this package looks at, evens norms out:
    zero does not prove that there are none before it.

    Example:
        >>> tokens = torch.ones(1, 50, 4)
        >>> tokens[0, 0] *= 10
        >>> outlier_fraction(tokens).item()
        0.02
    """
    features = check_floating(features, "features", scaling="whole")
    check_shape(features, "images patches dim", "features")
    if factor <= 1:
        raise InputError(f"factor is {factor}; it must be above 1, the median itself")
    return outliers_of([torch.linalg.vector_norm(features, dim=-1).flatten()], factor)


@dataclass(frozen=True)
class Moments:
    """Sums over vectors that add up over blocks of images, in float64."""

    gram: Tensor
    total: Tensor
    count: int


@dataclass(frozen=True)
class Scatter:
    """Sums over images for LiDAR: within-image covariances, and moments of the mean views."""

    within: Tensor
    means: Moments


def moments(vectors: Tensor) -> Moments:
    """Moments of ``rows dim``; float64, a bounded number of rows at a time."""
    dim = vectors.shape[1]
    gram = torch.zeros(dim, dim, dtype=torch.float64, device=vectors.device)
    total = torch.zeros(dim, dtype=torch.float64, device=vectors.device)
    for rows in torch.split(vectors.detach(), max(1, NUMBERS_AT_ONCE // dim)):
        wide = rows.double()
        gram += wide.T @ wide
        total += wide.sum(0)
    return Moments(gram, total, len(vectors))


def pooled_moments(parts: Iterable[Moments]) -> Moments:
    """The moments of all vectors together."""
    parts = list(parts)
    return Moments(
        torch.stack([part.gram for part in parts]).sum(0),
        torch.stack([part.total for part in parts]).sum(0),
        sum(part.count for part in parts),
    )


def rank_of(parts: list[Moments], epsilon: float = RANKME_EPSILON) -> Tensor:
    """RankMe of the vectors behind some moments."""
    added = pooled_moments(parts)
    values = gram_values(added.gram, max(added.count, len(added.gram)))
    return entropy_rank(values[-min(added.count, len(values)) :], epsilon)


def alpha_of(
    parts: list[Moments],
    center: bool = True,
    ranks: tuple[int, int] = FIT_RANKS,
    weighted: bool = True,
) -> Tensor:
    """Alpha-ReQ of the vectors behind some moments."""
    added = pooled_moments(parts)
    gram = added.gram
    if center:
        gram = gram - torch.outer(added.total, added.total) / added.count
    values = gram_values(gram, max(added.count, len(gram))).flip(0).square()
    last = min(ranks[1], int((values > 0).sum()))
    if last <= ranks[0]:
        return values.new_tensor(torch.nan)
    rank = torch.arange(ranks[0], last + 1, dtype=torch.float64, device=values.device)
    height = values[ranks[0] - 1 : last].log()
    weight = 1 / rank if weighted else torch.ones_like(rank)
    weight = weight / weight.sum()
    across = rank.log() - (weight * rank.log()).sum()
    return -(weight * across * height).sum() / (weight * across.square()).sum()


def checked_views(views: Tensor, sample_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Views and their integer sample ids, held to LiDAR's needs."""
    views = check_floating(views, "views")
    check_shape(views, "views dim", "views")
    if sample_ids.is_floating_point() or sample_ids.shape != views.shape[:1]:
        raise InputError(
            f"sample_ids is {sample_ids.dtype} of shape {tuple(sample_ids.shape)}; "
            f"expected one integer for each of {len(views)} views"
        )
    counts = torch.unique(sample_ids, return_counts=True)[1]
    check_at_least(len(counts), 2, "the number of images with views")
    check_at_least(int(counts.min()), 2, "the smallest number of views of an image")
    return views, sample_ids.to(views.device)


def scatter(views: Tensor, sample_ids: Tensor) -> Scatter:
    """LiDAR's sums for some images; every image needs two views."""
    _, place, counts = torch.unique(sample_ids, return_inverse=True, return_counts=True)
    wide = views.detach().double()
    zeros = torch.zeros(len(counts), wide.shape[1], dtype=wide.dtype, device=wide.device)
    means = zeros.index_add(0, place, wide) / counts.unsqueeze(1)
    offsets = (wide - means[place]) / (counts - 1).double().sqrt()[place].unsqueeze(1)
    return Scatter(offsets.T @ offsets, moments(means))


def lidar_of(
    parts: list[Scatter], delta: float = LIDAR_DELTA, epsilon: float = LIDAR_EPSILON
) -> Tensor:
    """LiDAR of the views behind some sums."""
    means = pooled_moments(part.means for part in parts)
    between = means.gram - torch.outer(means.total, means.total) / means.count
    noise = torch.finfo(between.dtype).eps * means.count * means.gram.trace()
    between = torch.where(between.trace() <= noise, 0.0, between)
    within = torch.stack([part.within for part in parts]).sum(0) / means.count
    eye = torch.eye(len(within), dtype=within.dtype, device=within.device)
    factor = torch.linalg.cholesky(within + delta * eye)
    half = torch.linalg.solve_triangular(factor, between / (means.count - 1), upper=False)
    whole = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    values = torch.linalg.eigvalsh((whole + whole.mT) / 2)
    values = values.clamp_min(0)
    return entropy_rank(values[-min(means.count - 1, len(values)) :], epsilon)


def outliers_of(parts: list[Tensor], factor: float = OUTLIER_FACTOR) -> Tensor:
    """Outlier fraction of the patches whose norms are given."""
    norms = torch.cat(parts)
    return (norms > factor * norms.median()).double().mean()
