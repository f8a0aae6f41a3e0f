"""Barlow Twins: two views agree in every output, and no two outputs say the same."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from densescope.pretraining.learner import Branch, Method
from densescope.pretraining.learners.siamese import JointEmbedding
from densescope.pretraining.optimizers import Groups, parameter_groups_of
from densescope.pretraining.recipe import SMALL_RUN, Recipe
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class BarlowTwinsRecipe(Recipe):
    """Barlow Twins' own settings; the defaults are those of its ResNet-50 at 2,048 images a step.

    Attributes:
        vector_rate: learning rate of biases and norms over that of weights.
        redundancy: weight of the correlations between different outputs.
        head_dim: hidden width of the projector.
        output_dim: its outputs.
    """

    optimizer: str = "lars"
    learning_rate: float = 0.2
    final_learning_rate: float = 1.6e-3
    warmup: float = 10 / 1000
    weight_decay: tuple[float, float] = (1e-6, 1e-6)
    vector_rate: float = 0.0048 / 0.2
    redundancy: float = 0.0051
    head_dim: int = 8192
    output_dim: int = 8192


class BarlowTwins(JointEmbedding[BarlowTwinsRecipe]):
    """The network and loss of Barlow Twins.

    ``sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2``, where ``C`` is the correlation over
    the batch between outputs of the first and of the second view. 0 where ``C`` is the identity,
    somewhat above the number of outputs where the views are unrelated.

    Source: Zbontar et al. 2021, arXiv 2103.03230, equation 1; loss and head are lightly's.
    Deviations: several devices standardize their own images, then average ``C``.
    """

    def __init__(self, settings: PretrainSettings, recipe: BarlowTwinsRecipe) -> None:
        from lightly.loss import BarlowTwinsLoss
        from lightly.models.modules import BarlowTwinsProjectionHead

        super().__init__(settings, recipe)
        encoder = self.encoder()
        head = BarlowTwinsProjectionHead(encoder.geometry.dim, recipe.head_dim, recipe.output_dim)
        self.student = Branch(encoder, head)
        self.criterion: nn.Module = BarlowTwinsLoss(
            recipe.redundancy, gather_distributed=settings.devices > 1
        )

    def parameter_groups(self) -> Groups:
        """Biases and norms have a rate of their own."""
        weights, vectors = parameter_groups_of(self.parameters(), self.recipe)
        return [weights, {**vectors, "rate": self.recipe.vector_rate}]


def _chance_loss(recipe: BarlowTwinsRecipe, images: int) -> float:
    """The loss of unrelated views: squared correlations have a mean of ``1 / (images - 1)``."""
    outputs, square = recipe.output_dim, 1 / (images - 1)
    return outputs * (1 + square) + recipe.redundancy * outputs * (outputs - 1) * square


METHOD = Method(
    name="barlowtwins",
    title="Barlow Twins",
    source="Zbontar et al. 2021, Barlow Twins: Self-Supervised Learning via Redundancy Reduction, "
    "arXiv 2103.03230",
    kind="redundancy",
    families=("resnet", "vit", "swin"),
    build=BarlowTwins,
    published=BarlowTwinsRecipe(),
    small=BarlowTwinsRecipe(**SMALL_RUN, vector_rate=1.0, head_dim=512, output_dim=512),
    batch_size=2048,
    epochs=1000,
    file_name="checkpoint_{}.pth",
    changed=(
        "The final learning rate does not grow with the batch.",
        "The projector's last layer has a bias, which does not change the loss.",
        "Each of several devices standardizes its own images; then the correlations are averaged.",
    ),
    chance_loss=_chance_loss,
    least_micro_batch=2,
    least_reason="its correlations are computed over the images",
)
