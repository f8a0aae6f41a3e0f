"""EsViT: DINO, and for every region of a view what the teacher says of the most similar region."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densescope.pretraining.encoders import Encoder, EncoderOutput
from densescope.pretraining.learner import Branch, Method, Outcome, renamed_state
from densescope.pretraining.learners.distillation import (
    DINO_FIRST,
    DINO_SECOND,
    SMALL_DISTILLATION,
    DinoRecipe,
    Distillation,
    dino_head,
)
from densescope.pretraining.recipe import MILD_LOCAL, AugmentationSettings, zero_or_more
from densescope.pretraining.settings import PretrainSettings

ESVIT_FIRST = replace(DINO_FIRST, scale=(0.4, 1.0))
ESVIT_SECOND = replace(DINO_SECOND, scale=(0.4, 1.0))
ESVIT_LOCAL = AugmentationSettings(scale=(0.05, 0.4), blur=0.5)


@dataclass(frozen=True, kw_only=True)
class EsvitRecipe(DinoRecipe):
    """EsViT's own settings; the defaults are those of its Swin-T with windows of 7.

    Attributes:
        region_weight: of the loss of regions; that of views has what is left of 1.
    """

    final_learning_rate: float = 1e-6
    first: AugmentationSettings = ESVIT_FIRST
    second: AugmentationSettings = ESVIT_SECOND
    local: AugmentationSettings = ESVIT_LOCAL
    local_count: int = zero_or_more(8)
    warmup: float = 10 / 300
    temperature_warmup: float = 30 / 300
    frozen_head: float = 1 / 300
    region_weight: float = 0.5


class RegionBranch(Branch):
    """A backbone with a head for views and one for regions."""

    def __init__(self, encoder: Encoder, head: nn.Module, dense: nn.Module) -> None:
        super().__init__(encoder, head)
        self.dense = dense

    def regions(self, patches: Tensor) -> Tensor:
        """The region head's logits, ``images regions prototypes``."""
        logits: Tensor = self.dense(patches.flatten(0, 1))
        return logits.view(*patches.shape[:2], -1)


def region_entropy(
    teacher_output: Tensor,
    student_output: Tensor,
    teacher: Tensor,
    student: Tensor,
    temperature: float,
) -> Tensor:
    """Cross-entropy of every region of a view with the most similar one of another view.

    ``mean_i - p(j*(i)) . log softmax(said_i / t)``, ``j*(i) = argmax_j cos(student_i, teacher_j)``.

    Args:
        told: the teacher's probabilities, ``images regions prototypes``.
        said: the student's logits, ``images regions' prototypes``; the numbers of regions differ
            where the sizes of the views do.
        teacher: its features of the same regions, ``images regions dim``.
        student: its features, ``images regions' dim``; they choose and get no gradient here.
        temperature: ``t``.

    Returns:
        A scalar, differentiable in ``said``.

    Source: Li et al. 2021, EsViT, arXiv 2106.09785, equation 3.
    """
    with torch.no_grad():
        likeness = F.normalize(student, dim=2) @ F.normalize(teacher, dim=2).mT
        nearest = likeness.argmax(dim=2)
        target = torch.take_along_dim(teacher_output, nearest[:, :, None], dim=1)
    return -(target * F.log_softmax(student_output / temperature, dim=2)).sum(2).mean()


class Esvit(Distillation[EsvitRecipe]):
    """The networks, loss and schedules of EsViT.

    At chance, with a uniform teacher, the loss is ``ln(prototypes)``.

    Source: Li et al. 2021, arXiv 2106.09785; the loss of views, the heads and the moving average
    are lightly's.
    Deviations: no drop path, schedules in steps, centers start at the mean output of the first
    batch.
    """

    student: RegionBranch
    teacher: RegionBranch
    region_center: Tensor

    def __init__(self, settings: PretrainSettings, recipe: EsvitRecipe) -> None:
        super().__init__(settings, recipe)
        self.register_buffer("region_center", torch.zeros(1, recipe.prototypes))

    def _branch(self) -> RegionBranch:
        encoder = self.encoder()
        heads = (dino_head(encoder.geometry.dim, self.recipe) for _ in range(2))
        return RegionBranch(encoder, *heads)

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """Cross-entropy of views and of regions with the teacher's other global views."""
        large = self.views(images, generator)
        small = self.local_views(images, generator)
        flat = large.flatten(0, 1)
        tokens = self.student.backbone(flat)
        sizes: list[tuple[int, EncoderOutput]] = [(2, tokens)]
        if small is not None:
            sizes.append((len(small), self.student.backbone(small.flatten(0, 1))))
        with torch.no_grad():
            seen = self.teacher.backbone(flat)
            teacher_output = self.teacher.head(seen.image)
            regions = self.teacher.regions(seen.patches)
            self.begin_center(self.criterion.center, teacher_output, step)
            self.begin_center(self.region_center, regions.flatten(0, 1), step)
        student_output = [v for count, t in sizes for v in self.student.head(t.image).chunk(count)]
        temperature = self.temperature(step)
        of_views = self.criterion(
            list(teacher_output.chunk(2)), student_output, teacher_temp=temperature
        )
        of_regions = self._of_regions(regions, seen, sizes, temperature)
        weight = self.recipe.region_weight
        loss = (1 - weight) * of_views + weight * of_regions
        return Outcome(loss, tokens.patches, flat)

    def _of_regions(
        self,
        teacher_output: Tensor,
        seen: EncoderOutput,
        sizes: list[tuple[int, EncoderOutput]],
        temperature: float,
    ) -> Tensor:
        """The mean over pairs of different views, then the center moves."""
        targets = ((teacher_output - self.region_center) / temperature).softmax(2).chunk(2)
        found = []
        views = [
            (student_output, features)
            for count, tokens in sizes
            for student_output, features in zip(
                self.student.regions(tokens.patches).chunk(count),
                tokens.patches.detach().chunk(count),
                strict=True,
            )
        ]
        for first, (target, teacher) in enumerate(zip(targets, seen.patches.chunk(2), strict=True)):
            for second, (student_output, student) in enumerate(views):
                if first != second:
                    heat = self.recipe.student_temperature
                    found.append(region_entropy(target, student_output, teacher, student, heat))
        self._move_center(teacher_output)
        return torch.stack(found).mean()

    @torch.no_grad()
    def _move_center(self, teacher_output: Tensor) -> None:
        from lightly.models.modules.center import center_mean, center_momentum

        now = center_mean(teacher_output.float().flatten(0, 1), dim=(0,))
        momentum = self.criterion.center_momentum
        self.region_center.copy_(center_momentum(self.region_center, now, momentum))

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint%04d.pth``."""
        content = super().content(counter, optimizer)
        wrapped = "module." if self.recipe.head_batch_norm else ""
        content["student"] = _state(self.student, "module.")
        content["teacher"] = _state(self.teacher, wrapped)
        center = {"center": self.criterion.center[0], "center_grid": self.region_center}
        return {**content, "dino_loss": center}


def _state(branch: RegionBranch, prefix: str) -> dict[str, Tensor]:
    """State under that code's names: the backbone has no prefix, and Swin halves at stage ends."""

    def earlier(found: re.Match[str]) -> str:
        return f"layers.{int(found.group(1)) - 1}.downsample."

    backbone = renamed_state(branch.backbone)
    if branch.backbone.family == "swin":
        backbone = {
            re.sub(r"^layers\.(\d+)\.downsample\.", earlier, name): value
            for name, value in backbone.items()
        }
    return {
        **{f"{prefix}{name}": value for name, value in backbone.items()},
        **renamed_state(branch.head, f"{prefix}head.", layers__="mlp."),
        **renamed_state(branch.dense, f"{prefix}head_dense.", layers__="mlp."),
    }


METHOD = Method(
    name="esvit",
    title="EsViT",
    source="Li et al. 2021, Efficient Self-Supervised Vision Transformers for Representation "
    "Learning, arXiv 2106.09785",
    kind="prediction",
    families=("swin", "vit"),
    build=Esvit,
    published=EsvitRecipe(),
    small=replace(EsvitRecipe(), **{**SMALL_DISTILLATION, "local": MILD_LOCAL}),
    batch_size=512,
    epochs=300,
    file_name="checkpoint{:04d}.pth",
    chance_loss=lambda recipe, images: math.log(recipe.prototypes),
    changed=(
        "The centers start at the mean output of the first batch instead of zero.",
        "There is no drop path.",
        "Gradients are clipped by the norm of all weights together, not of each weight.",
    ),
)
