"""Dense structure as a plain metric object: ``update``, ``compute``, ``reset``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.features.extraction import resolve_device
from densescope.layers import ALL
from densescope.metrics import ScoreSettings, compute_metrics
from densescope.monitoring.collected import (
    CollectedFeatures,
    collect_features,
    concatenated,
    in_order,
    no_features,
)
from densescope.monitoring.gathering import Answer, Ranks, error_sentence
from densescope.monitoring.observation import MetricValues


class DenseMetric:
    """Every label-free number of a set of images, fed batch by batch, on one process or many.

    Groups, permutations and seeds follow the sample ids: images are put in order of their ids, an
    id that came twice counts once. So neither the order of the batches nor the way they
    are spread over processes changes a bit of the result, which is that of
    :func:`~densescope.numerics.replicates.estimate_structure` and
    :func:`~densescope.evaluation.backbone.score_backbone` on the same features with the same
    settings. No global random state is read or written.

    Args:
        settings: what the numbers depend on, and which are computed (``metrics``); LiDAR is left
            out (it needs augmented views).
        device: where the numbers are computed (features wait on the CPU).
        group: process group whose ranks share the images; all processes by default.
        distributed: ``False`` keeps to this process, also where there is a process group.

    Example:
        >>> metric = DenseMetric(ScoreSettings(global_clusters=6))
        >>> noise = torch.randn(16, 16, 8, generator=torch.Generator().manual_seed(0))
        >>> metric.update(noise[8:], range(8, 16))
        >>> metric.update(noise[:8], range(8))
        >>> metric.compute().images
        16
    """

    def __init__(
        self,
        settings: ScoreSettings | None = None,
        *,
        device: str = "cpu",
        group: Any = None,
        distributed: bool = True,
    ) -> None:
        self.settings = without_views(settings or ScoreSettings())
        self.device = device
        self.ranks = Ranks(group, alone=not distributed)
        self._parts: list[CollectedFeatures] = []

    def update(
        self,
        features: Tensor | Sequence[Tensor],
        sample_ids: Tensor | Sequence[int],
        image_vectors: Tensor | None = None,
    ) -> None:
        """Take up a batch.

        Args:
            features: ``images patches dim``, floating point on any device; one such tensor per
                layer where the settings name several.
            sample_ids: one integer per image, the same for an image at every moment of the run.
            image_vectors: ``images dim``, for RankMe and alpha-ReQ.

        Raises:
            InputError: shapes that do not fit each other, or features that are NaN or infinite.
        """
        layers = len(self.settings.layers)
        self._parts.append(collect_features(features, sample_ids, image_vectors, layers))

    def compute(self) -> MetricValues:
        """The numbers of all images of all ranks; every rank must call this, and gets the same.

        Raises:
            InputError: no images at all, an id with two different features, or too few patches
                for the clusters.
        """
        return MetricValues.from_json(self.ask(None)["values"])

    def reset(self) -> None:
        """Forget the features; to be called before the model's next weights are read."""
        self._parts.clear()

    def ask(
        self, problem: str | None, inspect: Callable[[CollectedFeatures], None] | None = None
    ) -> Answer:
        """Like :meth:`compute`, for those who have more to say.

        Args:
            problem: why this rank has no features, where something went wrong; all ranks raise.
            inspect: called on the first rank with all images in order of their ids.

        Returns:
            ``"values"``: the JSON document of a :class:`MetricValues`; ``"images"``: count and
            fingerprint of the ids.
        """
        layers = len(self.settings.layers)
        mine = no_features(layers)
        if problem is None:
            try:
                mine = concatenated(self._parts, layers)
            except InputError as cause:
                problem = error_sentence(cause)

        def answer(everything: CollectedFeatures) -> Answer:
            ordered = in_order(everything)
            if inspect is not None:
                inspect(ordered)
            values = values_in_order(ordered, self.settings, resolve_device(self.device))
            return {"values": values.to_json(), "images": ordered.fingerprint}

        return self.ranks.ask_first(mine, problem, answer)


def values_in_order(
    ordered: CollectedFeatures, settings: ScoreSettings, device: torch.device
) -> MetricValues:
    """The numbers of images in order of their ids.

    Raises:
        InputError: no images, or as :func:`~densescope.metrics.compute_metrics` does.
    """
    if not len(ordered):
        raise InputError("there are no features to compute from: call update() first")
    image = ordered.image if ordered.image.shape[1] else None
    scores = compute_metrics(ordered.patches, image, settings, device=device)
    return MetricValues(scores, len(ordered))


def without_views(settings: ScoreSettings) -> ScoreSettings:
    """The same without LiDAR, which needs ten augmented views of every image.

    Raises:
        InputError: all layers are asked for, whose number a monitor cannot know beforehand.
    """
    if settings.layers == ALL:
        raise InputError(
            "layers='all' is for checkpoint files: name the layers that are monitored, such as "
            "layers=(-4, -1)"
        )
    return replace(settings, lidar_images=0)
