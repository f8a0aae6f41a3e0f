"""VICReg: two views agree, every output varies, and no two outputs vary together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from densescope.pretraining.learner import Branch, Method
from densescope.pretraining.learners.siamese import JointEmbedding
from densescope.pretraining.recipe import SMALL_RUN, Recipe
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class VicregRecipe(Recipe):
    """VICReg's own settings; the defaults are those of its ResNet-50 at 2,048 images a step.

    Attributes:
        invariance: weight of the squared distance between views.
        variance: weight of the hinge that holds every output's standard deviation at 1.
        covariance: weight of the squared covariances.
        head_dim: hidden width of the projector.
        output_dim: its outputs.
    """

    optimizer: str = "lars"
    learning_rate: float = 0.2
    final_learning_rate: float = 1.6e-3
    warmup: float = 10 / 1000
    weight_decay: tuple[float, float] = (1e-6, 1e-6)
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    head_dim: int = 8192
    output_dim: int = 8192


class Vicreg(JointEmbedding[VicregRecipe]):
    """The network and loss of VICReg.

    ``invariance * mean (a - b)^2 + variance * mean max(0, 1 - sqrt(var + 1e-4)) + covariance *
    sum_{i != j} cov_ij^2 / outputs``; the second mean is over outputs and views, the last sum over
    both views too. 0 at best; the variance term alone where everything collapses.

    Source: Bardes, Ponce, LeCun 2021, arXiv 2105.04906, equation 6; loss and head are lightly's.
    """

    def __init__(self, settings: PretrainSettings, recipe: VicregRecipe) -> None:
        from lightly.loss import VICRegLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        super().__init__(settings, recipe)
        encoder = self.encoder()
        head = VICRegProjectionHead(encoder.geometry.dim, recipe.head_dim, recipe.output_dim)
        self.student = Branch(encoder, head)
        self.criterion: nn.Module = VICRegLoss(
            recipe.invariance,
            recipe.variance,
            recipe.covariance,
            gather_distributed=settings.devices > 1,
        )


METHOD = Method(
    name="vicreg",
    title="VICReg",
    source="Bardes, Ponce, LeCun 2021, VICReg: Variance-Invariance-Covariance Regularization for "
    "Self-Supervised Learning, arXiv 2105.04906",
    kind="redundancy",
    families=("resnet", "vit", "swin"),
    build=Vicreg,
    published=VicregRecipe(),
    small=VicregRecipe(**SMALL_RUN, head_dim=512, output_dim=512),
    batch_size=2048,
    epochs=1000,
    file_name="model_{}.pth",
    changed=(
        "The final learning rate does not grow with the batch.",
        "The projector's last layer has a bias, which does not change the loss; layers before a "
        "batch norm have no bias.",
    ),
    chance_loss=lambda recipe, images: 0.99 * recipe.variance,
    least_micro_batch=2,
    least_reason="its variances are computed over the images",
)
