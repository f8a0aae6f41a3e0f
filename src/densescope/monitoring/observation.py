"""What one observation of a model in training found, and the names its numbers are logged under."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from densescope.errors import DensescopeError, RecordError
from densescope.estimate import Estimate
from densescope.records import plain
from densescope.selection.alarm import Alarm
from densescope.selection.words import parts_line

PREFIX = "densescope/"
LED_BY = "released."  # numbers of this definition are logged without its name
SINGLE_DSE = "released.dse_lambda_1"  # the DSE that a model in training has by itself
DSE = "dse"  # its name in loggers


@dataclass(frozen=True)
class MetricValues:
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
        return self.estimate(SINGLE_DSE, list(self.scores)[-1]).value

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
                f"this observation has no {number} at layer {layer}; it has: {', '.join(known)}"
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
            prefix = PREFIX if layer == last else f"{PREFIX}layer_{layer}/"
            for number, estimate in row.items():
                name = f"{prefix}{DSE if number == SINGLE_DSE else number.removeprefix(LED_BY)}"
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
    def from_json(cls, document: Mapping[str, Any]) -> MetricValues:
        """The inverse of :meth:`to_json`."""
        scores = {
            layer: {number: Estimate.from_json(value) for number, value in row.items()}
            for layer, row in document["scores"].items()
        }
        return cls(scores, int(document["images"]))


@dataclass(frozen=True)
class Observation:
    """The metrics of the model at one step; the same on every rank.

    Attributes:
        step: where the run was.
        values: of all metrics; ``None`` where they could not be computed.
        alarm: what is wrong with the run as of this step, or ``None``.
        problems: sentences about what failed; the training went on.
        numbers: name -> value as it was logged; empty where ``values`` is ``None``.
        name: of the record: of the checkpoint file with this state, or ``step 15``.
    """

    step: int
    values: MetricValues | None
    alarm: Alarm | None = None
    problems: tuple[str, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)
    name: str = ""

    def __str__(self) -> str:
        """One line: name, separability, effective rank and DSE with half their 95 % intervals."""
        parts = [] if self.values is None else [parts_line(self._last_layer(self.values))]
        parts += self.problems
        parts += [] if self.alarm is None else [self.alarm.sentence]
        return f"{self.name or self.step}: {'; '.join(parts)}"

    def _last_layer(self, values: MetricValues) -> Mapping[str, Estimate]:
        return values.scores[list(values.scores)[-1]]

    @property
    def for_checkpoints(self) -> dict[str, float]:
        """The numbers, or NaN for DSE after a failed observation, for those who keep the best."""
        return self.numbers or {f"{PREFIX}dse": math.nan}


class TrainingStopped(DensescopeError):
    """Raised on every rank by a monitor that was asked to stop the training on an alarm.

    Attributes:
        observation: the one that led to it, with its alarm.
    """

    def __init__(self, observation: Observation) -> None:
        assert observation.alarm is not None
        super().__init__(observation.alarm.sentence)
        self.observation = observation
