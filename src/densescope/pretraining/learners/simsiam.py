"""SimSiam: guess one view's projection from the other's, with no negatives and no teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from densescope.pretraining.learner import Branch, Method, renamed_state
from densescope.pretraining.learners.siamese import Predictive
from densescope.pretraining.optimizers import Groups, parameter_groups_of
from densescope.pretraining.recipe import MOCO_V2, SMALL_RUN, AugmentationSettings, Recipe
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class SimSiamRecipe(Recipe):
    """SimSiam's own settings; the defaults are those of its ResNet-50.

    Attributes:
        output_dim: width of the projector.
        predictor_dim: hidden width of the predictor.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.05
    weight_decay: tuple[float, float] = (1e-4, 1e-4)
    decay_all: bool = True
    first: AugmentationSettings = MOCO_V2
    second: AugmentationSettings = MOCO_V2
    output_dim: int = 2048
    predictor_dim: int = 512


class SimSiam(Predictive[SimSiamRecipe]):
    """The networks and loss of SimSiam.

    Its loss lies in [-1, 1] and is 0 for unrelated directions; it also reaches -1 when all
    images collapse to one vector, so a low loss alone says nothing.

    Source: Chen, He 2020, arXiv 2011.10566; heads and similarity are lightly's.
    """

    def __init__(self, settings: PretrainSettings, recipe: SimSiamRecipe) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

        super().__init__(settings, recipe)
        encoder = self.encoder()
        dim = encoder.geometry.dim
        self.student = Branch(encoder, SimSiamProjectionHead(dim, dim, recipe.output_dim))
        self.predictor = SimSiamPredictionHead(
            recipe.output_dim, recipe.predictor_dim, recipe.output_dim
        )
        self.similarity = NegativeCosineSimilarity()

    def prediction_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Half the negative cosine."""
        loss: Tensor = self.similarity(prediction, target) / 2
        return loss

    def parameter_groups(self) -> Groups:
        """The predictor keeps the highest rate throughout."""
        predictor = parameter_groups_of(self.predictor.parameters(), self.recipe)
        return [
            *parameter_groups_of(self.student.parameters(), self.recipe),
            *({**group, "scheduled": False} for group in predictor),
        ]

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint_%04d.pth.tar``."""
        return {
            "epoch": counter,
            "arch": self.settings.backbone.architecture,
            "state_dict": {
                **renamed_state(self.student.backbone, "module.encoder."),
                **renamed_state(self.student.head, "module.encoder.fc.", layers__=""),
                **renamed_state(self.predictor, "module.predictor.", layers__=""),
            },
            "optimizer": optimizer,
        }


METHOD = Method(
    name="simsiam",
    title="SimSiam",
    source="Chen, He 2020, Exploring Simple Siamese Representation Learning, arXiv 2011.10566",
    kind="prediction",
    families=("resnet", "vit", "swin"),
    build=SimSiam,
    published=SimSiamRecipe(),
    small=SimSiamRecipe(**SMALL_RUN, output_dim=512, predictor_dim=128),
    batch_size=512,
    epochs=100,
    file_name="checkpoint_{:04d}.pth.tar",
    chance_loss=lambda recipe, images: 0.0,
    changed=(
        "The learning rate changes every step, not every epoch.",
        "The projector's last layer has no bias, because its batch norm would remove it.",
    ),
    least_micro_batch=2,
    least_reason="its batch norms compute means over the images",
)
