from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densescope.errors import InputError
from densescope.numerics.clustering import cluster, kmeans, lloyd, seeds


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(batch: int = 3, each: int = 10) -> torch.Tensor:
    centers = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    noise = torch.randn(batch, 3 * each, 2, generator=seeded(5))
    return centers.repeat_interleave(each, 0) + noise


def test_blobs_are_found() -> None:
    result = kmeans(blobs(), 3, generator=seeded())
    for labels in result.labels:
        assert [len(part.unique()) for part in labels.split(10)] == [1, 1, 1]
        assert len(labels.unique()) == 3


def test_the_first_centroid_is_uniform_and_the_next_goes_by_distance_not_its_square() -> None:
    points = torch.tensor([0.0, 1.0, 4.0]).reshape(1, 3, 1).repeat(30_000, 1, 1)
    draws = torch.rand(30_000, 2, generator=seeded(), dtype=torch.float64)
    chosen = seeds(points, draws).squeeze(-1)
    first, second = chosen.T
    assert (first == 0).double().mean().item() == pytest.approx(1 / 3, abs=0.01)
    from_zero = second[first == 0]
    # by distance 1 : 4, by squared distance 1 : 16
    assert (from_zero == 4).double().mean().item() == pytest.approx(4 / 5, abs=0.01)
    assert (first != second).all()


def test_an_empty_cluster_keeps_its_centroid() -> None:
    points = torch.tensor([[[0.0], [1.0], [2.0]]])
    start = torch.tensor([[[1.0], [50.0]]])
    result = lloyd(points, start)
    assert result.labels.tolist() == [[0, 0, 0]]
    assert result.centroids.flatten().tolist() == [1.0, 50.0]


def test_labels_are_before_and_centroids_after_the_last_update() -> None:
    points = torch.tensor([[[0.0], [4.0], [5.0], [99.0]]])
    start = torch.tensor([[[0.0], [4.5]]])
    result = lloyd(points, start, iterations=1)
    assert result.labels.tolist() == [[0, 1, 1, 1]]
    assert result.centroids.flatten().tolist() == pytest.approx([0.0, 36.0])


def test_each_element_stops_on_its_own() -> None:
    points = torch.randn(6, 80, 4, generator=seeded(1))
    draws = torch.rand(6, 5, generator=seeded(2), dtype=torch.float64)
    together = cluster(points, draws, tolerance=0.05)
    for i in range(6):
        alone = cluster(points[i : i + 1], draws[i : i + 1], tolerance=0.05)
        assert torch.equal(together.labels[i], alone.labels[0])
        torch.testing.assert_close(together.centroids[i], alone.centroids[0])


def test_a_large_mean_changes_no_label() -> None:
    points = blobs().round(decimals=2)
    moved = kmeans(points + 2**13, 3, generator=seeded())
    expected = kmeans(((points + 2**13).double() - 2**13).float(), 3, generator=seeded())
    assert torch.equal(moved.labels, expected.labels)


def test_collapsed_points_do_not_break_it() -> None:
    result = kmeans(torch.ones(2, 9, 3), 4, generator=seeded())
    assert torch.isfinite(result.centroids).all()
    assert set(result.labels.flatten().tolist()) == {0}


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 4),
    points=st.integers(2, 12),
    dim=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_centroids_are_means_of_their_points(batch: int, points: int, dim: int, seed: int) -> None:
    rows = torch.randn(batch, points, dim, generator=seeded(seed))
    clusters = 1 + seed % points
    result = kmeans(rows, clusters, generator=seeded(seed))
    assert result.labels.shape == (batch, points)
    for b in range(batch):
        for k in range(clusters):
            members = rows[b][result.labels[b] == k]
            if len(members):
                torch.testing.assert_close(
                    result.centroids[b, k], members.mean(0), atol=1e-5, rtol=1e-4
                )


def test_the_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    kmeans(blobs(), 3, generator=seeded())
    assert torch.equal(before, torch.get_rng_state())


def test_autocast_changes_nothing() -> None:
    points = torch.randn(2, 60, 4, generator=seeded(1))
    expected = kmeans(points, 5, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        found = kmeans(points, 5, generator=seeded())
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.gpu
def test_same_seed_same_labels_on_the_gpu() -> None:
    on_cpu = kmeans(blobs(), 3, generator=seeded())
    on_gpu = kmeans(blobs().cuda(), 3, generator=seeded())
    assert on_gpu.labels.is_cuda
    assert torch.equal(on_cpu.labels, on_gpu.labels.cpu())


def test_refusals() -> None:
    with pytest.raises(InputError, match="an element of points has 9 patches for 10 clusters"):
        kmeans(torch.ones(2, 9, 3), 10, generator=seeded())
    with pytest.raises(InputError, match="it must have 3 axes: batch points dim"):
        kmeans(torch.ones(9, 3), 2, generator=seeded())
    with pytest.raises(InputError, match="iterations is 0"):
        kmeans(torch.ones(2, 9, 3), 2, generator=seeded(), iterations=0)
