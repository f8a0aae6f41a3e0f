"""Gradients from float32 decompositions against autograd through float64 ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from densescope.numerics import single_precision, tall
from densescope.numerics.assignment import unit
from densescope.numerics.cells import cell_norms
from densescope.numerics.single_precision import (
    centered_slopes,
    row_values,
    with_mean,
    without_mean,
)
from densescope.numerics.spectrum import entropy_rank
from densescope.numerics.tall import tall_values
from densescope.numerics.terms import spread
from tests.numerics.test_single_precision import SHAPES, spread_of
from tests.numerics.test_structure import assignments, features, seeded


def apart(found: Tensor, expected: Tensor) -> float:
    """Length of the difference over that of what is expected."""
    return float((found.double() - expected).norm() / expected.norm())


def slope_of_rank(rows: Tensor) -> Tensor:
    """Gradient of the effective rank, by torch's own singular value decomposition."""
    rows = rows.double().requires_grad_()
    (slope,) = torch.autograd.grad(entropy_rank(torch.linalg.svdvals(rows)).sum(), rows)
    return slope


def slope_of_norm(rows: Tensor) -> Tensor:
    rows = rows.double().requires_grad_()
    values = torch.linalg.svdvals(rows - rows.mean(-2, keepdim=True))
    least = min(rows.shape[-2] - 1, rows.shape[-1])
    (slope,) = torch.autograd.grad(values[..., :least].sum(), rows)
    return slope


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("decay", "mean"), [(0, 0), (0.5, 1), (1, 0), (1, 30), (2, 1)])
def test_what_is_kept_is_the_gradient(shape: tuple[int, int], decay: float, mean: float) -> None:
    rows = spread_of(shape, decay, mean)
    counts = torch.full((len(rows),), rows.shape[1])
    norms, slopes = centered_slopes(rows, counts, False)
    assert apart(slopes, slope_of_norm(rows)) < 2e-4
    assert apart(norms, single_precision.centered_norms(rows, counts, False)) < 1e-6
    live = rows.clone().requires_grad_()
    (slope,) = torch.autograd.grad(entropy_rank(row_values(live)).sum(), live)
    assert slope.dtype == torch.float32
    assert apart(slope, slope_of_rank(rows)) < 2e-4
    one = rows[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(entropy_rank(tall_values(one)), one)
    assert apart(slope, slope_of_rank(rows[0])) < 2e-4


@pytest.mark.parametrize("name", ["decomposed", "tall"])
def test_easy_spectra_stay_in_single_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("float64")

    rows = spread_of((90, 40), 0.3, 1.0)
    if name == "tall":
        products = tall._decomposed
        kept = lambda rows, dtype: products(rows, dtype) if dtype == torch.float32 else refuse()  # noqa: E731
        monkeypatch.setattr(tall, "_decomposed", kept)
        tall_values(rows[0].requires_grad_())
        return
    monkeypatch.setattr(single_precision, "decomposed", refuse)
    centered_slopes(rows, torch.full((6,), 90), False)
    row_values(rows.requires_grad_())


def test_single_doubtful_clusters_are_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = spread_of((30, 64), 0.3, 1.0)
    rows[2, 5:] = rows[2, :1]  # a rank that is not full
    seen: list[int] = []
    decomposed = single_precision.decomposed

    def counted(matrices: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(matrices))
        return decomposed(matrices)

    monkeypatch.setattr(single_precision, "decomposed", counted)
    counts = torch.full((6,), 30)
    _, slopes = centered_slopes(rows, counts, False)
    assert seen == [1]
    _, expected = centered_slopes(rows.double(), counts, False)
    assert apart(slopes, expected) < 2e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [4, 40])
def test_clusters_of_all_sizes_have_the_gradient_of_each_alone(
    dim: int, dtype: torch.dtype
) -> None:
    points = torch.randn(5, 60, dim, generator=seeded())
    labels = (torch.rand(2, 5, 60, generator=seeded(1)).square() * 7).long()
    cells = labels + 8 * torch.arange(10).reshape(2, 5, 1)
    weights = torch.rand(80, generator=seeded(2), dtype=torch.float64)
    live = points.to(dtype).requires_grad_()
    norms, _ = cell_norms(live, cells, 80, normalize=False)
    (found,) = torch.autograd.grad((norms * weights).sum(), live)
    expected = torch.zeros(points.shape, dtype=torch.float64)
    for cell in range(80):
        for labeling in range(2):
            member = cells[labeling] == cell
            if member.sum() > 1:
                expected[member] += weights[cell] * slope_of_norm(points[member])
    assert apart(found, expected) < (1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("counts", [None, torch.tensor([7, 5, 2])])
def test_with_mean_is_the_transpose_of_without_mean(counts: Tensor | None) -> None:
    rows = torch.randn(3, 7, 4, generator=seeded(), dtype=torch.float64)
    if counts is not None:
        rows *= torch.arange(7)[:, None] < counts[:, None, None]
    mean, rest = without_mean(rows.clone(), counts)
    first = torch.randn(3, 1, 4, generator=seeded(1), dtype=torch.float64)
    others = torch.randn(3, 6, 4, generator=seeded(2), dtype=torch.float64)
    size = 7.0 if counts is None else counts[:, None, None].double()
    there = (mean * size**0.5 * first + (rest * others).sum(1, keepdim=True)).sum()
    back = (rows * with_mean(others, first, counts)).sum()
    torch.testing.assert_close(back, there)


def test_the_spread_has_the_gradient_of_its_formula() -> None:
    rows = features().double()
    given = assignments.assign(
        rows, local_clusters=2, global_clusters=3, group_size=4, normalize=False, generator=seeded()
    )
    assert torch.autograd.gradcheck(lambda x: spread(x, given), rows.requires_grad_())


def test_normalization_has_torchs_values_and_gradient() -> None:
    rows = torch.randn(2, 5, 4, generator=seeded())
    rows[0, 0] = 0
    rows[1, 1] *= 1e-13
    weights = torch.randn(2, 5, 4, generator=seeded(1))
    live, other = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    found, expected = unit(live, True), torch.nn.functional.normalize(other, dim=-1)
    assert torch.equal(found, expected)
    (slope,) = torch.autograd.grad((found * weights).sum(), live)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), other)
    torch.testing.assert_close(slope, wanted)
