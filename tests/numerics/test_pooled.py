"""The definition ``pooled`` against a plain NumPy version, and the replicates of its rank."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from densescope.numerics import structure
from densescope.numerics.assignment import Assignment, assign
from densescope.numerics.ranks import pooled_ranks
from densescope.numerics.replicates import estimate_structure
from densescope.numerics.structure import dense_structure, patches_of_pooled_rank, structure_of

Array = NDArray[np.float64]
SMALL: dict[str, Any] = {"local_clusters": 3, "global_clusters": 5, "group_size": 4}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(images: int = 10, patches: int = 12, dim: int = 9) -> Tensor:
    noise = torch.randn(images, patches, dim, generator=seeded(3))
    return noise + 2 * torch.randn(images, 1, dim, generator=seeded(4)) + 1


def given(rows: Tensor) -> Assignment:
    return assign(rows, normalize=True, generator=seeded(), **SMALL)


def classes(rows: Array, labels: NDArray[np.int64], centroids: Array) -> tuple[float, float]:
    """Mean distance to the nearest other centroid, and mean radius, of one clustering."""
    reach, radius = [], []
    for j in np.unique(labels):
        members = rows[labels == j]
        others = np.delete(centroids, j, axis=0)
        reach.append(np.linalg.norm(members[:, None] - others, axis=-1).min(1).mean())
        if len(members) > 1:
            values = np.linalg.svd(members - members.mean(0), compute_uv=False)
            radius.append(values.sum() / np.sqrt(len(members) - 1))
    return float(np.mean(reach)), float(np.mean(radius))


def plain(points: Tensor, chosen: Assignment) -> dict[str, float]:
    rows = points.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    local, wide, order = (
        part.numpy() for part in (chosen.local_labels, chosen.global_labels, chosen.permutations)
    )
    image = []
    for one, labels in zip(rows, local, strict=True):
        means = np.stack([one[labels == j].mean(0) for j in range(3)])
        image.append(classes(one, labels, means))
    batch = []
    for i, centroids in enumerate(chosen.global_centroids.double().numpy()):
        here = slice(4 * i, 4 * i + 4)
        group = rows[here].reshape(-1, rows.shape[-1])
        batch.append(classes(group, wide[here].reshape(-1), centroids))
    each = min(rows.shape[1], structure.POOLED_PATCHES // len(rows))
    pool = np.concatenate([one[places[:each]] for one, places in zip(rows, order, strict=True)])
    values = np.linalg.svd(pool - pool.mean(0), compute_uv=False)
    shares = values[values > 0] / values.sum()
    near, narrow = np.mean(image, 0)
    far, broad = np.mean(batch, 0)
    return {
        "inter": (near + far) / 2,
        "intra": (narrow + broad) / 2,
        "intra_image": narrow,
        "intra_batch": broad,
        "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
    }


@pytest.mark.parametrize("pool", [30_000, 50])
def test_a_plain_version_gives_the_same_numbers(pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "POOLED_PATCHES", pool)
    rows = features()
    found = dense_structure(rows, definition="pooled", generator=seeded(), **SMALL)
    estimates = estimate_structure(rows, seeds=(0,), **SMALL)
    for name, value in plain(rows, given(rows)).items():
        assert getattr(found, name).item() == pytest.approx(value, rel=1e-5), name
        assert estimates[f"pooled.{name}"].value == pytest.approx(value, rel=1e-5), name
    assert found.dse is None
    assert "pooled.dse_lambda_1" not in estimates


def test_at_most_30_000_patches_and_at_least_one_of_an_image() -> None:
    assert patches_of_pooled_rank(100, 196) == 196
    assert patches_of_pooled_rank(1024, 196) == 29
    assert patches_of_pooled_rank(40_000, 196) == 1


@pytest.mark.parametrize("dim", [9, 200])
def test_a_replicate_of_the_rank_is_that_of_the_other_images(dim: int) -> None:
    rows = features(16, 12, dim)
    chosen = given(rows)
    block = torch.arange(16) // 4
    found = pooled_ranks(rows, chosen.order, block, 4)
    for place in range(4):
        kept = block != place
        part = replace(
            chosen,
            local_labels=chosen.local_labels[kept],
            global_labels=chosen.global_labels[kept],
            global_centroids=chosen.global_centroids[kept[::4]],
            permutations=chosen.permutations[kept],
        )
        expected = structure_of(rows[kept], part, "pooled").effective_rank
        assert found[place + 1].item() == pytest.approx(expected.item(), rel=1e-5)


def test_blocks_elsewhere_change_nothing_and_nothing_is_left_without_the_only_one() -> None:
    rows = features(4)
    found = pooled_ranks(rows, given(rows).order, torch.full((4,), 1), 3)
    assert found[1] == found[3] == found[0]
    assert found[2].isnan()


def test_the_numbers_of_two_clusters_on_paper() -> None:
    """Two images, each with two clusters of two rows one apart, the clusters ten apart."""
    image = torch.tensor([[0.0, 0.0], [0.0, 1.0], [10.0, 0.0], [10.0, 1.0]])
    labels = torch.tensor([[0, 0, 1, 1]]).repeat(2, 1)
    centroids = torch.tensor([[[0.0, 0.5], [10.0, 0.5]]])
    order = torch.arange(4).repeat(2, 1)
    chosen = Assignment(labels, labels, centroids, order, 2, 2, False)
    found = structure_of(image.repeat(2, 1, 1), chosen, "pooled")
    assert found.intra_image.item() == pytest.approx(np.sqrt(0.5))
    assert found.intra_batch.item() == pytest.approx(1 / np.sqrt(3))
    assert found.inter.item() == pytest.approx(np.sqrt(100.25))
    shares = np.array([10, 1]) / 11
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert found.effective_rank.item() == pytest.approx(expected)
    # a cluster without patches has no centroid to be near to
    gap = replace(chosen, local_labels=2 * labels, local_clusters=3)
    assert structure_of(image.repeat(2, 1, 1), gap, "pooled").inter == found.inter


def test_an_image_of_one_class_has_nothing_apart() -> None:
    rows = features(4)
    chosen = given(rows)
    one = replace(chosen, local_labels=torch.zeros_like(chosen.local_labels))
    apart, together = (structure_of(rows, part, "pooled").inter for part in (chosen, one))
    wide = structure_of(rows, chosen, "paper").inter
    assert together.item() == pytest.approx(wide.item() / 2, rel=1e-5)
    assert apart > together


def test_collapsed_features_have_no_rank_left() -> None:
    found = dense_structure(torch.ones(8, 12, 9), definition="pooled", **SMALL)
    assert found.effective_rank.item() == 0
    assert found.inter.item() == pytest.approx(0, abs=1e-6)
    assert estimate_structure(torch.ones(8, 12, 9), **SMALL)["pooled.effective_rank"].value == 0
