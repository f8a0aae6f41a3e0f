"""The numbers that req-metrics has too, by its published definitions, written out in NumPy.

The package is not on the index, so its definitions were read in its repository
(angeloskanatas/req-metrics, ``src/req_metrics/metrics``) and are re-derived here, each under its
name there. Where a default differs, the test gives ours the settings of theirs, or says by how much
the numbers differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist
from torch import Tensor

from densescope.estimate import Estimate
from densescope.metrics import ScoreSettings, compute_metrics
from densescope.metrics.drift import gram_drift
from densescope.numerics.baselines import alpha_req, lidar, outlier_fraction, rankme
from densescope.numerics.intrinsic import (
    davies_bouldin,
    draw_patches,
    sample_clusters,
    tree_dimensions,
)
from tests.photos import photo_features

Matrix = NDArray[np.float64]
IMAGES, SIDE = 24, 64
SETTINGS = ScoreSettings(global_clusters=6, lidar_images=0)


def drawn() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(IMAGES, 36, 24, generator=generator).cumsum(1)
    return smooth + torch.randn(smooth.shape, generator=generator) + 4, smooth.mean(1) + 1


@pytest.fixture(scope="module", params=["random", pytest.param("photos", marks=pytest.mark.shared)])
def features(request: pytest.FixtureRequest, shared: Path) -> tuple[Tensor, Tensor]:
    return drawn() if request.param == "random" else photo_features(shared, IMAGES, (SIDE, SIDE))


@pytest.fixture(scope="module")
def ours(features: tuple[Tensor, Tensor]) -> dict[str, Estimate]:
    patches, image = features
    return compute_metrics([patches], image, SETTINGS, device=torch.device("cpu"))["-1"]


@pytest.fixture(scope="module")
def patches(features: tuple[Tensor, Tensor]) -> Matrix:
    return features[0].double().numpy()


@pytest.fixture(scope="module")
def image(features: tuple[Tensor, Tensor]) -> Matrix:
    return features[1].double().numpy()


def unit(vectors: Matrix) -> Matrix:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def entropy_rank(weights: Matrix) -> float:
    shares = weights[weights > 0] / weights.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def effective_rank(points: Matrix, center: bool) -> float:
    centered = points - points.mean(0) * center
    return entropy_rank(np.linalg.svd(centered, compute_uv=False))


def mean_cosine(points: Matrix) -> float:
    cosines = unit(points) @ unit(points).T
    return float(cosines[~np.eye(len(points), dtype=bool)].mean())


def test_effective_rank(ours: dict[str, Estimate], patches: Matrix, image: Matrix) -> None:
    """Without centering it is RankMe; with it, their default, the rank of `pooled`."""
    pooled = unit(patches).reshape(-1, patches.shape[-1])
    assert ours["rankme"].value == pytest.approx(effective_rank(image, False), rel=1e-4)
    assert ours["dense_rankme"].value == pytest.approx(
        effective_rank(patches.reshape(pooled.shape), False), rel=1e-4
    )
    found = ours["pooled.effective_rank"].value
    assert found == pytest.approx(effective_rank(pooled, True), rel=1e-4)
    assert found != pytest.approx(effective_rank(pooled, False), rel=1e-2)


def test_alpha_req(patches: Matrix) -> None:
    """Their ranks 11 to 100 (indices 10 to 99), weighted by 1 / rank; ours start at 4.

    Theirs refuses eigenvalues of zero in that range, ours ends before them.
    """
    points = patches.reshape(-1, patches.shape[-1])
    values = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    values = values[values > 1e-10 * values[0]]
    rank = np.arange(11, len(values) + 1)
    slope = np.polyfit(np.log(rank), np.log(values[10:]), 1, w=rank**-0.5)[0]
    vectors = torch.from_numpy(points)
    assert alpha_req(vectors, ranks=(11, 100)).item() == pytest.approx(-slope, rel=1e-6)
    assert alpha_req(vectors).item() != pytest.approx(-slope, rel=1e-2)


def test_lidar(features: tuple[Tensor, Tensor]) -> None:
    """Unbiased estimates, delta 1e-4; the epsilon of ours is 1e-8, theirs has none."""
    views = features[0].double()
    count, each, dim = views.shape
    offsets = (views - views.mean(1, keepdim=True)).reshape(-1, dim).numpy()
    within = offsets.T @ offsets / (count * (each - 1)) + 1e-4 * np.eye(dim)
    values, axes = np.linalg.eigh(within)
    root = axes / np.sqrt(values) @ axes.T
    spread = np.linalg.eigvalsh(root @ np.cov(views.mean(1).numpy().T) @ root)
    expected = entropy_rank(spread[-min(dim, count - 1) :])
    ids = torch.arange(count).repeat_interleave(each)
    assert lidar(views.flatten(0, 1), ids).item() == pytest.approx(expected, rel=1e-5)


def test_token_cosine(ours: dict[str, Estimate], patches: Matrix) -> None:
    """Of all patches; theirs draws 64 of an image that has more."""
    assert patches.shape[1] <= 64
    expected = np.mean([mean_cosine(tokens) for tokens in patches])
    assert ours["token_cosine"].value == pytest.approx(expected, abs=1e-6)


def test_cls_patch_cosine(ours: dict[str, Estimate], patches: Matrix, image: Matrix) -> None:
    cosines = (unit(patches) * unit(image)[:, None]).sum(-1)
    assert ours["image_patch_cosine"].value == pytest.approx(cosines.mean(), abs=1e-6)


def test_token_gram_drift(ours: dict[str, Estimate], features: tuple[Tensor, Tensor]) -> None:
    """Theirs counts the diagonal, which never moves: (n - 1) / n of ours, which samples pairs."""
    moved = features[0] + 0.3 * features[0].roll(1, 1)
    other = compute_metrics([moved], None, SETTINGS, device=torch.device("cpu"))["-1"]
    grams = [unit(part.double().numpy()) for part in (features[0], moved)]
    first, second = (part @ part.transpose(0, 2, 1) for part in grams)
    squares = (first - second) ** 2
    count = features[0].shape[1]
    found = gram_drift(other["token_cosine"], ours["token_cosine"])
    error = squares.std() / 4096**0.5
    assert found.value * (count - 1) / count == pytest.approx(squares.mean(), abs=3 * error)


def test_token_norm_outliers() -> None:
    """A norm above 3 medians; theirs takes the median of the image, ours that of all images."""
    tokens = drawn()[0][:1]
    tokens[0, ::9] *= 10
    norms = np.linalg.norm(tokens[0].double().numpy(), axis=1)
    middle = np.sort(norms)[(len(norms) - 1) // 2]  # the lower one, as PyTorch's median
    expected = float((norms > 3 * middle).mean())
    assert expected > 0
    assert outlier_fraction(tokens).item() == pytest.approx(expected)


def test_embedding_norm(ours: dict[str, Estimate], patches: Matrix) -> None:
    """The mean, and "cv" of its extras."""
    norms = np.linalg.norm(patches, axis=-1)
    assert ours["patch_norm"].value == pytest.approx(norms.mean(), rel=1e-6)
    assert ours["patch_norm_variation"].value == pytest.approx(norms.std() / norms.mean(), rel=1e-5)


def test_intrinsic_dimension_twonn(ours: dict[str, Estimate], patches: Matrix) -> None:
    """Slope through the origin of the lowest 90 % of the ratios; all patches fit our sample."""
    points = unit(patches).reshape(-1, patches.shape[-1])
    assert len(points) <= 1024
    near = np.sort(cdist(points, points), axis=1)[:, 1:3]
    ratios = np.sort(np.log(near[:, 1] / near[:, 0]))
    x = ratios[: int(0.9 * len(ratios))]
    y = -np.log(1 - np.arange(1, len(x) + 1) / len(ratios))
    assert ours["twonn"].value == pytest.approx(float((x * y).sum() / (x * x).sum()), rel=1e-4)


def test_intrinsic_dimension_mst(patches: Matrix) -> None:
    """``1 / (1 - slope)`` of tree lengths; theirs has 15 sizes drawn anew, ours 4 nested ones."""
    sample = draw_patches(
        torch.from_numpy(patches), 1024, generator=torch.Generator().manual_seed(0)
    )
    points = sample.points.numpy()
    parts = [points[:: 2**level] for level in range(4)]
    lengths = [minimum_spanning_tree(cdist(part, part)).sum() for part in parts]
    slope = np.polyfit(np.log([len(part) for part in parts]), np.log(lengths), 1)[0]
    (found,) = tree_dimensions(sample, sample.everything.unsqueeze(0))
    assert found == pytest.approx(1 / (1 - slope), rel=1e-6)

    generator, sizes, lengths = np.random.default_rng(0), [], []
    step = len(points) // 16
    for size in range(step, len(points), step):
        part = points[generator.choice(len(points), size, replace=False)]
        sizes.append(size)
        lengths.append(minimum_spanning_tree(cdist(part, part)).sum())
    theirs = 1 / (1 - np.polyfit(np.log(sizes), np.log(lengths), 1)[0])
    assert found == pytest.approx(theirs, rel=0.5)


def test_cluster_quality(patches: Matrix) -> None:
    """The Davies-Bouldin index of given clusters; they have 1,024 clusters, we have 24."""
    generator = torch.Generator().manual_seed(0)
    sample = draw_patches(torch.from_numpy(patches), 1024, generator=generator)
    labels = sample_clusters(sample, generator=generator)
    points, kinds = sample.points.numpy(), np.unique(labels.numpy())
    members = [points[labels.numpy() == kind] for kind in kinds]
    centers = np.stack([part.mean(0) for part in members])
    spread = np.array([np.linalg.norm(part - part.mean(0), axis=1).mean() for part in members])
    apart = cdist(centers, centers) + np.diag(np.full(len(kinds), np.inf))
    expected = ((spread[:, None] + spread[None]) / apart).max(1).mean()
    assert davies_bouldin(labels)(sample, sample.everything) == pytest.approx(expected, rel=1e-6)


def test_rankme_adds_its_epsilon_and_they_do_not(image: Matrix) -> None:
    bare = effective_rank(image, False)
    found = rankme(torch.from_numpy(image)).item()
    assert found != pytest.approx(bare, rel=1e-7)
    assert rankme(torch.from_numpy(image), epsilon=0).item() == pytest.approx(bare, rel=1e-6)
