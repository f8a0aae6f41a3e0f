"""The numbers of each definition of dense structure, from what was summed over clusters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from densescope.definitions import DefinitionName
from densescope.numerics.spectrum import entropy_rank
from densescope.numerics.terms import Terms

RELEASED_EPSILON = 1e-12


def class_components(
    terms: Terms, s: Tensor | None, dim: int, definition: DefinitionName
) -> tuple[Tensor, Tensor, Tensor]:
    """``inter, intra_image, intra_batch``; ``s`` is needed by the released definition."""
    return CLASSES[definition](terms, s, dim)


def effective_ranks(spectra: Tensor, definition: DefinitionName) -> Tensor:
    """Effective rank of every matrix whose singular values are given, over the last axis."""
    if definition != "released":
        return entropy_rank(spectra)
    return entropy_rank(spectra, RELEASED_EPSILON) / spectra.shape[-1]


def _released_classes(terms: Terms, s: Tensor | None, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    assert s is not None
    local = _radius(terms.local_norms, terms.local_counts, dim)
    image, usable = _row_means(local, terms.local_counts >= 2)
    image = torch.where(usable, image, 1.0)
    wide = terms.global_counts >= 2
    radii = _radius(terms.global_norms, terms.global_counts, dim)
    batch = torch.where(wide.any(), radii.sum() / wide.sum().clamp_min(1), 1.0)
    inter = (terms.reach.sum(1) / terms.global_counts.sum(1)).mean()
    s = torch.where(s > 0, s, torch.nan)
    return inter / s, image.mean() / s, batch / s


def _paper_classes(terms: Terms, s: Tensor | None, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    image = _mean_radius(terms.local_norms, terms.local_counts, 1.0)
    batch = _mean_radius(terms.global_norms, terms.global_counts, 1.0)
    return _mean_reach(terms.reach, terms.global_counts), image, batch


def _pooled_classes(terms: Terms, s: Tensor | None, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    assert terms.local_reach is not None
    image = _mean_radius(terms.local_norms, terms.local_counts, 0.5)
    batch = _mean_radius(terms.global_norms, terms.global_counts, 0.5)
    within = _mean_reach(terms.local_reach, terms.local_counts)
    return (within + _mean_reach(terms.reach, terms.global_counts)) / 2, image, batch


CLASSES: dict[str, Callable[[Terms, Tensor | None, int], tuple[Tensor, Tensor, Tensor]]] = {
    "released": _released_classes,
    "paper": _paper_classes,
    "pooled": _pooled_classes,
}


def _radius(norms: Tensor, counts: Tensor, dim: int) -> Tensor:
    return norms / (counts - 1).clamp_min(dim).double().sqrt()


def _mean_radius(norms: Tensor, counts: Tensor, power: float) -> Tensor:
    """Mean over clusterings of the mean of ``norms / (counts - 1) ** power``."""
    means, usable = _row_means(norms / (counts - 1).clamp_min(1).double() ** power, counts >= 2)
    return torch.where(usable, means, 0.0).sum() / usable.sum()


def _mean_reach(reach: Tensor, counts: Tensor) -> Tensor:
    """Mean over clusterings of the mean over clusters of the mean distance of their patches."""
    means, _ = _row_means(reach / counts.clamp_min(1), counts >= 1)
    return means.mean()


def _row_means(values: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the usable entries of each row, and which rows have any."""
    count = usable.sum(1)
    return torch.where(usable, values, 0.0).sum(1) / count.clamp_min(1), count > 0
