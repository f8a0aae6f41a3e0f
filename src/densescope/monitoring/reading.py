"""What a monitor says at one moment, and the names its numbers are logged under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from densescope.errors import RecordError
from densescope.estimate import Estimate
from densescope.metrics import ScoreSettings, compute_metrics
from densescope.records import plain

PREFIX = "densescope/"
LED_BY = "released."  # numbers of this definition are logged without its name
SINGLE_DSE = "released.dse_lambda_1"  # the DSE that a model in training has by itself
DSE = "dse"  # its name in loggers


@dataclass(frozen=True)
class DenseReading:
    """Every label-free number of a fixed set of images at one moment of a run.

    Attributes:
        scores: layer (as text, ``"-1"`` is the last block) -> number -> estimate, as in a
            :class:`~densescope.records.ScoreRecord`.
        images: how many distinct images were read.
    """

    scores: Mapping[str, Mapping[str, Estimate]]
    images: int

    @property
    def dse(self) -> float:
        """DSE of the released definition with lambda = 1 at the last layer that was asked for."""
        return self.estimate("released.dse_lambda_1", list(self.scores)[-1]).value

    def estimate(self, number: str, layer: int | str = -1) -> Estimate:
        """One number at one layer.

        Raises:
            RecordError: the number or the layer was not read.
        """
        try:
            return self.scores[str(layer)][number]
        except KeyError:
            known = sorted({f"{n} (layer {k})" for k, row in self.scores.items() for n in row})
            raise RecordError(
                f"this reading has no {number} at layer {layer}; it has: {', '.join(known)}"
            ) from None

    def numbers(self) -> dict[str, float]:
        """The values under the names that all loggers use.

        ``released.dse_lambda_1`` of the last requested layer is ``densescope/dse``, its standard
        error ``densescope/dse_error``; ``paper.inter`` is ``densescope/paper.inter``; another layer
        has its own prefix: ``densescope/layer_-4/dse``.
        """
        last = list(self.scores)[-1]
        named: dict[str, float] = {}
        for layer, row in self.scores.items():
            room = PREFIX if layer == last else f"{PREFIX}layer_{layer}/"
            for number, estimate in row.items():
                name = f"{room}{DSE if number == SINGLE_DSE else number.removeprefix(LED_BY)}"
                named[name] = estimate.value
                error = estimate.standard_error
                if error is not None and number == SINGLE_DSE:
                    named[f"{name}_error"] = error
        return named

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        scores = {
            layer: {number: estimate.to_json() for number, estimate in row.items()}
            for layer, row in self.scores.items()
        }
        return dict(plain({"scores": scores, "images": self.images}))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DenseReading:
        """The inverse of :meth:`to_json`."""
        scores = {
            layer: {number: Estimate.from_json(value) for number, value in row.items()}
            for layer, row in document["scores"].items()
        }
        return cls(scores, int(document["images"]))


def read_features(
    patches: tuple[torch.Tensor, ...],
    image: torch.Tensor | None,
    settings: ScoreSettings,
    device: torch.device,
) -> DenseReading:
    """Every stored metric that needs no augmented views, for images in order of their ids.

    Args:
        patches: per layer of ``settings.layers`` ``images patches dim``.
        image: ``images dim``; without it the numbers of image vectors are left out.
        settings: what the numbers depend on.
        device: where they are computed.

    Raises:
        InputError: features that are NaN, infinite, or too few for the clusters.
    """
    scores = compute_metrics(patches, image, settings, device=device)
    return DenseReading(scores, len(patches[0]))
