"""Dimension and clusters of a sample of patches, against SciPy, scikit-learn and known shapes."""

from __future__ import annotations

import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from sklearn.metrics import davies_bouldin_score
from torch import Tensor

from densescope.errors import InputError
from densescope.numerics import intrinsic
from densescope.numerics.intervals import estimate_of_sample
from densescope.numerics.intrinsic import (
    PatchSample,
    cluster_learnability,
    davies_bouldin,
    draw_patches,
    each_set,
    sample_clusters,
    tree_dimensions,
    tree_lengths,
    two_nearest_dimension,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cube(dimensions: int, size: int = 1024, seed: int = 0) -> PatchSample:
    """Points of a cube, turned into 20 dimensions: four patches of each image."""
    generator = seeded(seed)
    points = torch.rand(size // 4, 4, dimensions, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64)).Q
    return draw_patches(points @ turn[:dimensions], size, generator=generator)


@pytest.fixture(scope="module")
def plane() -> PatchSample:
    return cube(2)


def some(sample: PatchSample, seed: int = 5) -> Tensor:
    return torch.rand(len(sample.points), generator=seeded(seed)) < 0.7


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_both_dimensions_find_that_of_a_cube(dimensions: int) -> None:
    sample = cube(dimensions)
    assert two_nearest_dimension(sample, sample.everything) == pytest.approx(dimensions, rel=0.15)
    (tree,) = tree_dimensions(sample, sample.everything.unsqueeze(0))
    assert tree == pytest.approx(dimensions, rel=0.25)


def test_a_tree_is_as_long_as_scipy_says(plane: PatchSample) -> None:
    sets = torch.stack([plane.everything, some(plane), some(plane, 6)])
    expected = [
        minimum_spanning_tree(plane.distances[kept][:, kept].numpy()).sum() for kept in sets
    ]
    assert tree_lengths(plane.distances, sets).tolist() == pytest.approx(expected)


def test_a_set_has_the_numbers_of_a_sample_of_its_own(plane: PatchSample) -> None:
    kept = some(plane)
    points = plane.points[kept].unsqueeze(1)
    alone = draw_patches(points, len(points), generator=seeded())
    assert torch.equal(alone.points, points[:, 0])
    expected = two_nearest_dimension(alone, alone.everything)
    assert two_nearest_dimension(plane, kept) == pytest.approx(expected)
    both = tree_dimensions(plane, torch.stack([plane.everything, kept]))
    assert both[1] == pytest.approx(tree_dimensions(alone, alone.everything.unsqueeze(0))[0])
    labels = sample_clusters(plane, generator=seeded())
    ours = cluster_learnability(labels)(plane, kept)
    assert ours == pytest.approx(cluster_learnability(labels[kept])(alone, alone.everything))


def test_neighbors_are_looked_up_anew_where_most_of_those_listed_do_not_count(
    plane: PatchSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = some(plane)
    expected = two_nearest_dimension(plane, kept)
    monkeypatch.setattr(intrinsic, "LISTED", 2)
    short = cube(2)
    assert short.neighbors.shape[1] == 2
    assert two_nearest_dimension(short, kept) == pytest.approx(expected)


def test_davies_bouldin_is_that_of_scikit_learn(plane: PatchSample) -> None:
    labels = sample_clusters(plane, generator=seeded())
    for kept in (plane.everything, some(plane)):
        expected = davies_bouldin_score(plane.points[kept].numpy(), labels[kept].numpy())
        assert davies_bouldin(labels)(plane, kept) == pytest.approx(expected)


def test_clusters_far_apart_are_learned_and_shuffled_labels_are_not() -> None:
    generator = seeded()
    centers = 100 * torch.randn(24, 8, generator=generator, dtype=torch.float64)
    place = torch.arange(480) % 24
    points = centers[place] + torch.randn(480, 8, generator=generator, dtype=torch.float64)
    sample = draw_patches(points.unsqueeze(1), 480, generator=generator)
    assert cluster_learnability(place)(sample, sample.everything) == 1.0
    mixed = place[torch.randperm(480, generator=generator)]
    assert cluster_learnability(mixed)(sample, sample.everything) < 0.15


def test_twins_are_left_out_and_nothing_but_twins_is_not_a_number(plane: PatchSample) -> None:
    twice = torch.cat([plane.points[:300], plane.points[:10]]).unsqueeze(1)
    sample = draw_patches(twice, len(twice), generator=seeded())
    assert two_nearest_dimension(sample, sample.everything) == pytest.approx(2, rel=0.2)
    same = draw_patches(torch.ones(8, 8, 3), 64, generator=seeded())
    assert str(two_nearest_dimension(same, same.everything)) == "nan"
    assert str(tree_dimensions(same, same.everything.unsqueeze(0))[0]) == "nan"


def test_a_sample_takes_equally_many_patches_of_images_all_over_the_set() -> None:
    features = torch.arange(40.0).reshape(40, 1, 1).expand(40, 30, 1)
    sample = draw_patches(features, 100, generator=seeded())
    assert sample.image.bincount().tolist() == [2] * 40
    assert torch.equal(sample.points[:, 0], sample.image.double())
    few = draw_patches(features, 20, generator=seeded())
    assert few.image.tolist() == list(range(0, 40, 2))
    assert torch.equal(draw_patches(features, 20, generator=seeded()).points, few.points)


def test_the_error_is_that_of_other_images(plane: PatchSample) -> None:
    number = each_set(two_nearest_dimension)
    estimate = estimate_of_sample(plane, number, images=256, blocks=8, group_size=4)
    assert len(estimate.replicates) == 8
    low, high = estimate.interval() or (0.0, 0.0)
    assert low < 2 < high
    assert high - low < 0.7
    block = plane.image // 32
    assert estimate.replicates[3] == pytest.approx(two_nearest_dimension(plane, block != 3))


def test_too_few_patches_are_refused(plane: PatchSample) -> None:
    with pytest.raises(InputError, match="the number of patches is 6; it must be at least 8"):
        draw_patches(torch.ones(2, 3, 4), 64, generator=seeded())
    none = torch.zeros_like(plane.everything)
    with pytest.raises(InputError, match="a sample of 0 patches has no neighbors to compare"):
        two_nearest_dimension(plane, none)
    with pytest.raises(InputError, match="patches of a sample is 0; it must be at least 16"):
        tree_dimensions(plane, none.unsqueeze(0))
