"""Effective rank of the centered patches of all images together, and without each block."""

from __future__ import annotations

import torch
from torch import Tensor

from densescope.numerics.assignment import Assignment
from densescope.numerics.baselines import Moments, moments, pooled_moments
from densescope.numerics.spectrum import entropy_rank, gram_values
from densescope.numerics.structure import patches_of_pooled_rank
from densescope.numerics.terms import position_rows
from densescope.numerics.workers import map_pieces


def pooled_ranks(features: Tensor, assignment: Assignment, block: Tensor, blocks: int) -> Tensor:
    """Of all images, then without each block, ``1 + blocks``, float64.

    A replicate is the full value where the batch has no image of the block, NaN where it has no
    other. The patches are the first ones of each image in the order of ``permutations``.
    """
    images, patches, _ = features.shape
    rows = position_rows(features, assignment, range(patches_of_pooled_rank(images, patches)))
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
