"""DenseCL: contrast images, and the places in them that look alike, with those of earlier ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densescope.pretraining.contrastive import Queue, info_nce_with_queue
from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import Method, Outcome, renamed_state, student_and_teacher
from densescope.pretraining.learners.siamese import DenseBranch, DenseOutput, EMATeacher
from densescope.pretraining.recipe import MOCO_V2, SMALL_RUN, AugmentationSettings, Recipe
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class DenseClRecipe(Recipe):
    """DenseCL's own settings; the defaults are those of its ResNet-50 on ImageNet.

    Attributes:
        teacher_momentum: first and last value on a cosine.
        temperature: of the similarities.
        dense: weight of places against whole images (the paper's lambda).
        queue: images, and mean places of images, that serve as negatives.
        head_dim: hidden width of both heads.
        output_dim: width of what is compared.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.03
    weight_decay: tuple[float, float] = (1e-4, 1e-4)
    decay_all: bool = True
    first: AugmentationSettings = MOCO_V2
    second: AugmentationSettings = MOCO_V2
    teacher_momentum: tuple[float, float] = (0.999, 0.999)
    temperature: float = 0.2
    dense: float = 0.5
    queue: int = 65536
    head_dim: int = 2048
    output_dim: int = 128


class DenseCl(EMATeacher[DenseClRecipe]):
    """The networks, queues and loss of DenseCL.

    The query is the first view, the key the second. A place's positive is the key's place whose
    backbone feature is most similar to its own; its negatives are mean places of earlier images.

    Source: Wang et al. 2020, arXiv 2011.09157, equations 1 to 4; heads, matching and moving average
    are lightly's.
    Deviations: keys are not shuffled between devices, whose batch norms are synchronized instead.
    """

    student: DenseBranch
    teacher: DenseBranch

    def __init__(self, settings: PretrainSettings, recipe: DenseClRecipe) -> None:
        super().__init__(settings, recipe)
        self.student, self.teacher = student_and_teacher(self._branch)
        self.queue = Queue(recipe.queue, recipe.output_dim)
        self.place_queue = Queue(recipe.queue, recipe.output_dim)
        self.teacher_momentum = recipe.teacher_momentum

    def _branch(self) -> DenseBranch:
        from lightly.models.modules.heads import DenseCLProjectionHead

        encoder, recipe = self.encoder(), self.recipe
        sizes = (encoder.geometry.dim, recipe.head_dim, recipe.output_dim)
        return DenseBranch(encoder, DenseCLProjectionHead(*sizes), DenseCLProjectionHead(*sizes))

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """InfoNCE of whole images and of places, on two views drawn here."""
        views = self.views(images, generator)
        query: DenseOutput = self.student(views[0])
        with torch.no_grad():
            key: DenseOutput = self.teacher(views[1])
        whole, dense = self.whole_loss(query, key), self.dense_loss(query, key)
        share = self.recipe.dense
        loss = (1 - share) * whole + share * dense
        return Outcome(loss, query.tokens.patches, views[0])

    def whole_loss(self, query: DenseOutput, key: DenseOutput) -> Tensor:
        """InfoNCE of whole images; the keys then enter the queue."""
        loss = info_nce_with_queue(query.image, key.image, self.queue.rows, self.recipe.temperature)
        self.queue.put(F.normalize(key.image, dim=1))
        return loss

    def dense_loss(self, query: DenseOutput, key: DenseOutput) -> Tensor:
        """InfoNCE of patches; the mean patches of the keys then enter their queue."""
        from lightly.models.utils import select_most_similar

        right = select_most_similar(
            query.tokens.patches.detach(), key.tokens.patches, F.normalize(key.patches, dim=2)
        )
        places, others = query.patches.flatten(0, 1), self.place_queue.rows
        loss = info_nce_with_queue(places, right.flatten(0, 1), others, self.recipe.temperature)
        self.place_queue.put(F.normalize(key.patches.mean(1), dim=1))
        return loss

    def backbones(self) -> dict[str, Encoder]:
        """The trained one, then its moving average."""
        return {"backbone": self.student.backbone, "momentum": self.teacher.backbone}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``epoch_%d.pth``."""
        return {
            "meta": {"epoch": counter, "iter": counter * self.settings.checkpoint_every},
            "state_dict": {
                **_queue_state(self.queue, "queue"),
                **_queue_state(self.place_queue, "queue2"),
                **_branch_state(self.student, "encoder_q."),
                **_branch_state(self.teacher, "encoder_k."),
                **renamed_state(self.student.backbone, "backbone."),
            },
            "optimizer": optimizer,
        }


def _queue_state(queue: Queue, name: str) -> dict[str, Tensor]:
    return {name: queue.rows.T, f"{name}_ptr": queue.place[None]}


def _branch_state(branch: DenseBranch, prefix: str) -> dict[str, Tensor]:
    """That code's second head is made of convolutions over one pixel."""
    places = renamed_state(branch.local_head, f"{prefix}1.mlp2.", layers__="")
    return {
        **renamed_state(branch.backbone, f"{prefix}0."),
        **renamed_state(branch.head, f"{prefix}1.mlp.", layers__=""),
        **{k: v[..., None, None] if v.ndim == 2 else v for k, v in places.items()},
    }


METHOD = Method(
    name="densecl",
    title="DenseCL",
    source="Wang et al. 2020, Dense Contrastive Learning for Self-Supervised Visual Pre-Training, "
    "arXiv 2011.09157",
    kind="contrast",
    families=("resnet", "vit", "swin"),
    build=DenseCl,
    published=DenseClRecipe(),
    small=DenseClRecipe(
        **SMALL_RUN, teacher_momentum=(0.99, 0.99), queue=1024, head_dim=512, output_dim=64
    ),
    batch_size=256,
    epochs=200,
    file_name="epoch_{}.pth",
    changed=("Keys are not shuffled between devices; instead, batch norms are synchronized.",),
    chance_loss=lambda recipe, images: math.log(1 + recipe.queue),
)
