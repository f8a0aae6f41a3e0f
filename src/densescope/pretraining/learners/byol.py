"""BYOL: guess from one view what a moving average says of the other."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import Branch, Method, renamed_state, student_and_teacher
from densescope.pretraining.learners.siamese import EMAPredictive
from densescope.pretraining.recipe import SMALL_RUN, Recipe
from densescope.pretraining.settings import PretrainSettings

# That code names the layers of its heads.
_LAYERS = {"layers__0": "l1", "layers__1": "bn1", "layers__3": "l2"}
_PLACES = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


@dataclass(frozen=True, kw_only=True)
class ByolRecipe(Recipe):
    """BYOL's own settings; the defaults are those of its ResNet-50 over 300 epochs.

    Over 1,000 epochs the paper has a rate of 0.2, a decay of 1.5e-6 and a momentum from 0.996.

    Attributes:
        teacher_momentum: first and last value on a cosine.
        head_dim: hidden width of projector and predictor.
        output_dim: width of what is compared.
    """

    optimizer: str = "lars"
    learning_rate: float = 0.3
    final_learning_rate: float = 4.8e-3
    warmup: float = 10 / 300
    weight_decay: tuple[float, float] = (1e-6, 1e-6)
    teacher_momentum: tuple[float, float] = (0.99, 1.0)
    head_dim: int = 4096
    output_dim: int = 256


class Byol(EMAPredictive[ByolRecipe]):
    """The networks, loss and schedules of BYOL.

    Its loss lies in [0, 8]: 4 for unrelated directions, 0 also when everything collapses.

    Source: Grill et al. 2020, arXiv 2006.07733; heads, similarity and moving average are
    lightly's.
    Deviations: batch norm over one device's images unless several GPUs share the batch. The public
    PyTorch code, whose files these are, norms both views together and takes the mean of both
    directions, not their sum.
    """

    def __init__(self, settings: PretrainSettings, recipe: ByolRecipe) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead

        super().__init__(settings, recipe)
        self.student, self.teacher = student_and_teacher(self._branch)
        self.predictor = BYOLPredictionHead(recipe.output_dim, recipe.head_dim, recipe.output_dim)
        self.similarity = NegativeCosineSimilarity()
        self.teacher_momentum = recipe.teacher_momentum

    def _branch(self) -> Branch:
        from lightly.models.modules import BYOLProjectionHead

        encoder = self.encoder()
        head = BYOLProjectionHead(
            encoder.geometry.dim, self.recipe.head_dim, self.recipe.output_dim
        )
        return Branch(encoder, head)

    def prediction_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Squared distance of the unit vectors, ``2 - 2 cos``."""
        loss: Tensor = 2 + 2 * self.similarity(prediction, target)
        return loss

    def backbones(self) -> dict[str, Encoder]:
        """The moving average's, then the trained one's."""
        return {"target": self.teacher.backbone, "online": self.student.backbone}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``resnet50_%d.pth.tar``."""
        return {
            "config": self.settings.to_json(),
            "epoch": counter,
            "steps": counter * self.settings.checkpoint_every,
            "model": {
                **_network(self.student, "module.online_network."),
                **_network(self.teacher, "module.target_network."),
                **renamed_state(self.predictor, "module.predictor.predictor.", **_LAYERS),
            },
            "optimizer": optimizer,
        }


def _network(branch: Branch, prefix: str) -> dict[str, Tensor]:
    """That code cuts a ResNet into a numbered sequence, and its projector has a name misspelled."""

    def numbered(found: re.Match[str]) -> str:
        return f"{_PLACES[found.group(1)]}."

    backbone = renamed_state(branch.backbone)
    if branch.backbone.family == "resnet":
        pattern = re.compile(rf"^({'|'.join(_PLACES)})\.")
        backbone = {pattern.sub(numbered, name): value for name, value in backbone.items()}
    return {
        **{f"{prefix}encoder.{name}": value for name, value in backbone.items()},
        **renamed_state(branch.head, f"{prefix}projetion.", **_LAYERS),
    }


METHOD = Method(
    name="byol",
    title="BYOL",
    source="Grill et al. 2020, Bootstrap Your Own Latent, arXiv 2006.07733",
    kind="prediction",
    families=("resnet", "vit", "swin"),
    build=Byol,
    published=ByolRecipe(),
    small=replace(ByolRecipe(), **SMALL_RUN, head_dim=512),
    batch_size=4096,
    epochs=300,
    file_name="resnet50_{}.pth.tar",
    chance_loss=lambda recipe, images: 4.0,
    changed=(
        "The recipe of 300 epochs is that of the PyTorch code whose files densescope writes. "
        "Except for the final learning rate it is also that of the authors' code; their best "
        "network was trained for 1,000 epochs at a rate of 0.2, a decay of 1.5e-6 and a momentum "
        "from 0.996.",
        "The learning rate warms up from 0, not from a thousandth, its cosine ends with the run, "
        "and the final rate does not grow with the batch.",
        "Each view is a batch of its own for batch norm, as in the authors' code.",
        "Layers before a batch norm have no bias.",
    ),
    least_micro_batch=2,
    least_reason="its batch norms compute means over the images",
)
