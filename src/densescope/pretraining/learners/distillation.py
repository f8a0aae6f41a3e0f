"""Shared by DINO and methods that build on it: a student learns outputs of its moving average."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import (
    Branch,
    Learner,
    Outcome,
    renamed_state,
    student_and_teacher,
    update_ema,
)
from densescope.pretraining.optimizers import cosine, ramp
from densescope.pretraining.recipe import (
    MILD,
    MILD_LOCAL,
    AugmentationSettings,
    MultiCropRecipe,
    zero_or_more,
)
from densescope.pretraining.settings import PretrainSettings

DINO_FIRST = AugmentationSettings(scale=(0.25, 1.0), blur=1.0)
DINO_SECOND = replace(DINO_FIRST, blur=0.1, solarize=0.2)


@dataclass(frozen=True, kw_only=True)
class DinoRecipe(MultiCropRecipe):
    """DINO's own settings; the defaults are those of its ViT-S/16 over 800 epochs.

    Attributes:
        teacher_momentum: first and last value on a cosine.
        teacher_temperature: first and last value on a line.
        temperature_warmup: part of the run that line takes.
        student_temperature: of the student's outputs.
        frozen_head: part of the run without a change of the head's last layer.
        head_dim: hidden width of the projection head.
        head_bottleneck: width before its last layer.
        head_batch_norm: batch norm in the head, as DINO's ``use_bn_in_head``; keeps short runs from
            collapsing to one output for all images.
        prototypes: width of its last layer.
        unit_prototypes: whether prototypes keep the length 1; else it is learned.
    """

    learning_rate: float = 5e-4
    final_learning_rate: float = 1e-5
    warmup: float = 10 / 800
    weight_decay: tuple[float, float] = (0.04, 0.4)
    clip_norm: float = 3.0
    first: AugmentationSettings = DINO_FIRST
    second: AugmentationSettings = DINO_SECOND
    local_count: int = zero_or_more(10)
    teacher_momentum: tuple[float, float] = (0.996, 1.0)
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    temperature_warmup: float = 30 / 800
    student_temperature: float = 0.1
    frozen_head: float = 1 / 800
    head_dim: int = 2048
    head_bottleneck: int = 256
    head_batch_norm: bool = False
    prototypes: int = 65536
    unit_prototypes: bool = False


AnyDino = TypeVar("AnyDino", bound=DinoRecipe)
# What the small recipes of these methods share.
SMALL_DISTILLATION: dict[str, Any] = {
    "learning_rate": 1e-3,
    "rate_images": 0,
    "final_learning_rate": 1e-5,
    "warmup": 0.075,
    "clip_norm": 3.0,
    "first": MILD,
    "second": MILD,
    "local": MILD_LOCAL,
    "local_count": 2,
    "teacher_momentum": (0.99, 1.0),
    "teacher_temperature": (0.04, 0.04),
    "temperature_warmup": 0.0,
    "frozen_head": 0.04,
    "head_dim": 512,
    "head_bottleneck": 128,
    "head_batch_norm": True,
    "prototypes": 512,
    "unit_prototypes": True,
}


def dino_head(width: int, recipe: DinoRecipe, prototypes: int | None = None) -> nn.Module:
    """lightly's head: three layers, a unit vector, cosines to the prototypes."""
    from lightly.models.modules import DINOProjectionHead

    with warnings.catch_warnings():
        # The head keeps the older weight_norm, whose weight_g and weight_v are DINO's names.
        warnings.filterwarnings("ignore", ".*weight_norm.*", FutureWarning)
        head: nn.Module = DINOProjectionHead(
            width,
            recipe.head_dim,
            recipe.head_bottleneck,
            prototypes or recipe.prototypes,
            batch_norm=recipe.head_batch_norm,
            norm_last_layer=recipe.unit_prototypes,
        )
    return head


class Distillation(Learner[AnyDino]):
    """Student and teacher with DINO's head and loss on class tokens, on views of several sizes."""

    def __init__(self, settings: PretrainSettings, recipe: AnyDino) -> None:
        from lightly.loss import DINOLoss

        super().__init__(settings, recipe)
        self.student, self.teacher = student_and_teacher(self._branch)
        self.criterion = DINOLoss(
            output_dim=recipe.prototypes, student_temp=recipe.student_temperature
        )

    def _branch(self) -> Branch:
        encoder = self.encoder()
        return Branch(encoder, dino_head(encoder.geometry.dim, self.recipe))

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """Cross-entropy of the student's views with the teacher's other global views."""
        large = self.views(images, generator)
        small = self.local_views(images, generator)
        teacher_output = self.teacher_output(large, step)
        student_output, tokens = self.student(large.flatten(0, 1))
        student_outputs = student_output.chunk(2)
        if small is not None:
            student_outputs += self.student(small.flatten(0, 1))[0].chunk(len(small))
        loss: Tensor = self.criterion(
            list(teacher_output.chunk(2)),
            list(student_outputs),
            teacher_temp=self.temperature(step),
        )
        return Outcome(loss, tokens.patches, large.flatten(0, 1))

    def teacher_output(self, large: Tensor, step: int) -> Tensor:
        """Outputs of the teacher for all global views."""
        with torch.no_grad():
            teacher_output: Tensor = self.teacher(large.flatten(0, 1))[0]
            self.begin_center(self.criterion.center, teacher_output, step)
        return teacher_output

    @staticmethod
    def begin_center(center: Tensor, teacher_output: Tensor, step: int) -> None:
        """A center that is still zero starts at the mean of the first outputs."""
        if step == 0 and not bool(center.any()):
            center.copy_(teacher_output.float().mean(0).expand_as(center))

    def temperature(self, step: int) -> float:
        """The teacher's temperature at a step."""
        start, end = self.recipe.teacher_temperature
        steps = self.settings.warmup_steps(self.recipe.temperature_warmup)
        return ramp(step, steps=steps, start=start, end=end)

    def before_step(self, step: int) -> None:
        """The last layer waits until targets mean something."""
        if step < self.settings.warmup_steps(self.recipe.frozen_head):
            for name, parameter in self.student.named_parameters():
                if ".last_layer" in name:
                    parameter.grad = None

    def after_step(self, step: int) -> None:
        """The teacher follows."""
        start, end = self.recipe.teacher_momentum
        momentum = cosine(step, steps=self.settings.steps, start=start, end=end)
        update_ema(self.student, self.teacher, momentum)

    def backbones(self) -> dict[str, Encoder]:
        """The teacher's, then the student's."""
        return {"teacher": self.teacher.backbone, "student": self.student.backbone}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint%04d.pth``."""
        # DINO wraps the teacher too where its head has batch norm, and names then begin alike.
        wrapped = "module." if self.recipe.head_batch_norm else ""
        return {
            "student": _branch_state(self.student, "module."),
            "teacher": _branch_state(self.teacher, wrapped),
            "optimizer": optimizer,
            "epoch": counter,
            "args": self.namespace(),
            "dino_loss": {"center": self.criterion.center[0]},
        }


def _branch_state(branch: Branch, prefix: str) -> dict[str, Tensor]:
    """State under DINO's own names: its head calls the layers before the last one ``mlp``."""
    return {
        **renamed_state(branch.backbone, f"{prefix}backbone."),
        **renamed_state(branch.head, f"{prefix}head.", layers__="mlp."),
    }
