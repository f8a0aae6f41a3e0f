"""The pooled rank against ``lightly.loss.regularizer.DSERegularizer``, in value and gradient."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from lightly.loss.regularizer import DSERegularizer
from torch import Tensor

from densescope.errors import InputError
from densescope.numerics.assignment import assign
from densescope.numerics.regularizer import DenseStructureLoss, bounded_structure

CLUSTERS = {"local_clusters": 2, "global_clusters": 6}
GROUP = 3  # lightly's: global over local clusters


def tokens(seed: int = 0, images: int = 6, patches: int = 20, dim: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, patches, dim, generator=generator)
    return features * torch.linspace(1, 0.2, dim) + 0.3


class Given(DSERegularizer):
    """lightly's with the clusters of ours: first those of each image, then of each group."""

    def __init__(self, clusters: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__(**CLUSTERS)
        self.clusters = iter(clusters)

    def _kmeans(self, x: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
        return next(self.clusters)


@pytest.mark.parametrize("shape", [(6, 20, 24), (6, 20, 150)])
def test_on_the_same_clusters_value_and_gradient_are_those_of_lightly(
    shape: tuple[int, int, int],
) -> None:
    features = tokens(0, *shape)
    generator = torch.Generator().manual_seed(1)
    given = assign(features, normalize=True, group_size=GROUP, generator=generator, **CLUSTERS)
    nothing = torch.empty(0)
    clusters = [(nothing, labels) for labels in given.local_labels]
    clusters += [
        (centroids, labels.flatten())
        for centroids, labels in zip(
            given.global_centroids, given.global_labels.split(GROUP), strict=True
        )
    ]
    theirs = features.clone().requires_grad_()
    expected = Given(clusters)(theirs)
    expected.backward()
    ours = features.clone().requires_grad_()
    found, parts = bounded_structure(ours, features, torch.tensor(True), given, pooled=True)
    (-found).backward()
    assert -float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert theirs.grad is not None
    assert ours.grad is not None
    scale = float(theirs.grad.abs().max())
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5 * scale, rtol=0)
    assert float(parts.effective_rank.detach()) <= 1


def test_with_a_chance_of_its_own_the_mean_is_that_of_lightly() -> None:
    features = tokens()
    theirs, ours = [], []
    for seed in range(50):
        with torch.random.fork_rng():
            torch.random.default_generator.manual_seed(seed)
            theirs.append(float(DSERegularizer(**CLUSTERS)(features)))
        loss = DenseStructureLoss(1.0, rank="pooled", group_size=GROUP, seed=seed, **CLUSTERS)
        with torch.no_grad():
            ours.append(float(loss(features)))
    error = math.hypot(statistics.stdev(theirs), statistics.stdev(ours)) / math.sqrt(50)
    assert abs(statistics.fmean(ours) - statistics.fmean(theirs)) < 4 * error
    assert error < 0.01


def test_the_pooled_rank_is_far_from_its_ceiling_where_that_per_position_is_not() -> None:
    features = tokens(images=8, patches=49, dim=64)
    ranks = {}
    for rank in ("per-position", "pooled"):
        loss = DenseStructureLoss(1.0, rank=rank)  # type: ignore[arg-type]
        with torch.no_grad():
            loss(features)
        assert loss.last is not None
        ranks[rank] = float(loss.last.effective_rank)
    assert ranks["per-position"] > 0.95
    assert ranks["pooled"] < 0.9


def test_another_rank_is_refused() -> None:
    with pytest.raises(InputError, match="rank is 'total'; it must be one of per-position, pooled"):
        DenseStructureLoss(rank="total")  # type: ignore[arg-type]
