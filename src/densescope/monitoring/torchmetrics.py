"""The dense metric as a ``torchmetrics.Metric``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from densescope.errors import InputError
from densescope.metrics import ScoreSettings
from densescope.monitoring.collected import CollectedFeatures, collect_features, in_order
from densescope.monitoring.metric import values_in_order, without_views

STATES = ("ids", "values", "image_values")


class DenseStructureMetric(Metric):  # type: ignore[misc]
    """Every label-free number of a set of images, as torchmetrics has it.

    The numbers and rules are those of :class:`~densescope.monitoring.metric.DenseMetric`; here
    torchmetrics moves the states between processes. They are flat lists of numbers (``"cat"``)
    and one vector of shapes (``"max"``), and no list is ever empty when they are moved: a rank
    without images neither hangs nor crashes. ``forward`` only updates: a batch alone has no such
    number.

    Args:
        settings: what the numbers depend on, and which are computed (``metrics``); LiDAR is left
            out.
        options: for ``torchmetrics.Metric``.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    ids: Any
    values: Any
    image_values: Any
    shape: Tensor

    def __init__(self, settings: ScoreSettings | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.settings = without_views(settings or ScoreSettings())
        for name in STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        sizes = torch.zeros(2 * len(self.settings.layers) + 1, dtype=torch.int64)
        self.add_state("shape", default=sizes, dist_reduce_fx="max")

    def update(
        self,
        features: Tensor | Sequence[Tensor],
        sample_ids: Tensor | Sequence[int],
        image_vectors: Tensor | None = None,
    ) -> None:
        """Take up a batch, as :meth:`~densescope.monitoring.metric.DenseMetric.update`."""
        part = collect_features(features, sample_ids, image_vectors, len(self.settings.layers))
        if not len(part):
            return
        sizes = [size for tensor in part.tensors for size in tensor.shape[1:]]
        shape = torch.tensor(sizes, device=self.shape.device)
        if bool(self.shape.any()) and not torch.equal(self.shape, shape):
            raise InputError(
                f"features of one image have sizes {sizes}, before {self.shape.tolist()}: give all "
                "held-out images one size, or reset() after compute()"
            )
        self.shape = shape
        flat = torch.cat([grid.flatten(1) for grid in part.patches], 1).flatten()
        self.ids.append(part.ids.to(self.device))
        self.values.append(flat.to(self.device))
        self.image_values.append(part.image.flatten().to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Name -> number, under the names that all loggers use."""
        device = torch.device(self.device)
        numbers = values_in_order(in_order(self._everything()), self.settings, device).numbers()
        return {name: torch.tensor(value, device=device) for name, value in numbers.items()}

    def forward(self, *arguments: Any, **named: Any) -> None:
        """Only :meth:`update`."""
        self.update(*arguments, **named)

    def sync(self, *arguments: Any, **named: Any) -> None:
        """Gather the states of all ranks; one without images takes part with empty tensors."""
        if not self._is_synced and not self.ids:
            self.ids.append(torch.empty(0, dtype=torch.int64, device=self.device))
            self.values.append(torch.empty(0, device=self.device))
            self.image_values.append(torch.empty(0, device=self.device))
        super().sync(*arguments, **named)

    def _everything(self) -> CollectedFeatures:
        if not len(self.ids):
            raise InputError("there are no features to compute from: call update() first")
        ids, values, image = (dim_zero_cat(getattr(self, name)).cpu() for name in STATES)
        *sizes, width = self.shape.tolist()
        layers = [tuple(sizes[i : i + 2]) for i in range(0, len(sizes), 2)]
        each = [patches * dim for patches, dim in layers]
        if len(values) != len(ids) * sum(each) or len(image) != len(ids) * width:
            raise InputError("the features of one image have different shapes on different ranks")
        grids = values.view(len(ids), sum(each)).split(each, 1)
        patches = tuple(grid.unflatten(1, layer) for grid, layer in zip(grids, layers, strict=True))
        return CollectedFeatures(ids, patches, image.view(len(ids), width))
