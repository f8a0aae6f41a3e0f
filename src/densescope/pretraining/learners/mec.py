"""MEC: views agree while the batch as a whole takes as long a code as it can."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.pretraining.contrastive import gathered
from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import Branch, Method, renamed_state, student_and_teacher
from densescope.pretraining.learners.siamese import EMATeacher, TwoViews
from densescope.pretraining.optimizers import ramp
from densescope.pretraining.recipe import SIMCLR_FIRST, SMALL_RUN, AugmentationSettings, Recipe
from densescope.pretraining.settings import PretrainSettings

MEC_FIRST = replace(SIMCLR_FIRST, scale=(0.2, 1.0))
MEC_SECOND = replace(MEC_FIRST, blur=0.1, solarize=0.2)


@dataclass(frozen=True, kw_only=True)
class MecRecipe(Recipe):
    """MEC's own settings; the defaults are those of its ResNet-50 at 1,024 images a step.

    Attributes:
        teacher_momentum: first and last value on a cosine.
        distortion: square of the error a code may make (the paper's epsilon squared).
        first_distortion: how many times that it is at first, falling on a line.
        distortion_warmup: part of the run that line takes.
        order: terms of the series that stands for the logarithm.
        output_dim: width of the projector.
        predictor_dim: hidden width of the predictor.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.5
    warmup: float = 10 / 100
    weight_decay: tuple[float, float] = (1e-5, 1e-5)
    decay_all: bool = True
    first: AugmentationSettings = MEC_FIRST
    second: AugmentationSettings = MEC_SECOND
    teacher_momentum: tuple[float, float] = (0.996, 1.0)
    distortion: float = 64.0
    first_distortion: float = 8.0
    distortion_warmup: float = 10 / 100
    order: int = 4
    output_dim: int = 2048
    predictor_dim: int = 512


def coding_loss(first: Tensor, second: Tensor, scale: float, order: int) -> Tensor:
    """Negative length of a code for a batch, ``-tr(sum_k (-1)^(k+1) (s C)^k / k) / (s m)``.

    ``C = A B'`` holds the cosines of ``m`` rows of the one with those of the other, and the sum is
    the series of ``log(1 + s C)``, so that the loss is near ``-logdet(I + s C) / (s m)`` where
    ``s C`` is small. -1 for ``s`` near 0 and equal rows. The same whichever comes first, and
    whichever way round rows and columns are: the smaller of the two matrices is raised to powers.

    Args:
        first: ``rows width``, of any length.
        second: ``rows width``, row by row of the same images.
        scale: ``s``, above 0.
        order: terms of the series, at least 1.

    Returns:
        A scalar in float32, differentiable in both.

    Source: Liu et al. 2022, arXiv 2210.11464, equation 2.
    Deviations: divided by the scale and the number of rows, as in the public code, so that the
    gradient does not grow with either.

    Example:
        >>> same = torch.eye(4)
        >>> coding_loss(same, same, 0.5, 2)  # -(1 - 0.5 / 2)
        tensor(-0.7500)
    """
    with torch.autocast(first.device.type, enabled=False):
        one, other = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
        rows, width = one.shape
        product = scale * (one @ other.T if rows <= width else other.T @ one)
        power, total = product, product.trace()
        for k in range(2, order + 1):
            power = power @ product
            total = total - (-1) ** k * power.trace() / k
        return -total / (scale * rows)


# Four terms stand for the logarithm while the eigenvalues of s C are small. Where all rows are
# alike the largest is output_dim / distortion: at 2, views that are turned against each other in a
# plane gain nothing; at the 8 of a narrow projector with the paper's 64 such a code beats every
# honest one, and small batches find it.
SMALL_MEC = MecRecipe(
    **SMALL_RUN,
    teacher_momentum=(0.99, 1.0),
    distortion=256.0,
    output_dim=512,
    predictor_dim=128,
)


class Mec(EMATeacher[MecRecipe], TwoViews[MecRecipe]):
    """The networks, loss and schedules of MEC.

    Its loss is 0 for unrelated views and falls towards -1.

    Source: Liu et al. 2022, arXiv 2210.11464; heads and moving average are lightly's.
    """

    student: Branch
    teacher: Branch

    def __init__(self, settings: PretrainSettings, recipe: MecRecipe) -> None:
        from lightly.models.modules import SimSiamPredictionHead

        super().__init__(settings, recipe)
        self.student, self.teacher = student_and_teacher(self._branch)
        self.predictor = SimSiamPredictionHead(
            recipe.output_dim, recipe.predictor_dim, recipe.output_dim
        )
        self.teacher_momentum = recipe.teacher_momentum

    def _branch(self) -> Branch:
        from lightly.models.modules import SimSiamProjectionHead

        encoder = self.encoder()
        dim = encoder.geometry.dim
        return Branch(encoder, SimSiamProjectionHead(dim, dim, self.recipe.output_dim))

    def compare(self, first: Tensor, second: Tensor, views: Tensor, step: int) -> Tensor:
        """The mean over both directions of the negative length of the batch's code."""
        student_output = [gathered(self.predictor(one)) for one in (first, second)]
        with torch.no_grad():
            teacher_output = [gathered(self.teacher(view)[0]) for view in views]
        scale, order = self.scale(step, len(teacher_output[0])), self.recipe.order
        loss_ab = coding_loss(student_output[0], teacher_output[1], scale, order)
        return (loss_ab + coding_loss(student_output[1], teacher_output[0], scale, order)) / 2

    def scale(self, step: int, images: int) -> float:
        """``width / (images * distortion)`` at a step."""
        recipe = self.recipe
        times = ramp(
            step,
            steps=self.settings.warmup_steps(recipe.distortion_warmup),
            start=recipe.first_distortion,
            end=1.0,
        )
        return recipe.output_dim / (images * recipe.distortion * times)

    def backbones(self) -> dict[str, Encoder]:
        """The trained one, then its moving average."""
        return {"encoder": self.student.backbone, "teacher": self.teacher.backbone}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint_%04d.pth.tar``."""
        encoder, teacher = "module.encoder.", "module.teacher."
        return {
            "epoch": counter,
            "arch": self.settings.backbone.architecture,
            "state_dict": {
                **renamed_state(self.student.backbone, encoder),
                **renamed_state(self.student.head, f"{encoder}fc.", layers__=""),
                **renamed_state(self.predictor, "module.predictor.", layers__=""),
                **renamed_state(self.teacher.backbone, teacher),
                **renamed_state(self.teacher.head, f"{teacher}fc.", layers__=""),
            },
            "optimizer": optimizer,
        }


METHOD = Method(
    name="mec",
    title="MEC",
    source="Liu et al. 2022, Self-Supervised Learning via Maximum Entropy Coding, arXiv 2210.11464",
    kind="redundancy",
    families=("resnet", "vit", "swin"),
    build=Mec,
    published=MecRecipe(),
    small=SMALL_MEC,
    batch_size=1024,
    epochs=100,
    file_name="checkpoint_{:04d}.pth.tar",
    changed=("The projector's last layer has no bias, because its batch norm would remove it.",),
    chance_loss=lambda recipe, images: 0.0,
    least_micro_batch=2,
    least_reason="its coding length is computed over the whole batch",
)
