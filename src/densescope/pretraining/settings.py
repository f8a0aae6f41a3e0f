"""Everything that decides a pretraining run, checked before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from densescope.errors import InputError
from densescope.features.augmentation import AugmentationSettings

# Milder than DINO's: a run of a few hundred small batches never learns to match harder views, and
# its outputs then collapse to uniform instead.
GLOBAL_VIEWS = AugmentationSettings(
    scale=(0.4, 1.0),
    brightness=0.3,
    contrast=0.3,
    saturation=0.15,
    hue=0.05,
    grayscale=0.1,
    blur=0.1,
    blur_sigma_pixels=(0.1, 1.0),
)
LOCAL_VIEWS = replace(GLOBAL_VIEWS, scale=(0.15, 0.4), blur=0.0)


@dataclass(frozen=True)
class BackboneShape:
    """A small vision transformer; the defaults suit 64-pixel images on two cores.

    Attributes:
        model: timm's name of the architecture whose options are overridden.
        image_size: side of an image in pixels.
        patch_size: side of a patch in pixels.
        dim: width of the features.
        depth: number of blocks.
        heads: attention heads; must divide ``dim``.
    """

    model: str = "vit_tiny_patch16_224"
    image_size: int = 64
    patch_size: int = 8
    dim: int = 128
    depth: int = 5
    heads: int = 4

    @property
    def options(self) -> dict[str, Any]:
        """What ``timm.create_model`` needs beside the name; no classifier."""
        return {
            "img_size": self.image_size,
            "patch_size": self.patch_size,
            "embed_dim": self.dim,
            "depth": self.depth,
            "num_heads": self.heads,
            "num_classes": 0,
        }


@dataclass(frozen=True)
class PretrainSettings:
    """A pretraining run.

    Attributes:
        method: a name in ``METHODS``.
        steps: optimizer steps.
        batch_size: images of a step.
        checkpoint_every: steps between checkpoints; file ``e`` holds ``(e + 1)`` times as many,
            the last one what is left.
        seed: decides weights, order of images and views.
        backbone: shape of the network.
        global_views: augmentation of the two views the teacher sees.
        local_views: augmentation of the small views only the student sees.
        local_count: how many small views an image gets, 0 for none.
        local_size: their side in pixels, a multiple of the patch size.
        learning_rate: its highest value, after the warm-up.
        final_learning_rate: its value at the end of the cosine.
        warmup_steps: steps of linear rise of the learning rate.
        weight_decay: first and last value on a cosine; biases and norms have none.
        teacher_momentum: first and last value on a cosine.
        teacher_temperature: first and last value on a line over ``warmup_steps``.
        frozen_head_steps: steps without a change of the head's last layer.
        clip_norm: largest norm of the gradient of all weights together.
        head_dim: hidden width of the projection head.
        head_bottleneck: width before its last layer.
        head_batch_norm: batch norm in the head, as DINO's ``use_bn_in_head``; keeps short runs from
            collapsing to one output for all images.
        prototypes: width of its last layer.
        mean: of the pixels per channel, subtracted before the network.
        std: of the pixels per channel, divided by.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    method: str = "dino"
    steps: int = 340
    batch_size: int = 64
    checkpoint_every: int = 20
    seed: int = 0
    backbone: BackboneShape = field(default_factory=BackboneShape)
    global_views: AugmentationSettings = GLOBAL_VIEWS
    local_views: AugmentationSettings = LOCAL_VIEWS
    local_count: int = 2
    local_size: int = 32
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    warmup_steps: int = 20
    weight_decay: tuple[float, float] = (0.04, 0.4)
    teacher_momentum: tuple[float, float] = (0.99, 1.0)
    teacher_temperature: tuple[float, float] = (0.04, 0.04)
    frozen_head_steps: int = 10
    clip_norm: float = 3.0
    head_dim: int = 512
    head_bottleneck: int = 128
    head_batch_norm: bool = True
    prototypes: int = 512
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "local_size", "prototypes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is impossible: use at least 1")
        shape = self.backbone
        for name, size in (("image_size", shape.image_size), ("local_size", self.local_size)):
            if size % shape.patch_size:
                raise InputError(
                    f"{name} {size} is not a multiple of the patch size {shape.patch_size}"
                )
        if shape.dim % shape.heads:
            raise InputError(f"{shape.heads} heads do not divide a width of {shape.dim}")
        if self.warmup_steps >= self.steps:
            raise InputError(
                f"a warm-up of {self.warmup_steps} steps does not fit in {self.steps} steps"
            )
