from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from benchmarks import plain
from torch import Tensor

from densescope.definitions import DEFINITION_NAMES
from densescope.errors import InputError
from densescope.numerics import assignment as assignments
from densescope.numerics import workers
from densescope.numerics.assignment import Assignment
from densescope.numerics.structure import DenseStructure, dense_structure, structure_of
from densescope.numerics.terms import cell_norms, spread

SMALL: dict[str, Any] = {"local_clusters": 3, "global_clusters": 5, "group_size": 4}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(images: int = 10, patches: int = 12, dim: int = 9) -> Tensor:
    noise = torch.randn(images, patches, dim, generator=seeded(3))
    return noise + torch.randn(images, 1, dim, generator=seeded(4))


def numbers(result: DenseStructure) -> dict[str, Tensor]:
    pairs = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in pairs.items() if value is not None}


def four_corners() -> tuple[Tensor, Assignment]:
    """Two images, each with two clusters of two rows one apart, the clusters ten apart."""
    image = torch.tensor([[0.0, 0.0], [0.0, 1.0], [10.0, 0.0], [10.0, 1.0]])
    labels = torch.tensor([[0, 0, 1, 1]]).repeat(2, 1)
    centroids = torch.tensor([[[0.0, 0.5], [10.0, 0.5]]])
    order = torch.arange(4).repeat(2, 1)
    return image.repeat(2, 1, 1), Assignment(labels, labels, centroids, order, 2, 2, False)


def test_paper_definition_on_paper() -> None:
    result = structure_of(*four_corners(), "paper")
    # local: two rows one apart have the one singular value 1/sqrt 2, over n - 1 = 1
    assert result.intra_image.item() == pytest.approx(math.sqrt(0.5))
    # global: four rows, singular value sqrt(4 / 4) = 1, over 3
    assert result.intra_batch.item() == pytest.approx(1 / 3)
    assert result.intra.item() == pytest.approx((math.sqrt(0.5) + 1 / 3) / 2)
    assert result.inter.item() == pytest.approx(math.sqrt(100.25))
    # both images have the same patch at a position: rank 1, and 0 where it is the origin
    assert result.effective_rank.item() == pytest.approx(3 / 4)
    assert result.dse is None


def test_released_definition_on_paper() -> None:
    result = structure_of(*four_corners(), "released")
    s = math.sqrt(25.25)
    assert result.intra_image.item() == pytest.approx(math.sqrt(0.5) / math.sqrt(2) / s)
    assert result.intra_batch.item() == pytest.approx(1 / math.sqrt(3) / s)
    assert result.inter.item() == pytest.approx(math.sqrt(100.25) / s)
    assert result.effective_rank.item() == pytest.approx(3 / 8)
    assert result.dse is not None
    expected = result.inter + result.effective_rank - (result.intra_image + result.intra_batch) / 2
    assert result.dse.item() == pytest.approx(expected.item())


def test_single_rows_have_no_radius() -> None:
    points, given = four_corners()
    lonely = torch.tensor([[0, 1, 1, 1]]).repeat(2, 1)
    result = structure_of(points, replace(given, local_labels=lonely), "paper")
    members = points[0, 1:] - points[0, 1:].mean(0)
    assert result.intra_image.item() == pytest.approx(
        torch.linalg.svdvals(members).sum().item() / 2
    )


def test_without_any_two_row_cluster_the_released_radius_is_one() -> None:
    points = features(4, 2, 6)
    local = torch.tensor([[0, 1]]).repeat(4, 1)
    wide = torch.arange(8).reshape(4, 2)
    given = Assignment(local, wide, points.reshape(1, 8, 6), local, 2, 4, False)
    result = structure_of(points, given, "released")
    s = spread(points, given).item()
    assert result.intra_image.item() == pytest.approx(1 / s)
    assert result.intra_batch.item() == pytest.approx(1 / s)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("dim", [4, 40])
def test_cluster_norms_agree_with_one_svd_per_cluster(
    dim: int, dtype: torch.dtype, apart: float
) -> None:
    points = torch.randn(5, 60, dim, generator=seeded())
    labels = (torch.rand(5, 60, generator=seeded(1)).square() * 7).long()
    labels[0] = 6
    cells = labels + 8 * torch.arange(len(labels)).unsqueeze(1)
    norms, counts = cell_norms(points.to(dtype), cells, len(labels) * 8, normalize=False)
    for b in range(5):
        for k in range(8):
            members = points[b][labels[b] == k].double()
            assert counts[8 * b + k] == len(members)
            offsets = members - members.mean(0) if len(members) else members
            expected = torch.linalg.svdvals(offsets).sum() if len(members) > 1 else 0.0
            assert norms[8 * b + k].item() == pytest.approx(float(expected), rel=apart)


def test_two_clusterings_at_once_give_the_norms_of_each_alone() -> None:
    points = features(4, 9, 6)
    labels = torch.randint(0, 5, (2, 4, 9), generator=seeded())
    labels[1] += 5
    norms, counts = cell_norms(points, labels, 10, normalize=True)
    for one, start in zip(labels, (0, 5), strict=True):
        alone, sizes = cell_norms(points, one - start, 5, normalize=True)
        assert torch.allclose(norms[start : start + 5], alone, rtol=1e-5)
        assert torch.equal(counts[start : start + 5], sizes)


def test_the_plain_version_agrees_on_average() -> None:
    rows = features(8, 16, 12)
    settings = {"local_clusters": 2, "global_clusters": 4, "group_size": 4}
    ours = [dense_structure(rows, generator=seeded(seed), **settings) for seed in range(60)]  # type: ignore[arg-type]
    theirs = [plain.estimator(rows, seeded(seed), **settings) for seed in range(60)]
    for name in plain.Plain._fields:
        a = torch.stack([getattr(result, name) for result in ours])
        b = torch.stack([getattr(result, name) for result in theirs])
        assert (a.mean() - b.mean()).abs() < 4 * ((a.var() + b.var()) / 60).sqrt(), name


@pytest.mark.parametrize("definition", DEFINITION_NAMES)
def test_same_seed_same_numbers(definition: Any) -> None:
    first, again = (
        dense_structure(features(), definition=definition, generator=seeded(1), **SMALL)
        for _ in range(2)
    )
    other = dense_structure(features(), definition=definition, generator=seeded(2), **SMALL)
    assert numbers(first) == numbers(again)
    assert first.inter != other.inter
    default = dense_structure(features(), definition=definition, **SMALL)
    zero = dense_structure(features(), definition=definition, generator=seeded(0), **SMALL)
    assert numbers(default) == numbers(zero)


def test_memory_and_cores_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured() -> tuple[DenseStructure, Tensor]:
        rows = features().requires_grad_()
        result = dense_structure(rows, **SMALL)
        assert result.dse is not None
        return result, torch.autograd.grad(result.dse, rows)[0]

    expected, slope = measured()
    threads = torch.get_num_threads()
    monkeypatch.setattr(assignments, "CHUNK_NUMBERS", 1)
    monkeypatch.setattr(workers, "PIECE_NUMBERS", 1)
    monkeypatch.setattr(workers, "worker_count", lambda tensor: 3)
    found, other = measured()
    assert torch.get_num_threads() == threads
    for name, value in numbers(found).items():
        torch.testing.assert_close(value, getattr(expected, name))
    torch.testing.assert_close(other, slope)


def test_the_last_group_may_be_smaller() -> None:
    rows = features(9)
    given = assignments.assign(
        rows, local_clusters=3, global_clusters=5, group_size=4, normalize=True, generator=seeded()
    )
    assert given.global_centroids.shape == (3, 5, 9)
    assert given.local_labels.shape == given.global_labels.shape == (9, 12)
    assert torch.isfinite(dense_structure(rows, **SMALL).inter)


def test_permutations_hold_every_position_once() -> None:
    orders = assignments.permute(50, 7, seeded())
    assert (orders.sort(1).values == torch.arange(7)).all()
    assert len({tuple(order) for order in orders.tolist()}) > 40


def test_the_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    dense_structure(features(), **SMALL)
    assert torch.equal(before, torch.get_rng_state())


def test_autocast_changes_nothing() -> None:
    expected = dense_structure(features(), **SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        assert numbers(dense_structure(features(), **SMALL)) == numbers(expected)


@pytest.mark.parametrize("definition", DEFINITION_NAMES)
def test_gradients_agree_with_finite_differences(definition: Any) -> None:
    rows = features(6, 5, 4).double()
    given = assignments.assign(
        rows, local_clusters=2, global_clusters=3, group_size=4, normalize=True, generator=seeded()
    )

    def total(values: Tensor) -> Tensor:
        result = structure_of(values, given, definition)
        return result.inter - result.intra + result.effective_rank

    assert torch.autograd.gradcheck(total, rows.requires_grad_())


def test_gradients_are_finite_where_values_vanish() -> None:
    rows = features().clone()
    rows[0] = rows[0, :1]
    rows[1, :, 1:] = 0
    rows.requires_grad_()
    result = dense_structure(rows, **SMALL)
    assert result.dse is not None
    result.dse.backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()


def test_collapse_is_not_a_number_where_the_definition_divides_by_zero() -> None:
    collapsed = torch.ones(8, 12, 9)
    released = dense_structure(collapsed, **SMALL)
    assert released.inter.isnan()
    assert released.intra.isnan()
    assert released.effective_rank.item() == pytest.approx(1 / 8)
    paper = dense_structure(collapsed, definition="paper", **SMALL)
    assert paper.inter.item() == pytest.approx(0, abs=1e-6)
    assert paper.intra.item() == pytest.approx(0, abs=1e-6)
    assert paper.effective_rank.item() == pytest.approx(1, abs=1e-5)


def test_paper_takes_fewer_patches_and_draws_for_the_effective_rank() -> None:
    rows = features()
    whole = dense_structure(rows, definition="paper", **SMALL)
    few = dense_structure(rows, definition="paper", rank_patches=4, rank_draws=2, **SMALL)
    assert few.effective_rank < 4 < whole.effective_rank
    assert few.inter == whole.inter


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtype_is_kept_and_half_is_upcast(dtype: torch.dtype) -> None:
    result = dense_structure(features().to(dtype), **SMALL)
    expected = torch.float32 if dtype == torch.float16 else dtype
    assert all(v.dtype == expected and v.ndim == 0 for v in numbers(result).values())


@pytest.mark.gpu
@pytest.mark.parametrize("definition", DEFINITION_NAMES)
def test_the_gpu_gives_the_numbers_of_the_cpu(definition: Any) -> None:
    on_cpu = dense_structure(features(), definition=definition, **SMALL)
    on_gpu = dense_structure(features().cuda(), definition=definition, **SMALL)
    for name, value in numbers(on_gpu).items():
        assert value.is_cuda
        torch.testing.assert_close(value.cpu(), getattr(on_cpu, name), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"features": torch.ones(1, 9, 3)}, "features hold one image; the estimator compares"),
        ({"features": torch.ones(4, 9)}, "it must have 3 axes: images patches dim"),
        ({"features": torch.ones(4, 2, 3)}, "an image has 2 patches for 3 clusters; ask for"),
        ({"features": torch.ones(9, 4, 3)}, "the last group has 4 patches for 5 clusters"),
        ({"features": torch.full((4, 9, 3), torch.nan)}, "has 108 NaN or infinite values of 108"),
        ({"definition": "mine"}, "definition is 'mine'; it must be one of released, paper, pooled"),
        ({"global_clusters": 1}, "global_clusters is 1; it must be at least 2"),
        ({"local_labels": torch.zeros(10, 12)}, "give local_labels, global_labels, global_cent"),
        ({"rank_patches": 3}, "rank_patches belongs to definition='paper'"),
        ({"rank_draws": 13}, "rank_draws is 13; there are only 12"),
        ({"rank_draws": 0}, "rank_draws is 0; it must be at least 1"),
    ],
)
def test_refusals(arguments: dict[str, Any], sentence: str) -> None:
    settings = {"features": features(), **SMALL, **arguments}
    with pytest.raises(InputError) as caught:
        dense_structure(settings.pop("features"), **settings)
    assert sentence in str(caught.value)


def test_given_parts_must_fit() -> None:
    rows = features()
    given = {
        "local_labels": torch.zeros(10, 12, dtype=torch.long),
        "global_labels": torch.zeros(10, 12, dtype=torch.long),
        "global_centroids": torch.zeros(3, 5, 9),
        "permutations": torch.arange(12).repeat(10, 1),
    }
    dense_structure(rows, **SMALL, **given)
    twice = {**given, "permutations": torch.zeros(10, 12, dtype=torch.long)}
    with pytest.raises(InputError, match="permutations must hold every patch position once"):
        dense_structure(rows, **SMALL, **twice)
    flat = {**given, "global_centroids": torch.zeros(15, 9)}
    with pytest.raises(InputError, match=r"global_centroids has shape \(15, 9\); expected \(3, 5"):
        dense_structure(rows, **SMALL, **flat)
