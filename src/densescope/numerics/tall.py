"""Singular values of one matrix of many rows, from sums over pieces of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densescope.numerics.checks import full_precision
from densescope.numerics.single_precision import in_single, row_values
from densescope.numerics.spectrum import eigen, roots
from densescope.numerics.workers import map_pieces, row_slices

# Float32 products of a few hundred rows, summed in float64, move an eigenvalue by less than eps
# times the largest beside the mean's. They are kept where that is this fraction of the eigenvalues;
# the gradient was then seen wrong by a twentieth of it.
TRUST = 1e-3


def tall_values(rows: Tensor) -> Tensor:
    """Singular values of a matrix ``rows dim`` as it is, ascending, float64; differentiable once.

    The products of the rows with each other are float32 for float32 rows on the CPU where a check
    finds that enough.
    """
    if len(rows) <= rows.shape[1]:
        return row_values(rows.unsqueeze(0)).squeeze(0)
    values: Tensor = _TallValues.apply(rows)
    return values


class _TallValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.dtype = rows.dtype if in_single(rows) else torch.float64
        values, vectors = _decomposed(rows, ctx.dtype)
        if ctx.dtype == torch.float32:
            squares = values.square()
            noise = torch.finfo(rows.dtype).eps * squares[-2:][0]
            if not (noise / squares).square().mean().sqrt() <= TRUST:
                ctx.dtype = torch.float64
                values, vectors = _decomposed(rows, ctx.dtype)
        ctx.save_for_backward(rows, values, vectors)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        rows, values, vectors = ctx.saved_tensors
        weight = torch.where(values > 0, slope / values, 0.0)
        result = torch.empty_like(rows)
        with full_precision(rows):
            turn = ((vectors * weight) @ vectors.mT).to(ctx.dtype)

            def piece(here: slice) -> None:
                result[here] = rows[here].to(ctx.dtype) @ turn

            map_pieces(piece, row_slices(rows), rows)
        return result


def _decomposed(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Singular values and right singular vectors in float64; products of rows in a dtype."""
    pieces = row_slices(rows)
    sums = map_pieces(lambda here: rows[here].sum(0, dtype=torch.float64), pieces, rows)
    mean = (torch.stack(sums).sum(0) / len(rows)).to(dtype)

    def products(here: slice) -> tuple[Tensor, Tensor]:
        offsets = rows[here].to(dtype) - mean
        return (offsets.mT @ offsets).double(), offsets.sum(0).double()

    found = map_pieces(products, pieces, rows)
    gram, rest = (torch.stack(part).sum(0) for part in zip(*found, strict=True))
    center = mean.double()
    gram += torch.outer(rest, center) + torch.outer(center, rest)
    gram += len(rows) * torch.outer(center, center)
    eigenvalues, vectors = eigen(gram, vectors=True)
    return roots(eigenvalues, len(rows)), vectors
