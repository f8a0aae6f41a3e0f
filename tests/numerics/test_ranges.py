"""Numbers do not depend on how large the features are, as far as their type reaches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from densescope.errors import InputError
from densescope.numerics import baselines, checks, spatial, spectrum
from densescope.numerics.regularizer import DenseStructureLoss
from densescope.numerics.replicates import estimate_structure
from densescope.numerics.structure import dense_structure

SETTINGS = {"local_clusters": 2, "global_clusters": 4, "group_size": 4}
FEW = settings(max_examples=15, deadline=None, derandomize=True)
EXPONENTS = st.integers(-990, 990)  # of two: 1e-298 to 1e298
IMAGES = st.integers(4, 9)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(seed: int, images: int = 8) -> Tensor:
    made = torch.randn(images, 9, 6, generator=seeded(seed), dtype=torch.float64)
    made[::3, 0] *= 5
    return made + 0.3


def scaled(values: Tensor, exponent: int) -> Tensor:
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half)


def structure(values: Tensor, **options: object) -> Tensor:
    found = dense_structure(values, generator=seeded(), **SETTINGS, **options)  # type: ignore[arg-type]
    return torch.stack([found.inter, found.intra, found.effective_rank])


NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "released": structure,
    "paper": lambda values: structure(values, definition="paper"),
    "pooled": lambda values: structure(values, definition="pooled"),
    "effective rank": spectrum.effective_rank,
    "RankMe": lambda values: baselines.rankme(values.mean(1)),
    "dense RankMe": baselines.dense_rankme,
    "alpha-ReQ": lambda values: baselines.alpha_req(values.mean(1), ranks=(1, 4)),
    "token cosine": spatial.token_cosine,
}


@pytest.mark.parametrize("name", NUMBERS)
@given(seed=st.integers(0, 100), exponent=EXPONENTS)
@FEW
def test_no_scale_changes_a_number(name: str, seed: int, exponent: int) -> None:
    values = features(seed)
    before, after = NUMBERS[name](values), NUMBERS[name](scaled(values, exponent))
    torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e12, 1e19, 1e25, 1e36])
def test_no_scale_changes_a_number_in_single_precision(name: str, factor: float) -> None:
    values = features(3).float()
    before, after = NUMBERS[name](values), NUMBERS[name](values * factor)
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)


def test_one_huge_patch_is_one_patch() -> None:
    values = features(1).float()
    before = structure(values)
    values[2, 3] *= 1e25
    values[5, 1] *= 1e-20
    torch.testing.assert_close(before, structure(values), rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_features_in_range() -> None:
    plain = features(2).float().requires_grad_()
    huge = (plain.detach() * 2.0**80).requires_grad_()
    structure(plain).sum().backward()
    structure(huge).sum().backward()
    assert plain.grad is not None
    assert huge.grad is not None
    torch.testing.assert_close(plain.grad, huge.grad * 2.0**80, rtol=1e-3, atol=1e-5)


def test_estimates_with_their_blocks_do_not_change_either() -> None:
    values = features(4, 16).float()
    before = estimate_structure(values, blocks=4, **SETTINGS)  # type: ignore[arg-type]
    after = estimate_structure(values * 1e25, blocks=4, **SETTINGS)  # type: ignore[arg-type]
    for name, number in before.items():
        assert number.value == pytest.approx(after[name].value, rel=1e-3, abs=1e-4), name


@given(seed=st.integers(0, 100), images=IMAGES)
@FEW
def test_rotation_and_duplication_keep_the_effective_rank(seed: int, images: int) -> None:
    values = features(seed, images).flatten(0, 1)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=seeded(seed), dtype=torch.float64)).Q
    order = torch.randperm(len(values), generator=seeded(seed))
    rank = spectrum.effective_rank(values)
    for changed in (values @ turn, values[order], torch.cat([values, values])):
        torch.testing.assert_close(rank, spectrum.effective_rank(changed), rtol=1e-9, atol=0)


def test_what_depends_on_the_scale_is_refused_outside_of_the_range() -> None:
    huge = features(0).float() * 1e20
    for refused in (
        lambda: structure(huge, normalize=False),
        lambda: spectrum.singular_values(huge[0]),
        lambda: baselines.lidar(huge[:, 0], torch.arange(8) // 2),
        lambda: checks.check_floating(features(0) * 1e-200, "features"),
    ):
        with pytest.raises(InputError, match=r"whose squares are outside the range of float"):
            refused()


def test_zeros_stay_zeros() -> None:
    values = features(0).float() * 1e25
    values[1] = 0
    found = checks.check_floating(values, "features", scaling="vectors")
    assert bool((found[1] == 0).all())
    assert float(found[0].abs().amax(-1).min()) >= 0.5
    assert float(found.abs().max()) < 1


def test_the_loss_takes_values_beyond_its_range_for_an_overflow() -> None:
    loss = DenseStructureLoss(beta=1.0, local_clusters=2, global_clusters=4, group_size=4)
    assert bool(torch.isfinite(loss((features(0).float() * 1e6).requires_grad_())))
    assert bool(torch.isnan(loss((features(0).float() * 1e19).requires_grad_())))
