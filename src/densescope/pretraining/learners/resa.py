"""ReSA: pull images together as far as the encoder itself already finds them alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.pretraining.contrastive import gathered
from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import (
    Branch,
    Method,
    Outcome,
    renamed_state,
    student_and_teacher,
)
from densescope.pretraining.learners.siamese import EMATeacher
from densescope.pretraining.recipe import (
    CROP_AND_FLIP,
    MILD,
    SMALL_RUN,
    AugmentationSettings,
    Recipe,
)
from densescope.pretraining.settings import PretrainSettings

MILD_FIRST = replace(MILD, jitter=0.0, grayscale=0.0, blur=0.0)
RESA_SECOND = AugmentationSettings(scale=(0.2, 1.0), blur=0.5, solarize=0.2)


@dataclass(frozen=True, kw_only=True)
class ResaRecipe(Recipe):
    """ReSA's own settings; the defaults are those of its ResNet-50 at 256 images a step.

    Attributes:
        teacher_momentum: first and last value on a cosine.
        temperature: of the similarities that are learned.
        sharpness: of the assignment.
        iterations: of Sinkhorn's algorithm.
        head_dim: hidden width of projector and predictor.
        output_dim: width of what is compared.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.5
    final_learning_rate: float = 0.05
    warmup: float = 2 / 100
    weight_decay: tuple[float, float] = (1e-5, 1e-5)
    decay_all: bool = True
    first: AugmentationSettings = CROP_AND_FLIP
    second: AugmentationSettings = RESA_SECOND
    teacher_momentum: tuple[float, float] = (0.996, 1.0)
    temperature: float = 0.4
    sharpness: float = 0.05
    iterations: int = 3
    head_dim: int = 2048
    output_dim: int = 512


def self_assignment(
    vectors: Tensor, others: Tensor, *, sharpness: float, iterations: int
) -> Tensor:
    """How much each image belongs to each other one, ``sinkhorn(exp(cos / sharpness))``.

    Rows sum to 1, and each column gets about the same share of them. The identity where no two
    images are alike.

    Args:
        vectors: ``rows width``, of the encoder.
        others: ``images width``, of the moving average's encoder, on all devices.
        sharpness: below it, differences of cosines are ignored.
        iterations: at least 1.

    Returns:
        ``rows images`` in float32, without gradient.

    Source: Weng et al. 2025, arXiv 2501.18452; Sinkhorn's algorithm is lightly's.

    Example:
        >>> self_assignment(torch.eye(2), torch.eye(2), sharpness=0.05, iterations=3).round()
        tensor([[1., 0.],
                [0., 1.]])
    """
    from lightly.loss.swav_loss import sinkhorn

    with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
        cosines = F.normalize(vectors.float(), dim=1) @ F.normalize(others.float(), dim=1).T
        assigned: Tensor = sinkhorn(cosines, iterations, sharpness, gather_distributed=True)
    return assigned


def alignment(predictions: Tensor, keys: Tensor, assigned: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the similarities to all keys with an assignment.

    ``mean_i -sum_j a_ij log softmax_j(cos(g_i, k_j) / t)``; the logarithm of the number of keys at
    chance.

    Args:
        guesses: ``rows width``, of any length.
        keys: ``images width``.
        assigned: ``rows images``.
        temperature: ``t``.

    Returns:
        A scalar, differentiable in guesses and keys.

    Source: Weng et al. 2025, arXiv 2501.18452.
    """
    logits = F.normalize(predictions, dim=1) @ F.normalize(keys, dim=1).T / temperature
    return F.cross_entropy(logits, assigned)


class Resa(EMATeacher[ResaRecipe]):
    """The networks and loss of ReSA.

    Who belongs to whom is read from the encoder's own vectors of the weaker, first view.

    Source: Weng et al. 2025, arXiv 2501.18452; heads, Sinkhorn's algorithm and moving average are
    lightly's.
    """

    student: Branch
    teacher: Branch

    def __init__(self, settings: PretrainSettings, recipe: ResaRecipe) -> None:
        from lightly.models.modules import BYOLPredictionHead

        super().__init__(settings, recipe)
        self.student, self.teacher = student_and_teacher(self._branch)
        self.predictor = BYOLPredictionHead(recipe.output_dim, recipe.head_dim, recipe.output_dim)
        self.teacher_momentum = recipe.teacher_momentum

    def _branch(self) -> Branch:
        from lightly.models.modules import SimSiamProjectionHead

        encoder, recipe = self.encoder(), self.recipe
        head = SimSiamProjectionHead(encoder.geometry.dim, recipe.head_dim, recipe.output_dim)
        return Branch(encoder, head)

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """Cross-entropy of each view's similarities to the other view of all images."""
        recipe, views = self.recipe, self.views(images, generator)
        student_output, tokens = zip(*(self.student(view) for view in views), strict=True)
        with torch.no_grad():
            teacher_output, seen = zip(*(self.teacher(view) for view in views), strict=True)
        keys = [gathered(one) for one in teacher_output]
        assigned = self_assignment(
            tokens[0].image,
            gathered(seen[0].image),
            sharpness=recipe.sharpness,
            iterations=recipe.iterations,
        )
        loss_ab = alignment(
            self.predictor(student_output[0]), keys[1], assigned, recipe.temperature
        )
        loss_ba = alignment(
            self.predictor(student_output[1]), keys[0], assigned, recipe.temperature
        )
        patches = torch.cat([one.patches for one in tokens])
        return Outcome((loss_ab + loss_ba) / 2, patches, views.flatten(0, 1))

    def backbones(self) -> dict[str, Encoder]:
        """The trained one, then its moving average."""
        return {"encoder": self.student.backbone, "momentum": self.teacher.backbone}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint.pth.tar``."""
        return {
            "epoch": counter,
            "state_dict": {
                **renamed_state(self.student.backbone, "module.encoder."),
                **renamed_state(self.student.head, "module.projector.", layers__=""),
                **renamed_state(self.predictor, "module.predictor.", layers__=""),
                **renamed_state(self.teacher.backbone, "module.momentum_encoder."),
                **renamed_state(self.teacher.head, "module.momentum_projector.", layers__=""),
            },
            "optimizer": optimizer,
        }


METHOD = Method(
    name="resa",
    title="ReSA",
    source="Weng et al. 2025, Clustering Properties of Self-Supervised Learning, arXiv 2501.18452",
    kind="clusters",
    families=("resnet", "vit", "swin"),
    build=Resa,
    published=ResaRecipe(),
    small=ResaRecipe(
        **{**SMALL_RUN, "first": MILD_FIRST},
        teacher_momentum=(0.99, 1.0),
        head_dim=512,
        output_dim=128,
    ),
    batch_size=256,
    epochs=100,
    file_name="checkpoint_{:04d}.pth.tar",
    changed=(
        "Checkpoints are numbered; the public code overwrites a single file.",
        "The final learning rate does not grow with the batch.",
        "Layers before a batch norm have no bias.",
    ),
    chance_loss=lambda recipe, images: math.log(images),
    least_micro_batch=2,
    least_reason="an image is assigned to those of its batch",
)
