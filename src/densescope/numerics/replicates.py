"""Dense structure and effective ranks with their errors: of all images, and without each block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from densescope.definitions import DEFINITION_NAMES, DefinitionName
from densescope.estimate import Estimate
from densescope.numerics.assignment import (
    Assignment,
    PatchOrder,
    assign,
    draw_chance,
    group_count,
    group_slices,
    unit,
)
from densescope.numerics.checks import Scaling, check_at_least, check_floating, full_precision
from densescope.numerics.components import class_components
from densescope.numerics.intervals import block_of_images
from densescope.numerics.ranks import pooled_ranks, position_ranks, spectra_of_positions
from densescope.numerics.structure import check_features
from densescope.numerics.terms import Terms, cluster_terms
from densescope.numerics.workers import map_pieces

Numbers = dict[str, Tensor]
REPLICATE_POSITIONS = 16
RANK_POSITIONS = 8  # of one seed, as many as each of two seeds of dense structure
SAME = "every patch is the same: the released definition divides by a spread of zero"


def estimate_structure(
    features: Tensor,
    *,
    definitions: Sequence[DefinitionName] = DEFINITION_NAMES,
    seeds: Sequence[int] = (0, 1),
    blocks: int = 16,
    images_per_batch: int = 1024,
    normalize: bool = True,
    local_clusters: int = 3,
    global_clusters: int = 24,
    group_size: int = 8,
) -> dict[str, Estimate]:
    """Dense structure by one or more definitions, each number with its error.

    The images are cut into ``ceil(images / images_per_batch)`` batches of equal size (up to a
    group), each with the same chance, so that a batch alone gives its part of the mean; a number
    is the mean over batches and seeds. One clustering per seed serves all definitions. Replicate
    ``i`` is the number without block ``i``: an equal part of every batch, or of all images where a
    batch has fewer groups than there are blocks. ``effective_rank`` is recomputed on the images
    that are left for a subset of the patch positions, and its change is added to the value on all
    positions; the pooled one is recomputed on all patches that are left.

    Args:
        features: ``images patches dim``; see :func:`~densescope.numerics.structure.dense_structure`
            for this and the settings not named here.
        definitions: rows of :data:`~densescope.definitions.DEFINITIONS`.
        seeds: one k-means and one set of permutations per seed.
        blocks: at most this many blocks; fewer where there are fewer groups, and no replicates
            where there is one group.
        images_per_batch: largest number of images of a batch.

    Returns:
        ``"<definition>.<component>"`` -> :class:`~densescope.estimate.Estimate`, components in
        the order of :class:`~densescope.numerics.structure.DenseStructure`; ``dse`` is
        ``dse_lambda_1``, of the released definition only. ``seed_spread`` is the standard deviation
        over the single-seed values.

    Raises:
        InputError: as ``dense_structure`` does; no seeds, no definitions, or fewer than 1 block.

    Source: Kott (2001), "The Delete-a-Group Jackknife".

    Example:
        >>> noise = torch.randn(12, 16, 8, generator=torch.Generator().manual_seed(0))
        >>> result = estimate_structure(noise, global_clusters=6, group_size=4)
        >>> len(result), len(result["released.dse_lambda_1"].replicates)
        (16, 3)
    """

    def numbers(part: Tensor, block: Tensor, count: int) -> Numbers:
        return batch_numbers(
            part,
            block,
            count,
            [torch.Generator().manual_seed(seed) for seed in seeds],
            tuple(definitions),
            normalize=normalize,
            local_clusters=local_clusters,
            global_clusters=global_clusters,
            group_size=group_size,
        )

    scaling: Scaling = "vectors" if normalize else "none"
    features = check_floating(features, "features", scaling=scaling).detach()
    check_features(features, definitions, local_clusters, global_clusters, group_size)
    return _over_batches(features, numbers, len(seeds), blocks, images_per_batch, group_size)


def estimate_ranks(
    features: Tensor,
    *,
    normalize: bool = True,
    seed: int = 0,
    blocks: int = 16,
    images_per_batch: int = 1024,
    local_clusters: int = 3,
    global_clusters: int = 24,
    group_size: int = 8,
) -> dict[str, Estimate]:
    """The effective ranks of :func:`estimate_structure` with one seed alone, without clusters.

    Args:
        features: ``images patches dim``.
        normalize: whether patches are L2-normalized first.
        seed: of the permutations. With the seed and the settings of ``estimate_structure`` the
            same patches stand together.
        blocks, images_per_batch, local_clusters, global_clusters, group_size: as there.

    Returns:
        ``"released"`` and ``"pooled"`` -> effective rank by that definition. The one of the
        ``paper`` definition is ``min(images, dim)`` times the released one.

    Raises:
        InputError: as ``estimate_structure`` does.

    Example:
        >>> noise = torch.randn(12, 16, 8, generator=torch.Generator().manual_seed(0))
        >>> {name: round(e.value, 2) for name, e in estimate_ranks(noise, group_size=4).items()}
        {'released': 0.9, 'pooled': 7.95}
    """

    def numbers(part: Tensor, block: Tensor, count: int) -> Numbers:
        images, patches, _ = part.shape
        *_, permutations = draw_chance(
            images,
            patches,
            local_clusters=local_clusters,
            global_clusters=global_clusters,
            group_size=group_size,
            generator=torch.Generator().manual_seed(seed),
        )
        order = PatchOrder(permutations.to(part.device), normalize)
        spectra = spectra_of_positions(part, order, block, min(RANK_POSITIONS, patches))
        released = position_ranks(spectra, "released", count)
        pooled = pooled_ranks(part, order, block, count)
        return _stacked([{"released": released.cpu(), "pooled": pooled.cpu()}])

    features = check_floating(features, "features", scaling="vectors" if normalize else "whole")
    definitions = ("released", "pooled")
    check_features(features, definitions, local_clusters, global_clusters, group_size)
    with full_precision(features):
        return _over_batches(features.detach(), numbers, 1, blocks, images_per_batch, group_size)


def _over_batches(
    features: Tensor,
    numbers: Callable[[Tensor, Tensor, int], Numbers],
    seeds: int,
    blocks: int,
    images_per_batch: int,
    group_size: int,
) -> dict[str, Estimate]:
    """Means over batches of equal size; ``numbers`` takes one, its blocks, and their number."""
    for name, value in (("seeds", seeds), ("blocks", blocks)):
        check_at_least(value, 1, name)
    check_at_least(images_per_batch, group_size, "images_per_batch")
    parts = equal_batches(len(features), images_per_batch, group_size)
    block = _block_of_batches(parts, group_size, blocks)
    count = int(block[-1]) + 1
    return _estimates([numbers(features[here], block[here], count) for here in parts], count)


def equal_batches(images: int, most: int, group_size: int) -> list[slice]:
    """Contiguous batches of whole groups, at most ``most`` images each, of nearly equal size."""
    groups = group_count(images, group_size)
    count = -(-groups // (most // group_size))
    edges = [groups * i // count * group_size for i in range(count)] + [images]
    return [slice(first, last) for first, last in pairwise(edges)]


def _block_of_batches(batches: Sequence[slice], group_size: int, blocks: int) -> Tensor:
    """Block of every image: an equal part of each batch, where each has that many groups.

    A block that is a large part of one batch would move ``effective_rank``, which depends on the
    number of images, too far: intervals were three times too wide with half a batch.
    """
    sizes = [here.stop - here.start for here in batches]
    if min(group_count(size, group_size) for size in sizes) < blocks:
        return block_of_images(sum(sizes), group_size, blocks)
    return torch.cat([block_of_images(size, group_size, blocks) for size in sizes])


def _estimates(batches: list[Numbers], blocks: int) -> dict[str, Estimate]:
    """Means over batches and seeds; ``Numbers`` are ``seeds 1 + blocks`` per name."""
    result = {}
    for name in batches[0]:
        # NaN marks a batch that is gone as a whole with its block
        stacked = torch.stack([batch[name] for batch in batches])
        gone = stacked.isnan() & ~stacked[..., :1].isnan()
        kept = torch.where(gone, 0.0, stacked).sum(0) / (~gone).sum(0)
        single, mean = kept[:, 0], kept.mean(0)
        result[name] = Estimate(
            float(mean[0]),
            tuple(mean[1:].tolist()) if blocks > 1 else (),
            float(single.std()) if len(single) > 1 else None,
            SAME if bool(mean[0].isnan()) else None,
        )
    return result


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
            positions = _positions(features, len(generators))
            rows.append(_one_seed(features, assignment, block, s, definitions, positions))
    return _stacked(rows)


def _positions(features: Tensor, seeds: int) -> int:
    """On how many positions the effective rank is computed again without each block."""
    return min(-(-REPLICATE_POSITIONS // seeds), features.shape[1])


def _stacked(rows: list[Numbers]) -> Numbers:
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
    spectra = spectra_of_positions(features, assignment.order, block, positions)
    blocks = len(s) - 1
    result: Numbers = {}
    for definition in definitions:
        inter, image, batch = class_numbers(
            terms, block, assignment.group_size, s, features.shape[-1], definition
        )
        if definition == "pooled":
            effective_rank = pooled_ranks(features, assignment.order, block, blocks)
        else:
            effective_rank = position_ranks(spectra, definition, blocks)
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
