from __future__ import annotations

import math

import pytest
import torch

from densescope.errors import InputError
from densescope.numerics.baselines import alpha_req, dense_rankme, lidar, outlier_fraction, rankme
from densescope.numerics.intervals import estimate_baseline


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rankme_is_uncentered_with_epsilon_outside() -> None:
    rows = noise(30, 6) + 3
    values = torch.linalg.svdvals(rows.double())
    shares = values / values.sum() + 1e-7
    expected = (-(shares * shares.log()).sum()).exp()
    assert rankme(rows).item() == pytest.approx(expected.item(), rel=1e-9)
    assert rankme(rows - rows.mean(0)) > 1.3 * rankme(rows)


@pytest.mark.parametrize("rows", [6, 40])
def test_the_sums_of_a_block_give_the_same_rankme(rows: int) -> None:
    vectors = noise(rows, 20)
    assert estimate_baseline("rankme", vectors).value == pytest.approx(rankme(vectors).item())


def test_dense_rankme_is_rankme_of_all_patches() -> None:
    features = noise(5, 7, 6)
    assert dense_rankme(features).item() == pytest.approx(rankme(features.flatten(0, 1)).item())


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("weighted", [True, False])
def test_alpha_of_a_power_law(decay: float, weighted: bool) -> None:
    spectrum = torch.arange(1, 121, dtype=torch.float64) ** (-decay / 2)
    # Hadamard-like rows without a mean: centering changes nothing
    vectors = torch.cat([torch.diag(spectrum), -torch.diag(spectrum)])
    assert alpha_req(vectors, weighted=weighted).item() == pytest.approx(decay)


def test_alpha_weighs_and_cuts_as_it_says() -> None:
    spectrum = torch.cat([torch.full((10,), 4.0), torch.ones(30)]).double().sqrt()
    vectors = torch.cat([torch.diag(spectrum), -torch.diag(spectrum)])
    assert alpha_req(vectors, ranks=(11, 40)).item() == pytest.approx(0)
    assert alpha_req(vectors, ranks=(1, 40)) > 0.2
    weighted, even = alpha_req(vectors), alpha_req(vectors, weighted=False)
    assert abs(weighted - even) > 0.05


def test_alpha_centers() -> None:
    vectors = noise(200, 30) + 10
    centered = alpha_req(vectors, ranks=(1, 30))
    assert centered < 1
    assert alpha_req(vectors, ranks=(1, 30), center=False) > 1.5 * centered


def test_alpha_of_a_collapsed_set_is_not_a_number() -> None:
    assert alpha_req(torch.ones(20, 6)).isnan()


def test_lidar_of_one_direction_is_one_and_of_all_is_many() -> None:
    direction = torch.eye(6)[0]
    ids = torch.arange(20).repeat_interleave(4)
    line = noise(20, 1).repeat_interleave(4, 0) * direction + 0.01 * noise(80, 6, seed=1)
    assert 1 <= lidar(line, ids) < 1.2
    ball = 5 * noise(20, 6).repeat_interleave(4, 0) + 0.1 * noise(80, 6, seed=1)
    assert 4 < lidar(ball, ids) <= 6


def test_lidar_by_definition() -> None:
    views, ids = noise(24, 5).double(), torch.arange(6).repeat_interleave(4)
    groups = views.reshape(6, 4, 5)
    means = groups.mean(1)
    between = torch.cov(means.T)
    within = torch.stack([torch.cov(group.T) for group in groups]).mean(0)
    within = within + 1e-4 * torch.eye(5)
    scale, turn = torch.linalg.eigh(within)
    root = turn @ torch.diag(scale**-0.5) @ turn.T
    values = torch.linalg.eigvalsh(root @ between @ root)
    shares = values / values.sum() + 1e-8
    expected = math.exp(-(shares * shares.log()).sum().item())
    assert lidar(views, ids).item() == pytest.approx(expected)


def test_lidar_groups_by_id_not_by_position() -> None:
    views, ids = noise(24, 5), torch.arange(6).repeat_interleave(4)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert lidar(views[order], ids[order]).item() == pytest.approx(lidar(views, ids).item())
    assert lidar(views, ids[order]).item() != pytest.approx(lidar(views, ids).item())


def test_lidar_of_equal_images_is_zero() -> None:
    views = torch.tensor([[0.1, 0.2], [0.3, -0.2]]).repeat(5, 1)
    assert lidar(views, torch.arange(5).repeat_interleave(2)).item() == 0


def test_outliers_are_counted() -> None:
    features = torch.nn.functional.normalize(noise(10, 50, 8), dim=-1)
    assert outlier_fraction(features).item() == 0
    features[:5, 0] *= 10
    assert outlier_fraction(features).item() == pytest.approx(0.01)
    assert outlier_fraction(features, factor=11).item() == 0


def test_refusals() -> None:
    with pytest.raises(InputError, match="it must have 2 axes: images dim"):
        rankme(noise(2, 3, 4))
    with pytest.raises(InputError, match="the number of images is 2; it must be at least 3"):
        alpha_req(noise(2, 8))
    with pytest.raises(InputError, match=r"ranks is \(4, 4\); it must be an increasing pair"):
        alpha_req(noise(9, 8), ranks=(4, 4))
    with pytest.raises(InputError, match="smallest number of views of an image is 1"):
        lidar(noise(3, 4), torch.tensor([0, 0, 1]))
    with pytest.raises(InputError, match="expected one integer for each of 3 views"):
        lidar(noise(3, 4), torch.tensor([0, 0]))
    with pytest.raises(InputError, match="factor is 1; it must be above 1"):
        outlier_fraction(noise(3, 4, 5), factor=1)
