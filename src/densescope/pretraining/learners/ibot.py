"""iBOT: DINO, and for hidden patches what the teacher says of them when they are seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from densescope.pretraining.learner import Method, Outcome
from densescope.pretraining.learners.distillation import (
    SMALL_DISTILLATION,
    DinoRecipe,
    Distillation,
)
from densescope.pretraining.masking import block_masks
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class IbotRecipe(DinoRecipe):
    """iBOT's own settings; the defaults are those of its ViT-S/16 over 800 epochs.

    Attributes:
        hidden: least and most of a view's patches that are hidden, where any are.
        hidden_views: part of the views that have patches hidden.
        hidden_aspect: least and most height over width of a hidden block.
        patch_weight: of the loss of patches beside that of class tokens.
    """

    final_learning_rate: float = 1e-6
    prototypes: int = 8192
    hidden: tuple[float, float] = (0.1, 0.5)
    hidden_views: float = 0.5
    hidden_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    patch_weight: float = 1.0


class Ibot(Distillation[IbotRecipe]):
    """The networks, loss and schedules of iBOT, with one head for class and patch tokens.

    The loss of patches is a mean over all views, 0 for those without hidden patches. At chance,
    with a uniform teacher, the whole is ``(1 + patch_weight * hidden_views) ln(prototypes)``.

    Source: Zhou et al. 2021, arXiv 2111.07832; losses, head and moving average are lightly's.
    Deviations: no drop path, schedules in steps, centers start at the mean output of the first
    batch; the patches' center is that of hidden patches only (as in DINOv2).
    """

    def __init__(self, settings: PretrainSettings, recipe: IbotRecipe) -> None:
        from lightly.loss import IBOTPatchLoss

        super().__init__(settings, recipe)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.student.backbone.geometry.dim))
        self.patch_criterion = IBOTPatchLoss(
            output_dim=recipe.prototypes, student_temp=recipe.student_temperature
        )

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """Cross-entropy of class tokens across views and of hidden patches within one."""
        views = self.views(images, generator)
        large = views.flatten(0, 1)
        small = self.local_views(images, generator)
        mask = self._mask(len(large), generator).to(large.device)
        tokens = self.student.backbone.with_masks(large, mask, self.mask_token)
        with torch.no_grad():
            seen = self.teacher.backbone(large)
            teacher_output = self.teacher.head(seen.image)
            self.begin_center(self.criterion.center, teacher_output, step)
        student_output = self.student.head(tokens.image).chunk(2)
        if small is not None:
            student_output += self.student(small.flatten(0, 1))[0].chunk(len(small))
        temperature = self.temperature(step)
        classes = self.criterion(
            list(teacher_output.chunk(2)), list(student_output), teacher_temp=temperature
        )
        patches = self._of_patches(seen.patches, tokens.patches, mask, step)
        loss = classes + self.recipe.patch_weight * patches
        return Outcome(loss, tokens.patches, large)

    def _mask(self, views: int, generator: torch.Generator) -> Tensor:
        recipe = self.recipe
        return block_masks(
            views,
            self.student.backbone.geometry.rows,
            ratio=recipe.hidden,
            probability=recipe.hidden_views,
            aspect=recipe.hidden_aspect,
            generator=generator,
        )

    def _of_patches(self, seen: Tensor, hidden: Tensor, mask: Tensor, step: int) -> Tensor:
        # One row alone would stop a batch norm in the head.
        if int(mask.sum()) < 2:
            return hidden.sum() * 0
        with torch.no_grad():
            teacher_output = self.teacher.head(seen[mask])
            self.begin_center(self.patch_criterion.center.center, teacher_output, step)
        student_output = self.student.head(hidden[mask])
        # A center is a mean over what it is given, and lightly's loss wants rows and columns.
        loss: Tensor = self.patch_criterion(
            teacher_output, student_output, mask[:, :, None], teacher_temp=self.temperature(step)
        )
        return loss

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint%04d.pth``."""
        content = super().content(counter, optimizer)
        content["student"]["module.backbone.masked_embed"] = self.mask_token.detach()[0]
        # That code has a last layer for patches too: with a shared head, the same one.
        for network in (content["student"], content["teacher"]):
            shared = [name for name in network if ".last_layer." in name]
            network |= {name.replace("layer.", "layer2."): network[name] for name in shared}
        del content["dino_loss"]
        content["ibot_loss"] = {
            "center": self.criterion.center[0],
            "center2": self.patch_criterion.center.center[None],
        }
        return content


def _chance_loss(recipe: IbotRecipe, images: int) -> float:
    """The loss of outputs that say nothing of the image."""
    return (1 + recipe.patch_weight * recipe.hidden_views) * math.log(recipe.prototypes)


METHOD = Method(
    name="ibot",
    title="iBOT",
    source="Zhou et al. 2021, iBOT: Image BERT Pre-Training with Online Tokenizer, "
    "arXiv 2111.07832",
    kind="masks",
    families=("vit",),
    build=Ibot,
    published=IbotRecipe(),
    small=IbotRecipe(**SMALL_DISTILLATION),
    batch_size=1024,
    epochs=800,
    file_name="checkpoint{:04d}.pth",
    chance_loss=_chance_loss,
    changed=(
        "The centers start at the mean output of the first batch instead of zero.",
        "The center of patches is a mean over masked patches only, as in DINOv2.",
        "Masked rectangles may be as small as one patch; those of iBOT have 16 or more of 196 "
        "patches as long as so many are left to mask.",
        "There is no drop path.",
        "Gradients are clipped by the norm of all weights together, not of each weight.",
    ),
)
