"""Dense structure of one batch of images, and of the same batch without each of its blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densescope.definitions import DefinitionName
from densescope.numerics.assignment import Assignment, assign, group_slices, unit
from densescope.numerics.checks import full_precision
from densescope.numerics.components import class_components, effective_ranks
from densescope.numerics.pooled_rank import pooled_ranks
from densescope.numerics.single_precision import row_values
from densescope.numerics.terms import (
    Terms,
    cluster_terms,
    position_rows,
    position_runs,
    position_spectra,
)
from densescope.numerics.workers import map_pieces

Numbers = dict[str, Tensor]
REPLICATE_POSITIONS = 16


def batch_numbers(
    features: Tensor,
    block: Tensor,
    blocks: int,
    generators: Sequence[torch.Generator],
    definitions: Sequence[DefinitionName],
    *,
    normalize: bool,
    local_clusters: int,
    global_clusters: int,
    group_size: int,
) -> Numbers:
    """``"<definition>.<component>"`` -> ``seeds (1 + blocks)``: all images, then without a block.

    A replicate is the full value where the batch has no image of the block, NaN where it has no
    other.
    """
    with full_precision(features):
        s = spreads(features, block, blocks, normalize, group_size)
        rows = []
        for generator in generators:
            assignment = assign(
                features,
                local_clusters=local_clusters,
                global_clusters=global_clusters,
                group_size=group_size,
                normalize=normalize,
                generator=generator,
            )
            positions = -(-REPLICATE_POSITIONS // len(generators))
            rows.append(_one_seed(features, assignment, block, s, definitions, positions))
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _one_seed(
    features: Tensor,
    assignment: Assignment,
    block: Tensor,
    s: Tensor,
    definitions: Sequence[DefinitionName],
    positions: int,
) -> Numbers:
    terms = cluster_terms(features, assignment, local_reach="pooled" in definitions)
    spectra = position_spectra(features, assignment, features.shape[1])
    positions = min(positions, features.shape[1])
    left = spectra_without(features, assignment, block, positions)
    result: Numbers = {}
    for definition in definitions:
        inter, image, batch = class_numbers(
            terms, block, assignment.group_size, s, features.shape[-1], definition
        )
        if definition == "pooled":
            effective_rank = pooled_ranks(features, assignment, block, len(s) - 1)
        else:
            effective_rank = _effective_ranks(spectra, left, positions, definition, len(s))
        effective_rank = effective_rank.to(inter.device)
        intra = (image + batch) / 2
        values = {"inter": inter, "intra": intra, "intra_image": image, "intra_batch": batch}
        values["effective_rank"] = effective_rank
        if definition == "released":
            values["dse_lambda_1"] = inter - intra + effective_rank
        result |= {f"{definition}.{name}": value.cpu() for name, value in values.items()}
    return result


def class_numbers(
    terms: Terms,
    block: Tensor,
    group_size: int,
    s: Tensor,
    dim: int,
    definition: DefinitionName,
) -> tuple[Tensor, Tensor, Tensor]:
    """``inter, intra_image, intra_batch`` of all images, then without each block."""
    device = terms.reach.device
    columns = []
    for place in range(-1, len(s) - 1):
        images = block != place
        if not images.any():
            columns.append(torch.full((3,), torch.nan, dtype=torch.float64, device=device))
            continue
        part = terms.subset(images.to(device), images[::group_size].to(device))
        columns.append(torch.stack(class_components(part, s[place + 1], dim, definition)))
    inter, image, batch = torch.stack(columns, 1)
    return inter, image, batch


def _effective_ranks(
    spectra: Tensor,
    left: dict[int, Tensor],
    positions: int,
    definition: DefinitionName,
    places: int,
) -> Tensor:
    """Effective rank of all images, then without each block: changes on some positions added."""
    full = effective_ranks(spectra, definition)
    result = full.mean().repeat(places)
    if left:
        changes = torch.stack([effective_ranks(values, definition) for values in left.values()])
        change = shrunk_changes(changes - full[:positions], len(full))
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


def spectra_without(
    features: Tensor, assignment: Assignment, block: Tensor, positions: int
) -> dict[int, Tensor]:
    """Block -> singular values of the first positions without its images, ``positions values``.

    Only blocks that are in the batch and are not the whole of it.
    """
    present = torch.unique(block).tolist()
    if len(present) < 2:
        return {}

    def piece(run: range) -> list[Tensor]:
        rows = position_rows(features, assignment, run)
        kept = [(block != b).nonzero().squeeze(1).to(rows.device) for b in present]
        return [row_values(rows.index_select(1, images)) for images in kept]

    done = map_pieces(piece, position_runs(features, positions), features)
    return {b: torch.cat([part[i] for part in done]) for i, b in enumerate(present)}


def spreads(
    features: Tensor, block: Tensor, blocks: int, normalize: bool, group_size: int
) -> Tensor:
    """Mean distance to the mean patch: of all images, then without each block, ``1 + blocks``."""
    images, patches, _ = features.shape
    keep = torch.cat(
        [torch.ones(1, images, dtype=torch.bool), block != torch.arange(blocks).unsqueeze(1)]
    )
    weight = keep.to(features.device, torch.float64)
    weight = weight / (weight.sum(1, keepdim=True) * patches)
    runs = [here for here, _ in group_slices(features, group_size)]
    sums = map_pieces(
        lambda here: unit(features[here], normalize).sum(1, dtype=torch.float64), runs, features
    )
    means = weight @ torch.cat(sums)
    center = torch.where(means[0].isnan(), 0.0, means[0])
    shifts = (means - center).to(features.dtype)

    def distances(here: slice) -> Tensor:
        points = unit(features[here], normalize) - center.to(features.dtype)
        lengths = points.square().sum(-1, keepdim=True)
        squared = lengths - 2 * points @ shifts.T + shifts.square().sum(-1)
        return squared.clamp_min(0).sqrt().sum(1, dtype=torch.float64)

    result = (weight @ torch.cat(map_pieces(distances, runs, features))).diagonal()
    noise = 2 * torch.finfo(features.dtype).eps * center.norm()
    return torch.where(result <= noise, 0.0, result)
