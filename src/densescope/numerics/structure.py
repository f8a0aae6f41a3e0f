"""Dense structure of patch features: class separability, class radius and effective rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densescope.definitions import DefinitionName, check_definition
from densescope.errors import InputError
from densescope.numerics.assignment import Assignment, assign, group_count, unit
from densescope.numerics.checks import (
    check_at_least,
    check_enough_rows,
    check_floating,
    check_labels,
    check_shape,
    cpu_generator,
    full_precision,
)
from densescope.numerics.components import class_components, effective_ranks
from densescope.numerics.spectrum import centered, values_of
from densescope.numerics.tall import tall_values
from densescope.numerics.terms import (
    cluster_terms,
    position_rows,
    position_spectra,
    spread,
)
from densescope.numerics.workers import recorded

POOLED_PATCHES = 30_000


@dataclass(frozen=True)
class DenseStructure:
    """Components of the dense structure estimator, 0-d tensors in the order of its formula.

    ``DSE = M_inter - M_intra + lambda * M_dim``

    Attributes:
        inter: distance to the nearest foreign class, ``M_inter``; higher is better.
        intra: radius of a class, ``M_intra``: mean of the next two; lower is better.
        intra_image: radius of the classes within one image.
        intra_batch: radius of the classes within a group of images.
        effective_rank: ``M_dim``; higher is better.
        dse: ``inter - intra + effective_rank`` (``lambda = 1``); ``None`` for the other
            definitions, whose lambda belongs to a run of checkpoints, not to one.
    """

    inter: Tensor
    intra: Tensor
    intra_image: Tensor
    intra_batch: Tensor
    effective_rank: Tensor
    dse: Tensor | None


def dense_structure(
    features: Tensor,
    *,
    definition: DefinitionName = "released",
    normalize: bool = True,
    local_clusters: int = 3,
    global_clusters: int = 24,
    group_size: int = 8,
    generator: torch.Generator | None = None,
    local_labels: Tensor | None = None,
    global_labels: Tensor | None = None,
    global_centroids: Tensor | None = None,
    permutations: Tensor | None = None,
    rank_patches: int | None = None,
    rank_draws: int | None = None,
) -> DenseStructure:
    """Separability, class radius and effective rank of patch features, without labels.

    Pseudo-classes are k-means clusters: ``local_clusters`` per image, ``global_clusters`` per
    group of ``group_size`` consecutive images. With ``nu_j`` the nuclear norm of centered cluster
    ``j`` of ``n_j >= 2`` rows and ``s`` the mean distance of a patch to the mean of all:

    released: ``intra_image = mean over images of mean_j nu_j / sqrt(max(n_j - 1, dim)) / s``;
    ``intra_batch`` the mean over the clusters of all groups; ``inter`` = mean over groups and
    patches of the distance to the nearest centroid other than their own, over ``s``;
    ``effective_rank`` = effective rank of one patch per image over ``min(images, dim)``, mean over
    positions.

    paper: ``nu_j / (n_j - 1)``, mean over the clusters of a clustering, then over clusterings;
    ``inter`` = mean over clusters of the mean distance; nothing divided by ``s``;
    ``effective_rank`` is not divided.

    pooled: ``nu_j / sqrt(n_j - 1)``, means as in paper; ``inter`` = mean of two, the paper's and
    the same within one image, to the nearest of the other cluster means there;
    ``effective_rank`` = effective rank of an equal number of patches of every image, together at
    most 30,000 (or one of each image), minus their mean.

    All are at least 0; ``effective_rank`` is at most 1 (released), ``min(images, dim)`` (paper) or
    ``dim`` (pooled).
    Invariant to rotation and, where the definition or ``normalize`` divides it away, to scale; not
    to the order of images, which decides the groups. Compare only equal numbers of images and
    patches.

    Args:
        features: ``images patches dim``, at least 2 images; half precision is upcast.
        definition: ``"released"``, ``"paper"`` or ``"pooled"``; their numbers do not compare.
        normalize: divide every patch by its L2 norm first.
        local_clusters: clusters per image.
        global_clusters: clusters per group, at least 2.
        group_size: consecutive images per group; the last group may be smaller.
        generator: source of chance, on the CPU; ``None`` is a new one seeded with 0.
        local_labels: ``images patches``, in place of k-means; with the next three, nothing is left
            to chance.
        global_labels: ``images patches``, 0 to ``global_clusters - 1`` within each group.
        global_centroids: ``groups clusters dim``, goes with ``global_labels``.
        permutations: ``images patches``, the order of the patches in which ``effective_rank`` takes
            them.
        rank_patches: number of images that give a patch to ``effective_rank`` (the paper's ``B'``),
            the first ones; ``None`` is all. Paper only.
        rank_draws: number of disjoint draws of one patch per image that ``effective_rank`` is the
            mean over; ``None`` is one per patch position. Pooled: patches of each image that
            ``effective_rank`` is computed from.

    Returns:
        :class:`DenseStructure` in the features' dtype and on their device, differentiable once:
        assignments, centroids of groups and permutations are constants. NaN where every patch is
        the same and the released definition divides by ``s = 0``.

    Raises:
        InputError: wrong shape, NaN or infinity, one image, fewer patches than clusters, labels
            that do not fit, or no generator of the CPU.

    Source: Dai et al. (2025), arXiv 2510.17299, sections on DSE and the released code.

    Deviations: some notes on the paper square the norm in ``inter``; its figure and code do not,
    and neither does this function. The paper takes one draw of patches for ``effective_rank``; the
    mean over all disjoint draws has the same expectation and less noise. Its cluster counts are not
    published: the released ones serve all definitions. ``"pooled"`` is how a public diagnostics
    script reads the paper; which 30,000 patches it takes is our choice. Features are
    normalized by default; in the released code the command normalizes them, and the function does
    not. k-means uses other random numbers.

    Example:
        >>> noise = torch.randn(8, 16, 12, generator=torch.Generator().manual_seed(0))
        >>> result = dense_structure(noise, global_clusters=6)
        >>> bool(result.dse == result.inter - result.intra + result.effective_rank)
        True
    """
    features = check_floating(features, "features", scaling="vectors" if normalize else "none")
    check_features(features, (definition,), local_clusters, global_clusters, group_size)
    source = torch.Generator().manual_seed(0) if generator is None else cpu_generator(generator)
    given = _given(
        features,
        (local_labels, global_labels, global_centroids, permutations),
        (local_clusters, global_clusters, group_size, normalize),
    )
    if given is None:
        given = assign(
            features.detach(),
            local_clusters=local_clusters,
            global_clusters=global_clusters,
            group_size=group_size,
            normalize=normalize,
            generator=source,
        )
    images, patches, _ = features.shape
    if rank_patches is not None and definition != "paper":
        raise InputError("rank_patches belongs to definition='paper'; the others use all images")
    draws = _patches_of_rank(features, definition) if rank_draws is None else rank_draws
    rows = images if rank_patches is None else rank_patches
    for name, value, most in (("rank_draws", draws, patches), ("rank_patches", rows, images)):
        check_at_least(value, 1, name)
        if value > most:
            raise InputError(f"{name} is {value}; there are only {most}")
    return structure_of(features, given, definition, draws=draws, rows=rows)


def structure_of(
    features: Tensor,
    assignment: Assignment,
    definition: DefinitionName,
    *,
    draws: int | None = None,
    rows: int | None = None,
    pooled: bool = False,
) -> DenseStructure:
    """Value core of :func:`dense_structure`: a pure function of features and an assignment.

    With ``pooled`` the effective rank is one of all patches, in place of the mean over positions.
    """
    with full_precision(features):
        if recorded(features):
            # once for all terms, which all have a gradient
            features = unit(features, assignment.normalize)
            assignment = replace(assignment, normalize=False)
        terms = cluster_terms(features, assignment, local_reach=definition == "pooled")
        positions = _patches_of_rank(features, definition) if draws is None else draws
        if pooled:
            spectra = tall_values(unit(features, assignment.normalize).flatten(0, 1)).unsqueeze(0)
        elif definition == "pooled":
            patches = position_rows(features, assignment.order, range(positions)).flatten(0, 1)
            spectra = values_of(centered(patches)).unsqueeze(0)
        else:
            spectra = position_spectra(features[:rows], assignment.order, positions)
        s = spread(features, assignment) if definition == "released" else None
        inter, intra_image, intra_batch = class_components(terms, s, features.shape[-1], definition)
        effective_rank = effective_ranks(spectra, definition).mean()
    numbers = (inter, intra_image, intra_batch, effective_rank)
    inter, intra_image, intra_batch, effective_rank = (
        number.to(features.dtype) for number in numbers
    )
    intra = (intra_image + intra_batch) / 2
    dse = inter - intra + effective_rank if definition == "released" else None
    return DenseStructure(inter, intra, intra_image, intra_batch, effective_rank, dse)


def patches_of_pooled_rank(images: int, patches: int) -> int:
    """How many patches of each image the pooled effective rank takes: 30,000 together at most."""
    return min(patches, max(1, POOLED_PATCHES // images))


def _patches_of_rank(features: Tensor, definition: DefinitionName) -> int:
    images, patches, _ = features.shape
    return patches_of_pooled_rank(images, patches) if definition == "pooled" else patches


def check_features(
    features: Tensor,
    definitions: Sequence[str],
    local_clusters: int,
    global_clusters: int,
    group_size: int,
) -> None:
    """Refuse what dense structure is not defined for.

    Raises:
        InputError: see :func:`dense_structure`.
    """
    check_at_least(len(definitions), 1, "the number of definitions")
    for definition in definitions:
        check_definition(definition)
    check_shape(features, "images patches dim", "features")
    images, patches, _ = features.shape
    if images < 2:
        raise InputError("features hold one image; the estimator compares at least two")
    check_at_least(local_clusters, 1, "local_clusters")
    check_at_least(global_clusters, 2, "global_clusters")
    check_at_least(group_size, 1, "group_size")
    check_enough_rows(patches, local_clusters, "an image")
    check_enough_rows(
        (images % group_size or group_size) * patches, global_clusters, "the last group"
    )


def _given(
    features: Tensor,
    parts: tuple[Tensor | None, ...],
    settings: tuple[int, int, int, bool],
) -> Assignment | None:
    """An assignment made by the caller, or ``None`` where k-means has to make it."""
    missing = [part is None for part in parts]
    if all(missing):
        return None
    local, wide, centroids, order = parts
    if local is None or wide is None or centroids is None or order is None:
        raise InputError(
            "give local_labels, global_labels, global_centroids and permutations together, or none"
        )
    local_clusters, global_clusters, group_size, normalize = settings
    images, patches, dim = features.shape
    shape = (group_count(images, group_size), global_clusters, dim)
    if tuple(centroids.shape) != shape:
        raise InputError(f"global_centroids has shape {tuple(centroids.shape)}; expected {shape}")
    order = check_labels(order, (images, patches), patches, "permutations")
    if not torch.equal(order.sort(1).values, torch.arange(patches).to(order).expand_as(order)):
        raise InputError("permutations must hold every patch position once per image")
    return Assignment(
        check_labels(local, (images, patches), local_clusters, "local_labels"),
        check_labels(wide, (images, patches), global_clusters, "global_labels"),
        check_floating(centroids, "global_centroids").to(features.dtype),
        order,
        local_clusters,
        group_size,
        normalize,
    )
