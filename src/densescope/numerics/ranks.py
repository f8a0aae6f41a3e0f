"""Effective ranks of all images, and without each block of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from densescope.definitions import DefinitionName
from densescope.numerics.assignment import PatchOrder
from densescope.numerics.baselines import Moments, moments, pooled_moments
from densescope.numerics.components import effective_ranks
from densescope.numerics.single_precision import row_values
from densescope.numerics.spectrum import entropy_rank, gram_values
from densescope.numerics.structure import patches_of_pooled_rank
from densescope.numerics.terms import position_rows, position_runs, position_spectra
from densescope.numerics.workers import map_pieces


@dataclass(frozen=True)
class PositionSpectra:
    """Singular values of every position of all images, and of some of them without each block.

    Attributes:
        full: ``positions values``.
        left: block -> the same of the first ``positions`` without its images.
    """

    full: Tensor
    left: dict[int, Tensor]


def spectra_of_positions(
    features: Tensor, order: PatchOrder, block: Tensor, positions: int
) -> PositionSpectra:
    """What :func:`position_ranks` of every definition follow from."""
    full = position_spectra(features, order, features.shape[1])
    return PositionSpectra(full, _spectra_without(features, order, block, positions))


def position_ranks(spectra: PositionSpectra, definition: DefinitionName, blocks: int) -> Tensor:
    """Mean over positions: of all images, then without each block, ``1 + blocks``.

    What a block changes is taken from some of the positions, and added.
    """
    full, left = effective_ranks(spectra.full, definition), spectra.left
    result = full.mean().repeat(1 + blocks)
    if left:
        changes = torch.stack([effective_ranks(values, definition) for values in left.values()])
        change = shrunk_changes(changes - full[: changes.shape[1]], len(full))
        result[torch.tensor(list(left), device=result.device) + 1] += change
    return result


def shrunk_changes(changes: Tensor, population: int) -> Tensor:
    """Mean change of every block, ``blocks positions`` -> ``blocks``, with the right variance.

    The mean over a few of all positions varies more between blocks than the mean over all does.
    With ``W`` the residual variance of a two-way table of ``P`` of ``N`` positions, what is too
    much is ``W / P - W / N``; the changes are drawn towards their mean by that much.
    """
    blocks, positions = changes.shape
    mean = changes.mean(1)
    if blocks < 2 or positions < 2 or positions == population:
        return mean
    residual = changes - mean.unsqueeze(1) - changes.mean(0) + mean.mean()
    within = residual.square().sum() / ((blocks - 1) * (positions - 1))
    between = mean.var()
    wanted = (between - within / positions).clamp_min(0) + within / population
    shrink = (wanted / between).clamp_max(1).sqrt()
    return mean.mean() + torch.where(between > 0, shrink, 1.0) * (mean - mean.mean())


def _spectra_without(
    features: Tensor, order: PatchOrder, block: Tensor, positions: int
) -> dict[int, Tensor]:
    """Block -> singular values of the first positions without its images, ``positions values``.

    Only blocks that are in the batch and are not the whole of it.
    """
    present = torch.unique(block).tolist()
    if len(present) < 2:
        return {}

    def piece(run: range) -> list[Tensor]:
        rows = position_rows(features, order, run)
        kept = [(block != b).nonzero().squeeze(1).to(rows.device) for b in present]
        return [row_values(rows.index_select(1, images)) for images in kept]

    done = map_pieces(piece, position_runs(features, positions), features)
    return {b: torch.cat([part[i] for part in done]) for i, b in enumerate(present)}


def pooled_ranks(features: Tensor, order: PatchOrder, block: Tensor, blocks: int) -> Tensor:
    """Of the centered patches of all images, then without each block, ``1 + blocks``, float64.

    A replicate is the full value where the batch has no image of the block, NaN where it has no
    other. The patches are the first ones of each image in the order of ``permutations``.
    """
    images, patches, _ = features.shape
    rows = position_rows(features, order, range(patches_of_pooled_rank(images, patches)))
    center = rows.mean((0, 1), dtype=torch.float64).to(rows.dtype)
    noise = 2 * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(rows)
    present = torch.unique(block).tolist()

    def part(place: int) -> Moments:
        kept = rows[:, (block == place).to(rows.device)]
        return moments((kept - center).flatten(0, 1))

    parts = map_pieces(part, present, features)
    sets = [parts, *(parts[:i] + parts[i + 1 :] for i in range(len(parts)))]
    ranks = map_pieces(lambda kept: _centered_rank(kept, noise), sets, features)
    result = ranks[0].repeat(1 + blocks)
    result[torch.tensor(present, device=result.device) + 1] = torch.stack(ranks[1:])
    return result


def _centered_rank(parts: list[Moments], noise: Tensor) -> Tensor:
    """Of the rows behind some moments; NaN without any, 0 where only rounding is left of them."""
    if not parts:
        return noise.new_tensor(torch.nan, dtype=torch.float64)
    whole = pooled_moments(parts)
    gram = whole.gram - torch.outer(whole.total, whole.total) / whole.count
    rank = entropy_rank(gram_values(gram, max(whole.count, len(gram))))
    return rank.masked_fill(gram.trace() <= noise.double().square(), 0.0)
