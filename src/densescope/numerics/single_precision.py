"""Spectra from float32 Gram matrices, checked one by one; float64 where the check fails.

Both functions first change the rows by a rotation that leaves singular values alone: of ``n`` rows,
one becomes ``sqrt(n) * mean`` and the other ``n - 1`` are free of it (a Householder reflection
that takes the vector of ones to the first axis). So the one direction that is large in
features, their mean, and the one that is zero in centered clusters, never meet the others:
float32 has to resolve what is left against its own largest value only.

A float32 eigenvalue is trusted to ``ROUNDING * eps * scale``, ``scale`` being the largest
eigenvalue beside the mean's. A spectrum is kept where even the worst case, all of them wrong by
that much in the worst direction, changes neither the sum of the singular values nor their
effective rank by more than a fraction ``TRUST`` (first order). Rounding falls either way: the tests
hold what is kept to a twentieth of that. On an accelerator, for float64 features and for
gradients, everything is float64.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from densescope.numerics.spectrum import values_of

# What a float32 eigenvalue may be wrong by, in units of eps * scale: chosen from what was seen, not
# proven. The largest of a flat spectrum was seen wrong by 33, which moves its sum by 5e-8.
ROUNDING = 8.0
TRUST = 3e-4
# Sums of squares outside have left, or may leave, what float32 can hold.
TAME = (1e-24, 1e30)
BLOCKS = 4


def in_single(tensor: Tensor) -> bool:
    """Whether spectra of a tensor may be computed in float32 first."""
    recorded = tensor.requires_grad and torch.is_grad_enabled()
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not recorded


def row_values(rows: Tensor) -> Tensor:
    """Singular values of matrices ``batch rows dim`` as they are, ascending, float64."""
    if not in_single(rows) or rows.shape[1] < 2:
        return values_of(rows)
    count, dim = rows.shape[1:]
    mean, rest = without_mean(rows)
    first = mean * count**0.5
    if count <= dim:
        # the mean comes first: LAPACK then keeps it apart from the small eigenvalues
        every = torch.cat([first, rest], 1)
        gram = every @ every.mT
    else:
        gram = _turned(gram_of_columns(rest), first)
    values, sure = _checked(gram, 2 if min(count, dim) > 1 else 1)
    return _repaired(values, sure, rows)


def centered_norms(rows: Tensor, counts: Tensor, padded: bool) -> Tensor:
    """Nuclear norms of matrices ``batch rows dim`` minus their mean row, float64.

    Args:
        rows: at least two, those that belong to the matrix first.
        counts: ``batch``, how many do, at least two.
        padded: whether any count is below the number of rows.
    """
    _, rest = without_mean(rows, counts if padded else None)
    if not in_single(rows):
        return values_of(rest).sum(-1)
    few = rest.shape[1] <= rest.shape[2]
    gram = rest @ rest.mT if few else gram_of_columns(rest)
    missing = (rest.shape[1] + 1 - counts).unsqueeze(1) if padded and few else None
    values, sure = _checked(gram, 1, missing)
    return _repaired(values, sure, rest).sum(-1)


def without_mean(rows: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean row, and one row less with the singular values of the centered matrix.

    ``x_i - x_1 - (mean - x_1) * sqrt(n) / (sqrt(n) - 1)`` for ``i`` from 2: differences come
    first, so that rows which are nearly the same lose nothing.
    """
    first = rows[:, :1]
    rest = rows[:, 1:] - first
    size = torch.tensor(float(rows.shape[1]), dtype=rows.dtype, device=rows.device)
    inside = None
    if counts is not None:
        size = counts[:, None, None].to(rows.dtype)
        inside = torch.arange(1, rows.shape[1], device=rows.device).unsqueeze(1) < size
        rest *= inside
    shift = rest.sum(1, keepdim=True) / size
    root = size.sqrt()
    rest -= shift * (root / (root - 1))
    if inside is not None:
        rest *= inside
    return first + shift, rest


def gram_of_columns(rows: Tensor) -> Tensor:
    """``rows.mT @ rows`` in 5/8 of the operations: blocks on and below the diagonal, mirrored."""
    dim = rows.shape[-1]
    gram = rows.new_empty(*rows.shape[:-2], dim, dim)
    edges = [dim * i // BLOCKS for i in range(BLOCKS + 1)]
    for first, last in pairwise(edges):
        block = rows[..., first:].mT @ rows[..., first:last]
        gram[..., first:, first:last] = block
        gram[..., first:last, last:] = block[..., last - first :, :].mT
    return gram


def _turned(gram: Tensor, first: Tensor) -> Tensor:
    """``gram + first.mT @ first``, the columns reflected so that ``first`` is the first axis."""
    row = first.mT
    length = torch.linalg.vector_norm(row, dim=-2, keepdim=True)
    axis = row.clone()
    axis[:, :1] += torch.where(row[:, :1] < 0, -length, length)
    axis = torch.nn.functional.normalize(axis, dim=-2)
    turn = gram @ axis
    turn = 2 * (turn - axis * (axis.mT @ turn))
    gram = gram.baddbmm_(axis, turn.mT, alpha=-1).baddbmm_(turn, axis.mT, alpha=-1)
    gram[:, :1, :1] += length.square()
    return gram


def _checked(gram: Tensor, place: int, missing: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Singular values of Gram matrices in float64, and which of these spectra to trust.

    Args:
        gram: float32, ``batch side side``.
        place: the how manyth largest eigenvalue rounding is relative to.
        missing: ``batch 1``, leading eigenvalues that are zero because rows are padding.
    """
    size = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    sure = (size > TAME[0]) & (size < TAME[1])
    if not sure.all():
        gram = torch.where(sure[:, None, None], gram, 0.0)
    eigenvalues = torch.linalg.eigvalsh(gram).double().clamp_min(0)
    if missing is not None:
        inside = torch.arange(eigenvalues.shape[1]) >= missing
        eigenvalues = eigenvalues * inside
    values = eigenvalues.sqrt()
    noise = ROUNDING * torch.finfo(torch.float32).eps * eigenvalues[:, -place, None]
    error = noise / (values + (eigenvalues - noise).clamp_min(0).sqrt()).clamp_min(1e-300)
    if missing is not None:
        error = error * inside
    total = values.sum(-1, keepdim=True)
    shares = values / total
    logs = torch.where(shares > 0, shares, 1.0).log()
    steep = (logs - (shares * logs).sum(-1, keepdim=True)).abs().clamp_min(1.0)
    return values, sure & ((error * steep).sum(-1) <= TRUST * total.squeeze(-1))


def _repaired(values: Tensor, sure: Tensor, rows: Tensor) -> Tensor:
    if not sure.all():
        doubtful = (~sure).nonzero().squeeze(1)
        values[doubtful] = values_of(rows[doubtful])
    return values
