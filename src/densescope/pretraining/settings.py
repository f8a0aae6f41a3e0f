"""Settings of a pretraining run beside the recipe of its method, checked before it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from densescope.errors import InputError
from densescope.pretraining.recipe import Recipe

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
# Their weights: the paper's, one, and DINOv3's.
REGULARIZERS = {"dse": 1e-3, "dse-pooled": 1e-3, "paka": 1.0, "gram": 2.0}


@dataclass(frozen=True)
class BackboneSettings:
    """A timm architecture; the defaults suit 64-pixel images on two cores.

    Attributes:
        architecture: timm's name of it.
        options: what its constructor is given; ``num_heads``, ``patch_size``, ``output_stride``.
            The options that the method's row of ``FORMATS`` fixes are added.
        image_size: side of a training image in pixels.
    """

    architecture: str = "vit_tiny_patch16_224"
    options: Mapping[str, Any] = field(
        default_factory=lambda: {"patch_size": 8, "embed_dim": 128, "depth": 5, "num_heads": 4}
    )
    image_size: int = 64

    @property
    def loader_options(self) -> dict[str, Any]:
        """The architecture options with which ``load_backbone`` and ``sweep`` read it back."""
        return {"img_size": self.image_size, **self.options}


@dataclass(frozen=True)
class RegularizerSettings:
    """What is added to a method's loss.

    Attributes:
        name: ``"dse"``, ``"dse-pooled"``, ``"paka"`` or ``"gram"``.
        beta: regularizer weight; ``None`` takes the published value.
        images: how many images of a batch enter, 0 for all.
        every: steps between two uses.
    """

    name: str = "dse"
    beta: float | None = None
    images: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        if self.name not in REGULARIZERS:
            raise InputError(
                f"there is no regularizer {self.name!r}: there are {', '.join(REGULARIZERS)}"
            )
        if self.weight < 0 or self.images < 0 or self.every < 1:
            raise InputError(
                f"beta {self.weight:g}, {self.images} images every {self.every} steps is "
                "impossible: beta and images start at 0, every at 1"
            )

    @property
    def weight(self) -> float:
        """``beta``, or its default."""
        return REGULARIZERS[self.name] if self.beta is None else self.beta


@dataclass(frozen=True)
class PretrainSettings:
    """A pretraining run.

    Attributes:
        method: a name in ``METHODS``.
        recipe: the method's own settings; its small recipe by default.
        backbone: the network.
        steps: optimizer steps.
        batch_size: images of an optimizer step, over all devices and accumulated batches.
        checkpoint_every: steps between checkpoints, which stand in for the method's epochs; the
            last checkpoint holds what is left.
        seed: decides weights, order of images, views and masks.
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"`` of the forward pass.
        accumulate: batches whose gradients are summed before a step.
        devices: GPUs (or processes on a CPU) that share the batch.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        regularizer: settings of the term added to the loss, or ``None``.
        mean: of the pixels per channel, subtracted before the network.
        std: of the pixels per channel, divided by.
    """

    method: str = "dino"
    recipe: Recipe | None = None
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    steps: int = 340
    batch_size: int = 64
    checkpoint_every: int = 20
    seed: int = 0
    precision: str = "float32"
    accumulate: int = 1
    devices: int = 1
    device: str = "auto"
    regularizer: RegularizerSettings | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "accumulate", "devices"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is impossible: use at least 1")
        if self.backbone.image_size < 1:
            raise InputError(f"image_size {self.backbone.image_size} is impossible")
        if self.precision not in PRECISIONS:
            raise InputError(
                f"there is no precision {self.precision!r}: there are {', '.join(PRECISIONS)}"
            )
        shares = self.devices * self.accumulate
        if self.batch_size % shares:
            raise InputError(
                f"a batch of {self.batch_size} cannot be shared by {self.devices} device(s) in "
                f"{self.accumulate} part(s): take a multiple of {shares}"
            )

    @property
    def micro_batch_size(self) -> int:
        """Images that one device sees at once."""
        return self.batch_size // (self.devices * self.accumulate)

    def warmup_steps(self, fraction: float) -> int:
        """A part of the run in whole steps, at least one less than all of them."""
        return min(round(fraction * self.steps), self.steps - 1)

    def to_json(self) -> dict[str, Any]:
        """All settings but the device as plain values, as a resumed run must find them."""
        document: dict[str, Any] = json.loads(json.dumps(_plain(self)))
        document.pop("device")
        return document


def _plain(settings: PretrainSettings) -> dict[str, Any]:
    document = asdict(settings)
    document["backbone"]["options"] = dict(settings.backbone.options)
    return document


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names.

    Example:
        >>> flat({"steps": 3, "recipe": {"warmup": 0.1}})
        {'steps': 3, 'recipe.warmup': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
