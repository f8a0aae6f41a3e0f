"""MoCo v3: tell an image's other view, seen by a moving average, from all other images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from densescope.pretraining.contrastive import info_nce
from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import Branch, Method, renamed_state, student_and_teacher
from densescope.pretraining.learners.siamese import EMAPredictive
from densescope.pretraining.recipe import SMALL_RUN, Recipe
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class MocoV3Recipe(Recipe):
    """MoCo v3's own settings; the defaults are those of its ViT-S/16.

    Attributes:
        teacher_momentum: first and last value on a cosine.
        temperature: of the similarities.
        head_dim: hidden width of projector and predictor.
        output_dim: width of what is compared.
        frozen_patches: whether a ViT's patch projection stays as it was drawn.
    """

    learning_rate: float = 1.5e-4
    warmup: float = 40 / 300
    weight_decay: tuple[float, float] = (0.1, 0.1)
    decay_all: bool = True
    teacher_momentum: tuple[float, float] = (0.99, 1.0)
    temperature: float = 0.2
    head_dim: int = 4096
    output_dim: int = 256
    frozen_patches: bool = True


class MocoV3(EMAPredictive[MocoV3Recipe]):
    """The networks, loss and schedules of MoCo v3.

    At chance the loss is ``4 temperature ln(images)``.

    Source: Chen, Xie, He 2021, arXiv 2104.02057; heads and moving average are lightly's.
    Deviations: the heads' last batch norms keep scale and shift.
    """

    fixed_positions = True

    def __init__(self, settings: PretrainSettings, recipe: MocoV3Recipe) -> None:
        from lightly.models.modules import BYOLPredictionHead, MoCoProjectionHead

        super().__init__(settings, recipe)
        self.student, self.teacher = student_and_teacher(self._branch)
        sizes = (recipe.output_dim, recipe.head_dim, recipe.output_dim)
        if self.student.backbone.family == "vit":
            self.predictor: nn.Module = MoCoProjectionHead(*sizes, num_layers=2, batch_norm=True)
        else:
            self.predictor = BYOLPredictionHead(*sizes)
        self.teacher_momentum = recipe.teacher_momentum

    def _branch(self) -> Branch:
        from lightly.models.modules import MoCoProjectionHead

        encoder, recipe = self.encoder(), self.recipe
        if recipe.frozen_patches and encoder.family == "vit":
            encoder.model.patch_embed.requires_grad_(False)
        layers = 3 if encoder.family == "vit" else 2
        head = MoCoProjectionHead(
            encoder.geometry.dim, recipe.head_dim, recipe.output_dim, layers, batch_norm=True
        )
        return Branch(encoder, head)

    def prediction_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """InfoNCE among the images of the batch, times ``2 t``."""
        temperature = self.recipe.temperature
        return 2 * temperature * info_nce(prediction, target, temperature)

    def backbones(self) -> dict[str, Encoder]:
        """The moving average's, then the trained one's."""
        return {"momentum": self.teacher.backbone, "base": self.student.backbone}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint_%04d.pth.tar``."""
        base, momentum = "module.base_encoder.", "module.momentum_encoder."
        return {
            "epoch": counter,
            "arch": self.settings.backbone.architecture,
            "state_dict": {
                **renamed_state(self.student.backbone, base),
                **renamed_state(self.student.head, f"{base}head.", layers__=""),
                **renamed_state(self.teacher.backbone, momentum),
                **renamed_state(self.teacher.head, f"{momentum}head.", layers__=""),
                **renamed_state(self.predictor, "module.predictor.", layers__=""),
            },
            "optimizer": optimizer,
            "scaler": {},
        }


METHOD = Method(
    name="mocov3",
    title="MoCo v3",
    source="Chen, Xie, He 2021, An Empirical Study of Training Self-Supervised Vision "
    "Transformers, arXiv 2104.02057",
    kind="contrast",
    families=("vit", "resnet", "swin"),
    build=MocoV3,
    published=MocoV3Recipe(),
    small=MocoV3Recipe(**SMALL_RUN, head_dim=512, output_dim=128, frozen_patches=False),
    batch_size=4096,
    epochs=300,
    file_name="checkpoint_{:04d}.pth.tar",
    chance_loss=lambda recipe, images: 4 * recipe.temperature * math.log(images),
    changed=(
        "The last batch norms of projector and predictor keep their scale and shift.",
        "The last layer of the predictor of a ResNet or Swin has a bias, because no batch norm "
        "follows it.",
        "The head of a ResNet is called head in the file, not fc.",
    ),
    least_micro_batch=2,
    least_reason="its loss contrasts an image with the others of its batch",
)
