"""Mugs: tell images apart, tell small groups of neighbors apart, and agree on clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densescope.pretraining.contrastive import Queue, info_nce_with_queue
from densescope.pretraining.encoders import Encoder, EncoderOutput
from densescope.pretraining.learner import Branch, Method, Outcome, renamed_state
from densescope.pretraining.learners.distillation import (
    SMALL_DISTILLATION,
    DinoRecipe,
    Distillation,
    dino_head,
)
from densescope.pretraining.optimizers import Groups, parameter_groups_of
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class MugsRecipe(DinoRecipe):
    """Mugs' own settings; the defaults are those of its ViT-S/16 over 800 epochs.

    Attributes:
        weights: of the losses of images, of groups of neighbors and of clusters.
        contrast_temperature: of the first two.
        output_dim: width of what the first two compare.
        neighbors: how many join an image.
        queue: rows in each memory.
        relation_depth: blocks that mix an image with its neighbors.
        patch_rate: learning rate of the patch embedding over that of everything else.
    """

    learning_rate: float = 8e-4
    final_learning_rate: float = 1e-6
    weight_decay: tuple[float, float] = (0.04, 0.1)
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast_temperature: float = 0.2
    output_dim: int = 256
    neighbors: int = 8
    queue: int = 65536
    relation_depth: int = 1
    patch_rate: float = 0.2


class MugsOutput(NamedTuple):
    """What a network says of views: of the image, of its group, of its clusters, in that order."""

    image: Tensor
    group: Tensor
    clusters: Tensor


class MugsBranch(Branch):
    """A backbone, blocks that mix it with neighbors, and a head per granularity."""

    def __init__(self, encoder: Encoder, recipe: MugsRecipe) -> None:
        from lightly.models.modules.heads import ProjectionHead
        from timm.models.vision_transformer import Block

        dim = encoder.geometry.dim
        super().__init__(encoder, dino_head(dim, recipe))
        heads = int(encoder.model.blocks[0].attn.num_heads)
        self.relation = nn.Sequential(
            *(Block(dim, heads, qkv_bias=True) for _ in range(recipe.relation_depth))
        )

        def projector() -> nn.Module:
            width, out = recipe.head_dim, recipe.output_dim
            layers = [(dim, width, None, nn.GELU()), (width, width, None, nn.GELU())]
            head: nn.Module = ProjectionHead([*layers, (width, out, nn.BatchNorm1d(out), None)])
            return head

        self.image_head, self.group_head = projector(), projector()

    def say(self, tokens: EncoderOutput, memory: Tensor, neighbors: int) -> MugsOutput:
        """All three granularities of the views whose tokens these are."""
        mixed = self.relation(with_neighbors(tokens.patches.mean(1), memory, neighbors))
        group = self.backbone.model.norm(mixed[:, 0])
        return MugsOutput(
            self.image_head(tokens.image), self.group_head(group), self.head(tokens.image)
        )


def with_neighbors(rows: Tensor, memory: Tensor, neighbors: int) -> Tensor:
    """Every row, followed by the rows of a memory that point most nearly the same way.

    Args:
        rows: ``views dim``.
        memory: ``size dim``.
        neighbors: how many; all of the memory where it is smaller.

    Returns:
        ``views (1 + neighbors) dim``, nearest first; gradients flow through the row itself.

    Source: Zhou et al. 2022, Mugs, arXiv 2203.14415, section 3.2.

    Example:
        >>> memory = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
        >>> with_neighbors(torch.tensor([[0.1, 2.0]]), memory, 1)[0, 1].tolist()
        [0.0, 5.0]
    """
    with torch.no_grad():
        likeness = F.normalize(rows, dim=1) @ F.normalize(memory, dim=1).T.to(rows.dtype)
        nearest = likeness.topk(min(neighbors, len(memory)), dim=1).indices
        near = memory[nearest].to(rows.dtype)
    return torch.cat([rows[:, None], near], dim=1)


class Mugs(Distillation[MugsRecipe]):
    """The networks, losses and schedules of Mugs.

    At chance, with a uniform teacher, the loss is the mean of ``ln(1 + queue)`` twice and
    ``ln(prototypes)``, weighted.

    Source: Zhou et al. 2022, arXiv 2203.14415; heads, center and moving average are lightly's.
    Deviations: no drop path, schedules in steps, the center starts at the mean output of the first
    batch; views, heads and the memory of neighbors as the row of ``METHODS`` says.
    """

    student: MugsBranch
    teacher: MugsBranch

    def __init__(self, settings: PretrainSettings, recipe: MugsRecipe) -> None:
        from lightly.models.modules import BYOLPredictionHead

        super().__init__(settings, recipe)
        width, hidden = recipe.output_dim, recipe.head_dim
        self.image_predictor = BYOLPredictionHead(width, hidden, width)
        self.group_predictor = BYOLPredictionHead(width, hidden, width)
        self.image_queue = Queue(recipe.queue, width)
        self.group_queue = Queue(recipe.queue, width)
        self.memory = Queue(recipe.queue, self.student.backbone.geometry.dim)

    def _branch(self) -> MugsBranch:
        return MugsBranch(self.encoder(), self.recipe)

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """The weighted mean of the three losses."""
        large = self.views(images, generator)
        small = self.local_views(images, generator)
        flat, memory = large.flatten(0, 1), self.memory.rows.clone()
        neighbors = self.recipe.neighbors
        with torch.no_grad():
            seen = self.teacher.backbone(flat)
            teacher_output = self.teacher.say(seen, memory, neighbors)
            self.begin_center(self.criterion.center, teacher_output.clusters, step)
        tokens = self.student.backbone(flat)
        views = _split(self.student.say(tokens, memory, neighbors), 2)
        if small is not None:
            student_output = self.student.say(
                self.student.backbone(small.flatten(0, 1)), memory, neighbors
            )
            views += _split(student_output, len(small))
        terms = self._compare(_split(teacher_output, 2), views, step)
        weights = self.recipe.weights
        loss = sum(w * term for w, term in zip(weights, terms, strict=True))
        self.image_queue.put(teacher_output.image)
        self.group_queue.put(teacher_output.group)
        self.memory.put(seen.patches[: len(images)].mean(1))
        return Outcome(torch.as_tensor(loss) / sum(weights), tokens.patches, flat)

    def _compare(
        self, teacher_output: list[MugsOutput], views: list[MugsOutput], step: int
    ) -> Tensor:
        """Losses of images, groups and clusters, means over pairs of different views.

        Global and small views count one half each.
        """
        heat, cold = self.recipe.contrast_temperature, self.recipe.student_temperature
        clusters = torch.stack([target.clusters for target in teacher_output])
        wanted = ((clusters - self.criterion.center) / self.temperature(step)).softmax(2)
        by_size: tuple[list[Tensor], list[Tensor]] = ([], [])
        for second, student_output in enumerate(views):
            image, group = (
                self.image_predictor(student_output.image),
                self.group_predictor(student_output.group),
            )
            for first, target in enumerate(teacher_output):
                if first != second:
                    terms = (
                        info_nce_with_queue(image, target.image, self.image_queue.rows, heat),
                        info_nce_with_queue(group, target.group, self.group_queue.rows, heat),
                        F.cross_entropy(student_output.clusters / cold, wanted[first]),
                    )
                    by_size[second >= len(teacher_output)].append(torch.stack(terms))
        self.criterion.update_center(clusters)
        halves = [torch.stack(pairs).mean(0) for pairs in by_size if pairs]
        return torch.stack(halves).mean(0)

    def parameter_groups(self) -> Groups:
        """The patch embedding learns more slowly than everything else."""
        slow = list(self.student.backbone.model.patch_embed.parameters())
        known = {id(parameter) for parameter in slow}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in known]
        rate = self.recipe.patch_rate
        return [
            *parameter_groups_of(rest, self.recipe),
            *({**group, "rate": rate} for group in parameter_groups_of(slow, self.recipe)),
        ]

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint%04d.pth``."""
        content = super().content(counter, optimizer)
        wrapped = "module." if self.recipe.head_batch_norm else ""
        content["student"] |= {
            **_heads(self.student, "module."),
            **renamed_state(self.image_predictor, "module.instance_predictor."),
            **renamed_state(self.group_predictor, "module.local_group_predictor."),
        }
        content["teacher"] |= _heads(self.teacher, wrapped)
        return content


def _split(student_output: MugsOutput, views: int) -> list[MugsOutput]:
    return [
        MugsOutput(*parts)
        for parts in zip(*(part.chunk(views) for part in student_output), strict=True)
    ]


def _heads(branch: MugsBranch, prefix: str) -> dict[str, Tensor]:
    """The relation blocks lie inside that code's backbone."""
    return {
        **renamed_state(branch.relation, f"{prefix}backbone.relation_blocks."),
        **renamed_state(branch.image_head, f"{prefix}instance_head."),
        **renamed_state(branch.group_head, f"{prefix}local_group_head."),
    }


def _chance_loss(recipe: MugsRecipe, images: int) -> float:
    """The loss of outputs that say nothing of the image."""
    apart = math.log(1 + recipe.queue)
    parts = zip(recipe.weights, (apart, apart, math.log(recipe.prototypes)), strict=True)
    return sum(weight * part for weight, part in parts) / sum(recipe.weights)


METHOD = Method(
    name="mugs",
    title="Mugs",
    source="Zhou et al. 2022, Mugs: A Multi-Granular Self-Supervised Learning Framework, "
    "arXiv 2203.14415",
    kind="contrast",
    families=("vit",),
    build=Mugs,
    published=MugsRecipe(),
    small=replace(
        MugsRecipe(),
        **SMALL_DISTILLATION,
        output_dim=128,
        neighbors=4,
        queue=2048,
        relation_depth=1,
        patch_rate=1.0,
    ),
    batch_size=1024,
    epochs=800,
    file_name="checkpoint{:04d}.pth",
    chance_loss=_chance_loss,
    changed=(
        "Student and teacher get the same global views. Mugs draws other views for the student, "
        "with RandAugment and random erasing in half of these and in half of the small views.",
        "There is one memory for neighbors, of the teacher's mean normalized patches, and a query "
        "is such a mean. Mugs has a memory per network, and a query is the mean of all tokens "
        "before the last norm.",
        "The heads of images and groups end in a batch norm, and their predictors have one. Those "
        "of Mugs have none, but L2 normalization between them, and a predictor of twice the width.",
        "The names of the heads and queues beside the backbone are not those of Mugs' own files.",
        "The center starts at the mean output of the first batch instead of zero.",
        "There is no drop path.",
        "Gradients are clipped by the norm of all weights together, not of each weight.",
    ),
    least_micro_batch=2,
    least_reason="its batch norms compute means over the images",
)
