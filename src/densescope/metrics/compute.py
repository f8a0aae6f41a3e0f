"""Features of a backbone become the stored metrics of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from densescope.estimate import Estimate
from densescope.metrics.chosen import computations
from densescope.metrics.metric import ScoredFeatures
from densescope.metrics.settings import ScoreSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def compute_metrics(
    patches: Sequence[Tensor],
    image: Tensor | None,
    settings: ScoreSettings,
    *,
    device: torch.device,
    views: Tensor | None = None,
    sample_ids: Tensor | None = None,
    grids: Sequence[tuple[int, int]] | None = None,
    stage: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
) -> dict[str, dict[str, Estimate]]:
    """The metrics that the settings name, as far as these features allow.

    Args:
        patches: per layer of ``settings.layers`` ``images patches dim``.
        image: ``images dim``, the backbone's image vectors; without them the metrics of image
            vectors are left out.
        settings: what the metrics depend on.
        device: where those of patches are computed.
        views: ``samples dim``, image vectors of augmented views; without them the metrics of views
            are left out.
        sample_ids: ``samples``, the image that each view shows.
        grids: per layer the rows and columns that its patches form; without them patches are
            taken to form a square, and the metrics of distances on the grid are left out where
            their number is no square.
        stage: wraps every computation, given its name, to measure its time.

    Returns:
        Layer (as text) -> metric -> estimate; metrics of the whole backbone stand at every layer.

    Raises:
        InputError: features that are NaN, infinite, or too few for the clusters.
    """
    given = {"patches": True, "image": image is not None, "views": views is not None}
    whole: dict[str, Estimate] = {}
    scores: dict[str, dict[str, Estimate]] = {}
    for place, layer in enumerate(settings.layers):
        vectors = patches[place].new_empty(0) if image is None else image
        features = ScoredFeatures(
            patches[place].to(device),
            vectors,
            views,
            sample_ids,
            _square(patches[place].shape[1]) if grids is None else grids[place],
        )
        row = scores[str(layer)] = {}
        for computation in computations(settings.metrics):
            per_layer = computation.reads == "patches"
            if given[computation.reads] and (per_layer or len(scores) == 1):
                with stage(computation.name):
                    found = computation.compute(features, settings)
                (row if per_layer else whole).update(found)
    return {layer: {**row, **whole} for layer, row in scores.items()}


def _square(patches: int) -> tuple[int, int] | None:
    side = math.isqrt(patches)
    return (side, side) if side * side == patches else None
