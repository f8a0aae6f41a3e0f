"""Float32 spectra against float64 ones: what is kept is right, what is not right is not kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from densescope.numerics import single_precision
from densescope.numerics.single_precision import centered_norms, row_values, without_mean
from densescope.numerics.spectrum import entropy_rank, values_of

# rows more than columns, fewer, as many
SHAPES = [(90, 40), (30, 64), (40, 40)]


def spread_of(shape: tuple[int, int], decay: float, mean: float, seed: int = 0) -> Tensor:
    """Rows of unit length, spectrum ``i^-decay``, their mean ``mean`` times their spread away."""
    rows, dim = shape
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(6, rows, dim, generator=generator)
    noise *= torch.arange(1, dim + 1).float() ** -decay
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    away = torch.nn.functional.normalize(torch.randn(6, 1, dim, generator=generator), dim=-1)
    noise = noise @ turn
    length = noise.norm(dim=-1, keepdim=True).mean(1, keepdim=True)
    return torch.nn.functional.normalize(noise + mean * length * away, dim=-1)


def exact_rows(rows: Tensor) -> Tensor:
    return values_of(rows.double())


def exact_centered(rows: Tensor) -> Tensor:
    wide = rows.double()
    return values_of(wide - wide.mean(1, keepdim=True)).sum(-1)


def sizes(rows: Tensor) -> Tensor:
    return torch.full((len(rows),), rows.shape[1])


@pytest.fixture
def repairs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many matrices went to float64, call by call."""
    seen: list[int] = []

    def counted(matrices: Tensor) -> Tensor:
        seen.append(len(matrices))
        return values_of(matrices)

    monkeypatch.setattr(single_precision, "values_of", counted)
    return seen


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("mean", [0.0, 1.0, 100.0])
def test_rank_and_sum_agree_with_float64(shape: tuple[int, int], decay: float, mean: float) -> None:
    rows = spread_of(shape, decay, mean)
    found, expected = row_values(rows), exact_rows(rows)
    assert found.dtype == torch.float64
    torch.testing.assert_close(entropy_rank(found), entropy_rank(expected), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.sum(-1), expected.sum(-1), rtol=2e-6, atol=0)
    norms = centered_norms(rows, sizes(rows), False)
    torch.testing.assert_close(norms, exact_centered(rows), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_a_large_mean_does_not_send_everything_to_float64(
    shape: tuple[int, int], mean: float, repairs: list[int]
) -> None:
    rows = spread_of(shape, 0.5, mean)
    row_values(rows)
    centered_norms(rows, sizes(rows), False)
    assert repairs == []


@pytest.mark.parametrize(
    "rows",
    [
        torch.ones(2, 9, 5),
        torch.zeros(2, 9, 5),
        torch.ones(2, 9, 5) * 1e-25,
        torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(1)) * 1e-25,
        torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(1)) * 2e-20,
        torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(1)) * 1e25,
        torch.eye(40).repeat(1, 1, 1)[:, :, :3] @ torch.ones(3, 40),
    ],
    ids=["collapsed", "zeros", "tiny collapsed", "tiny", "squares nearly lost", "huge", "rank one"],
)
def test_what_float32_cannot_hold_goes_to_float64(rows: Tensor, repairs: list[int]) -> None:
    size = rows.double().norm().clamp_min(1e-300)
    found, expected = row_values(rows) / size, exact_rows(rows) / size
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    found, expected = centered_norms(rows, sizes(rows), False) / size, exact_centered(rows) / size
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert sum(repairs) > 0


def test_nearly_collapsed_rows_keep_what_a_float64_gram_matrix_loses(repairs: list[int]) -> None:
    rows = torch.ones(4, 50, 24) / 24**0.5
    generator = torch.Generator().manual_seed(0)
    rows = rows + 1e-7 * torch.randn(4, 50, 24, generator=generator)
    norms = centered_norms(rows, sizes(rows), False)
    torch.testing.assert_close(norms, exact_centered(rows), rtol=1e-5, atol=0)
    found, expected = row_values(rows), torch.linalg.svdvals(rows.double()).flip(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert repairs == []
    assert (exact_rows(rows)[:, 0] == 0).all()


def test_one_matrix_in_doubt_is_repaired_alone(repairs: list[int]) -> None:
    rows = spread_of((50, 20), 0.0, 0.0)
    rows[2] = spread_of((50, 20), 4.0, 0.0)[2]
    torch.testing.assert_close(row_values(rows), exact_rows(rows), rtol=1e-5, atol=1e-9)
    assert repairs == [1]


def test_the_bound_holds_for_what_is_kept() -> None:
    """Over spectra from flat to steep, the error stays below a hundredth of what is promised."""
    for decay in (0.0, 0.3, 0.6, 0.9, 1.2, 1.5):
        for seed in range(4):
            rows = spread_of((120, 60), decay, float(seed), seed)
            mean, rest = without_mean(rows)
            gram = rest.mT @ rest
            values, sure, _ = single_precision._checked(gram, 1)
            expected = values_of(rest.double())
            error = (values.sum(-1) / expected.sum(-1) - 1).abs()
            rank = (entropy_rank(values) / entropy_rank(expected) - 1).abs()
            assert (error[sure] < single_precision.TRUST / 20).all()
            assert (rank[sure] < single_precision.TRUST / 20).all()
            assert mean.shape == (6, 1, 60)


def test_padding_changes_no_norm(repairs: list[int]) -> None:
    rows = spread_of((20, 30), 0.3, 2.0)
    counts = torch.tensor([20, 2, 3, 19, 11, 7])
    norms = centered_norms(rows, counts, True)
    assert repairs == []
    doubles = centered_norms(rows.double(), counts, True)
    for place, count in enumerate(counts.tolist()):
        expected = exact_centered(rows[place : place + 1, :count])
        torch.testing.assert_close(norms[place : place + 1], expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(doubles[place : place + 1], expected, rtol=1e-9, atol=0)


def test_without_mean_is_an_orthogonal_change_of_rows() -> None:
    rows = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0)).double() + 5
    mean, rest = without_mean(rows)
    torch.testing.assert_close(mean, rows.mean(1, keepdim=True))
    offsets = rows - rows.mean(1, keepdim=True)
    torch.testing.assert_close(rest.mT @ rest, offsets.mT @ offsets)


@pytest.mark.parametrize("function", [row_values, lambda x: centered_norms(x, sizes(x), False)])
def test_gradients_are_those_of_float64(function: Callable[[Tensor], Tensor]) -> None:
    rows = spread_of((9, 5), 0.2, 1.0)
    single = rows.clone().requires_grad_()
    function(single).sum().backward()  # type: ignore[no-untyped-call]
    double = rows.double().requires_grad_()
    function(double).sum().backward()  # type: ignore[no-untyped-call]
    assert single.grad is not None
    assert double.grad is not None
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-6)


def test_symmetric_blocks_make_the_whole_gram_matrix() -> None:
    for dim in (1, 3, 10, 17):
        rows = torch.randn(2, 8, dim, generator=torch.Generator().manual_seed(dim))
        torch.testing.assert_close(single_precision.gram_of_columns(rows), rows.mT @ rows)
