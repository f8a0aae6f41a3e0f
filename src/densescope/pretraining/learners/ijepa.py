"""I-JEPA: from the patches of a context guess what a moving average says of other blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import (
    Learner,
    Method,
    Outcome,
    renamed_state,
    student_and_teacher,
    update_ema,
)
from densescope.pretraining.masking import target_blocks
from densescope.pretraining.optimizers import cosine
from densescope.pretraining.recipe import (
    SMALL_RUN,
    AugmentationSettings,
    Recipe,
    check_heads,
    zero_or_more,
)
from densescope.pretraining.settings import PretrainSettings

IJEPA_CROP = AugmentationSettings(scale=(0.3, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)


@dataclass(frozen=True, kw_only=True)
class IjepaRecipe(Recipe):
    """I-JEPA's own settings; the defaults are those of its ViT-H/14 over 300 epochs.

    All but the depth of the predictor, which is the public code's for a ViT-B/16.

    Attributes:
        teacher_momentum: first and last value on a line.
        targets: blocks that are guessed.
        target_scale: least and most of an image that one covers.
        target_aspect: least and most height over width of one.
        context_scale: least and most of an image that the context covers, before targets go.
        predictor_dim: width of the predictor.
        predictor_depth: its blocks.
        predictor_heads: its heads; must divide the width.
    """

    learning_rate: float = 1e-3
    rate_images: int = zero_or_more(0)
    final_learning_rate: float = 1e-6
    warmup: float = 40 / 300
    weight_decay: tuple[float, float] = (0.04, 0.4)
    first: AugmentationSettings = IJEPA_CROP
    second: AugmentationSettings = IJEPA_CROP
    teacher_momentum: tuple[float, float] = (0.996, 1.0)
    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    predictor_dim: int = 384
    predictor_depth: int = 6
    predictor_heads: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.predictor_dim, self.predictor_heads, "predictor")


class Ijepa(Learner[IjepaRecipe]):
    """The networks, loss and schedules of I-JEPA.

    Targets are layer-normalized, so guessing 0 costs about 0.4 and a constant teacher nothing:
    a low loss alone says little.

    Source: Assran et al. 2023, arXiv 2301.08243; predictor and moving average are lightly's.
    Deviations: the moving average's momentum lies on a cosine.
    """

    fixed_positions = True

    def __init__(self, settings: PretrainSettings, recipe: IjepaRecipe) -> None:
        from lightly.models.modules.ijepa_timm import IJEPAPredictorTIMM

        super().__init__(settings, recipe)
        self.student, self.teacher = student_and_teacher(self.encoder)
        shape = self.student.geometry
        self.predictor = IJEPAPredictorTIMM(
            num_patches=shape.patches,
            depth=recipe.predictor_depth,
            mlp_dim=shape.dim,
            predictor_embed_dim=recipe.predictor_dim,
            num_heads=recipe.predictor_heads,
        )

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """Smooth absolute error of the guessed patches."""
        from lightly.models.utils import apply_masks

        views = self.views(images, generator, count=1)[0]
        recipe = self.recipe
        kept, blocks = target_blocks(
            len(views),
            self.student.geometry.rows,
            blocks=recipe.targets,
            scale=recipe.target_scale,
            aspect=recipe.target_aspect,
            context=recipe.context_scale,
            generator=generator,
        )
        kept, blocks = kept.to(views.device), [block.to(views.device) for block in blocks]
        with torch.no_grad():
            seen = self.teacher(views).patches
            teacher_output = apply_masks(F.layer_norm(seen, seen.shape[-1:]), blocks)
        tokens = self.student.visible(views, kept).patches
        prediction = self.predictor(tokens, kept, blocks)
        return Outcome(F.smooth_l1_loss(prediction, teacher_output), tokens, views, kept)

    def after_step(self, step: int) -> None:
        """The teacher follows."""
        start, end = self.recipe.teacher_momentum
        momentum = cosine(step, steps=self.settings.steps, start=start, end=end)
        update_ema(self.student, self.teacher, momentum)

    @property
    def trained(self) -> Encoder:
        """The encoder of the context."""
        encoder: Encoder = self.student
        return encoder

    def backbones(self) -> dict[str, Encoder]:
        """The teacher, then the encoder of the context."""
        return {"target": self.teacher, "context": self.student}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``jepa-ep%d.pth.tar``."""
        renames = {
            "predictor_embed__": "predictor_embed.",
            "predictor_proj__": "predictor_proj.",
            "decoder__mask_token": "mask_token",
            "decoder__": "predictor_",
        }
        assert self.settings.recipe is not None
        return {
            "encoder": renamed_state(self.student, "module."),
            "predictor": renamed_state(self.predictor, "module.", **renames),
            "opt": optimizer,
            "scaler": None,
            "target_encoder": renamed_state(self.teacher, "module."),
            "epoch": counter,
            "loss": 0.0,
            "batch_size": self.settings.micro_batch_size,
            "world_size": self.settings.devices,
            "lr": self.recipe.rate_for(self.settings.batch_size),
        }


METHOD = Method(
    name="ijepa",
    title="I-JEPA",
    source="Assran et al. 2023, Self-Supervised Learning from Images with a Joint-Embedding "
    "Predictive Architecture, arXiv 2301.08243",
    kind="masks",
    families=("vit",),
    build=Ijepa,
    published=IjepaRecipe(),
    small=IjepaRecipe(
        **{**SMALL_RUN, "first": IJEPA_CROP, "second": IJEPA_CROP},
        teacher_momentum=(0.99, 1.0),
        predictor_dim=64,
        predictor_depth=2,
        predictor_heads=4,
    ),
    batch_size=2048,
    epochs=300,
    file_name="jepa-ep{}.pth.tar",
    chance_loss=lambda recipe, images: 0.42,
    changed=(
        "The momentum of the moving average follows a cosine instead of a line.",
        "The learning rate warms up from 0, not from a fifth of the highest rate.",
        "Contexts are cut to one length by leaving out random patches, not the last ones. If the "
        "targets leave too small a context, the targets are drawn again, not the context.",
        "Size and aspect ratio of a block are drawn independently, and blocks may touch all four "
        "sides of the image.",
        "The loss in the file is 0; the mean loss is in log.txt.",
        "Only runs of a ViT-H and a ViT-g are public. Learning rate, warm-up, decay and length are "
        "those of the ViT-H/14, and the 6 blocks of the predictor are the default of the code for "
        "a ViT-B/16. That a ViT-B/16 was trained with these is not verified against public code.",
    ),
)
