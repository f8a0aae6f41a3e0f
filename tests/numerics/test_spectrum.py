from __future__ import annotations

import math

import pytest
import torch

from densescope.errors import InputError
from densescope.numerics import spectrum
from densescope.numerics.spectrum import effective_rank, singular_values


@pytest.mark.parametrize("shape", [(5, 3, 7), (5, 7, 3), (4, 4), (2, 3, 6, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_agree_with_svdvals(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> None:
    matrices = torch.randn(shape, generator=generator, dtype=dtype)
    expected = torch.linalg.svdvals(matrices.double()).flip(-1)
    torch.testing.assert_close(singular_values(matrices), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(singular_values(matrices).sum(-1), expected.sum(-1))


def test_small_values_survive_where_a_float32_gram_matrix_loses_them(
    generator: torch.Generator,
) -> None:
    turn = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64)).Q
    expected = torch.logspace(-5, 0, 40, dtype=torch.float64)
    matrix = (turn * expected) @ turn.T
    torch.testing.assert_close(singular_values(matrix), expected, rtol=1e-5, atol=0)
    single = torch.linalg.eigvalsh(matrix.float() @ matrix.float().T).clamp_min(0).sqrt()
    assert abs(single[0].double() - expected[0]) > expected[0] / 2


def test_the_noise_of_a_centered_matrix_is_an_exact_zero(generator: torch.Generator) -> None:
    rows = torch.randn(6, 20, generator=generator, dtype=torch.float64)
    values = singular_values(rows - rows.mean(0))
    assert values[0] == 0
    assert values[1] > 0.1


def test_gradients_agree_with_finite_differences(generator: torch.Generator) -> None:
    for shape in ((3, 5), (5, 3)):
        matrices = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        assert torch.autograd.gradcheck(singular_values, matrices.requires_grad_())


@pytest.mark.parametrize(
    "matrix", [torch.zeros(3, 4), torch.ones(3, 4), torch.eye(4)[:, :2] @ torch.ones(2, 4)]
)
def test_zero_values_give_finite_gradients(matrix: torch.Tensor) -> None:
    matrix = matrix.clone().requires_grad_()
    (singular_values(matrix).sum(-1) + effective_rank(matrix)).backward()  # type: ignore[no-untyped-call]
    assert matrix.grad is not None
    assert torch.isfinite(matrix.grad).all()
    assert matrix.grad.abs().max() < 10


def test_nuclear_norm_has_the_gradient_of_its_definition(generator: torch.Generator) -> None:
    matrix = torch.randn(4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    singular_values(matrix).sum(-1).backward()  # type: ignore[no-untyped-call]
    left, _, right = torch.linalg.svd(matrix.detach(), full_matrices=False)
    torch.testing.assert_close(matrix.grad, left @ right)


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(torch.eye(7)).item() == pytest.approx(7)
    assert effective_rank(torch.ones(5, 3)).item() == pytest.approx(1)
    halves = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    assert effective_rank(halves).item() == pytest.approx(2**1.5)
    assert effective_rank(torch.eye(7)[:3], fraction=True).item() == pytest.approx(1)


def test_epsilon_is_added_outside_the_division() -> None:
    spectrum = torch.diag(torch.tensor([3.0, 1.0, 0.0]))
    shares = [0.85, 0.35, 0.1]
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert effective_rank(spectrum, epsilon=0.1).item() == pytest.approx(expected)


def test_centering_caps_the_rank(generator: torch.Generator) -> None:
    corners = torch.eye(5)
    assert effective_rank(corners, center=True).item() == pytest.approx(4)
    assert effective_rank(corners, center=True, fraction=True).item() == pytest.approx(1)


def test_collapsed_rows_have_no_rank_of_rounding_noise() -> None:
    row = torch.linspace(0.1, 3, 50)
    scale = torch.linspace(1, 7, 30).unsqueeze(1)
    rows = (row * scale) / scale
    assert (rows != rows[0]).any()
    assert effective_rank(rows, center=True).item() == 0
    assert effective_rank(rows).item() == pytest.approx(1, abs=1e-4)


def test_zeros_have_rank_zero() -> None:
    assert effective_rank(torch.zeros(4, 3)).item() == 0
    assert effective_rank(torch.zeros(4, 3), epsilon=1e-7).item() == 0


def test_half_precision_and_autocast_change_nothing(generator: torch.Generator) -> None:
    rows = torch.randn(9, 5, generator=generator).half()
    expected = effective_rank(rows.double())
    torch.testing.assert_close(effective_rank(rows), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(effective_rank(rows), expected)


def test_refusals() -> None:
    with pytest.raises(InputError, match="must end in rows columns"):
        singular_values(torch.ones(3))
    with pytest.raises(InputError, match="must end in samples dim"):
        effective_rank(torch.ones(3))
    with pytest.raises(InputError, match="the number of samples is 1; it must be at least 2"):
        effective_rank(torch.ones(1, 3), center=True)
    with pytest.raises(InputError, match="epsilon is -1; it must not be negative"):
        effective_rank(torch.ones(2, 3), epsilon=-1)


@pytest.mark.parametrize("shape", [(9, 40, 70), (3, 3, 70, 40)])
def test_a_batch_on_the_threads_of_the_host_has_the_same_spectrum(shape: tuple[int, ...]) -> None:
    rows = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = rows @ rows.mT if shape[-2] < shape[-1] else rows.mT @ rows
    values, vectors = spectrum._eigen_on_host(gram, vectors=True)
    (alone,) = spectrum._eigen_on_host(gram, vectors=False)
    torch.testing.assert_close(alone, torch.linalg.eigvalsh(gram))
    torch.testing.assert_close(values, alone)
    torch.testing.assert_close(vectors * values.unsqueeze(-2) @ vectors.mT, gram)


@pytest.mark.gpu
@pytest.mark.parametrize("side", [20, 66, 130])
def test_spectra_on_a_gpu_are_those_of_the_cpu(side: int) -> None:
    rows = torch.randn(40, side, 2 * side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(singular_values(rows.cuda()).cpu(), singular_values(rows))
