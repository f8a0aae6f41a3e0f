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
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densescope.numerics.assignment import numbers_at_once
from densescope.numerics.spectrum import decomposed, slope_of_values, values_of
from densescope.numerics.workers import map_pieces, recorded, worker_count

# What a float32 eigenvalue may be wrong by, in units of eps * scale: chosen from what was seen, not
# proven. The largest of a flat spectrum was seen wrong by 33, which moves its sum by 5e-8.
ROUNDING = 8.0
TRUST = 3e-4
# Sums of squares outside have left, or may leave, what float32 can hold.
TAME = (1e-24, 1e30)
# A gradient is kept where the same worst case changes it by no more than this fraction of its
# length: that of a nuclear norm, and that of single values, in which differences of them matter.
TRUST_OF_SUMS = 1e-3
TRUST_OF_ROWS = 3e-5
BLOCKS = 4


def in_single(tensor: Tensor) -> bool:
    """Whether spectra of a tensor may be computed in float32 first."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not recorded(tensor)


def row_values(rows: Tensor) -> Tensor:
    """Singular values of matrices ``batch rows dim`` as they are, ascending, float64."""
    if recorded(rows):
        values: Tensor = _RowValues.apply(rows)
        return values
    if not in_single(rows) or rows.shape[1] < 2:
        return values_of(rows)
    gram, place, *_ = _gram_of_rows(rows)
    values, sure, _ = _checked(gram, place)
    return _repaired(values, sure, rows)


class _RowValues(torch.autograd.Function):
    """:func:`row_values`, with the singular vectors that its gradient needs."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        most = numbers_at_once(rows.device) // rows[0].numel()
        pieces = torch.split(rows, max(1, min(most, -(-len(rows) // worker_count(rows)))))
        found = map_pieces(_decomposed_rows, pieces, rows)
        ctx.save_for_backward(rows, *(part for pair in found for part in pair))
        return torch.cat([values for values, _ in found])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        rows, *saved = ctx.saved_tensors
        values, vectors = saved[::2], saved[1::2]
        lengths = [len(part) for part in values]
        split = torch.split(rows, lengths), torch.split(slope, lengths)
        parts = zip(split[0], vectors, values, split[1], strict=True)
        found = map_pieces(lambda part: slope_of_values(*part), list(parts), rows)
        return torch.cat([part.to(rows.dtype) for part in found])


def _decomposed_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, and vectors of the smaller side; all in float64 unless all are sure."""
    if in_single(rows) and rows.shape[1] > 1:
        gram, place, axis = _gram_of_rows(rows)
        values, sure, vectors = _checked(gram, place, slopes=TRUST_OF_ROWS)
        if sure.all():
            if axis is None:
                return values, with_mean(vectors[:, 1:], vectors[:, :1])
            return values, vectors.baddbmm(axis, axis.mT @ vectors, alpha=-2)
    return decomposed(rows)


def _gram_of_rows(rows: Tensor) -> tuple[Tensor, int, Tensor | None]:
    """Gram matrix with the mean on its first axis, what its rounding is part of, a reflection."""
    count, dim = rows.shape[1:]
    place = 2 if min(count, dim) > 1 else 1
    mean, rest = without_mean(rows)
    first = mean * count**0.5
    if count > dim:
        gram, axis = _turned(gram_of_columns(rest), first)
        return gram, place, axis
    # the mean comes first: LAPACK then keeps it apart from the small eigenvalues
    every = torch.cat([first, rest], 1)
    return every @ every.mT, place, None


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
    values, sure, _ = _checked(*_gram_of_rest(rest, counts, padded))
    return _repaired(values, sure, rest).sum(-1)


def centered_slopes(rows: Tensor, counts: Tensor, padded: bool) -> tuple[Tensor, Tensor]:
    """:func:`centered_norms`, and the gradient of each with respect to the rows of its matrix."""
    _, rest = without_mean(rows, counts if padded else None)
    held = counts if padded else None
    if not in_single(rows):
        values, vectors = decomposed(rest)
        return values.sum(-1), _slopes_of_sum(rest, values, vectors, held)
    values, sure, vectors = _checked(*_gram_of_rest(rest, counts, padded), slopes=TRUST_OF_SUMS)
    slopes = _slopes_of_sum(rest, values, vectors, held)
    if not sure.all():
        doubtful = (~sure).nonzero().squeeze(1)
        some = rest[doubtful]
        values[doubtful], vectors = decomposed(some)
        held = None if held is None else held[doubtful]
        slopes[doubtful] = _slopes_of_sum(some, values[doubtful], vectors, held)
    return values.sum(-1), slopes


def _gram_of_rest(rest: Tensor, counts: Tensor, padded: bool) -> tuple[Tensor, int, Tensor | None]:
    """Gram matrix of the smaller side, and what :func:`_checked` must know of it."""
    few = rest.shape[1] <= rest.shape[2]
    gram = rest @ rest.mT if few else gram_of_columns(rest)
    return gram, 1, (rest.shape[1] + 1 - counts).unsqueeze(1) if padded and few else None


def _slopes_of_sum(rest: Tensor, values: Tensor, vectors: Tensor, counts: Tensor | None) -> Tensor:
    """Gradient of the sum of the singular values, in the rows that :func:`without_mean` got."""
    wide = rest.to(vectors.dtype)
    weight = torch.where(values > 0, 1 / values, 0.0).to(vectors.dtype).unsqueeze(-2)
    if rest.shape[1] <= rest.shape[2]:
        found = (with_mean(vectors, None, counts) * weight) @ vectors.mT @ wide
    else:
        found = with_mean(wide @ ((vectors * weight) @ vectors.mT), None, counts)
    return found.to(rest.dtype)


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


def with_mean(rest: Tensor, first: Tensor | None, counts: Tensor | None = None) -> Tensor:
    """The transpose of :func:`without_mean`, whose inverse it is: one row more.

    Args:
        rest: ``batch rows columns``, in the place of the rows free of the mean.
        first: ``batch 1 columns``, in the place of ``sqrt(n) * mean``; ``None`` is zeros.
        counts: as there.
    """
    size = torch.tensor(float(rest.shape[1] + 1), dtype=rest.dtype, device=rest.device)
    inside = None
    if counts is not None:
        size = counts[:, None, None].to(rest.dtype)
        inside = torch.arange(1, rest.shape[1] + 1, device=rest.device).unsqueeze(1) < size
        rest = rest * inside
    root = size.sqrt()
    factor = root / (root - 1)
    total = rest.sum(1, keepdim=True)
    shift = total * (factor / size)
    if first is not None:
        shift = shift - first / root
    rows = torch.cat([total * (factor - 1), rest], 1) - shift
    if inside is not None:
        rows[:, 1:] *= inside
    return rows


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


def _turned(gram: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """``gram + first.mT @ first``, columns reflected so that ``first`` is the first axis; how."""
    row = first.mT
    length = torch.linalg.vector_norm(row, dim=-2, keepdim=True)
    axis = row.clone()
    axis[:, :1] += torch.where(row[:, :1] < 0, -length, length)
    axis = torch.nn.functional.normalize(axis, dim=-2)
    turn = gram @ axis
    turn = 2 * (turn - axis * (axis.mT @ turn))
    gram = gram.baddbmm_(axis, turn.mT, alpha=-1).baddbmm_(turn, axis.mT, alpha=-1)
    gram[:, :1, :1] += length.square()
    return gram, axis


def _checked(
    gram: Tensor, place: int, missing: Tensor | None = None, *, slopes: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values of Gram matrices in float64, which of these spectra to trust, and vectors.

    Args:
        gram: float32, ``batch side side``.
        place: the how manyth largest eigenvalue rounding is relative to.
        missing: ``batch 1``, leading eigenvalues that are zero because rows are padding.
        slopes: what gradients are trusted to; 0 where none are asked for, and no vectors.
    """
    size = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    sure = (size > TAME[0]) & (size < TAME[1])
    if not sure.all():
        gram = torch.where(sure[:, None, None], gram, 0.0)
    eigenvalues, vectors = (
        torch.linalg.eigh(gram) if slopes else (torch.linalg.eigvalsh(gram), gram)
    )
    eigenvalues = eigenvalues.double().clamp_min(0)
    if missing is not None:
        inside = torch.arange(eigenvalues.shape[1]) >= missing
        eigenvalues = eigenvalues * inside
    values = eigenvalues.sqrt()
    eps = torch.finfo(torch.float32).eps
    noise = ROUNDING * eps * eigenvalues[:, -place, None]
    error = noise / (values + (eigenvalues - noise).clamp_min(0).sqrt()).clamp_min(1e-300)
    bend = noise / eigenvalues.clamp_min(1e-300) + eps * values[:, -1:] / values.clamp_min(1e-300)
    if missing is not None:
        error, bend = error * inside, bend * inside
    total = values.sum(-1, keepdim=True)
    shares = values / total
    logs = torch.where(shares > 0, shares, 1.0).log()
    steep = (logs - (shares * logs).sum(-1, keepdim=True)).abs().clamp_min(1.0)
    sure &= (error * steep).sum(-1) <= TRUST * total.squeeze(-1)
    if slopes:
        sure &= bend.square().mean(-1).sqrt() <= slopes
    return values, sure, vectors


def _repaired(values: Tensor, sure: Tensor, rows: Tensor) -> Tensor:
    if not sure.all():
        doubtful = (~sure).nonzero().squeeze(1)
        values[doubtful] = values_of(rows[doubtful])
    return values
