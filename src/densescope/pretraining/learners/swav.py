"""SwAV: guess from one view which prototypes another view was assigned to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.pretraining.contrastive import Queue
from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import Branch, Learner, Method, Outcome, renamed_state
from densescope.pretraining.recipe import (
    MILD_LOCAL,
    SMALL_RUN,
    AugmentationSettings,
    MultiCropRecipe,
    zero_or_more,
)
from densescope.pretraining.settings import PretrainSettings

SWAV_GLOBAL = AugmentationSettings(
    scale=(0.14, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5
)
SWAV_LOCAL = replace(SWAV_GLOBAL, scale=(0.05, 0.14))


@dataclass(frozen=True, kw_only=True)
class SwavRecipe(MultiCropRecipe):
    """SwAV's own settings; the defaults are those of its ResNet-50 at 4,096 images a step.

    Attributes:
        temperature: of the student's scores.
        sharpness: of the assignment (the paper's epsilon).
        iterations: of Sinkhorn's algorithm.
        prototypes: how many.
        frozen_prototypes: part of the run without a change of them.
        queue: earlier images per view that are assigned together with the batch.
        queue_start: part of the run after which the queue fills.
        head_dim: hidden width of the projector.
        output_dim: width of what is compared.
    """

    optimizer: str = "lars"
    learning_rate: float = 0.3
    final_learning_rate: float = 4.8e-3
    warmup: float = 10 / 400
    weight_decay: tuple[float, float] = (1e-6, 1e-6)
    decay_all: bool = True
    first: AugmentationSettings = SWAV_GLOBAL
    second: AugmentationSettings = SWAV_GLOBAL
    local: AugmentationSettings = SWAV_LOCAL
    local_count: int = zero_or_more(6)
    temperature: float = 0.1
    sharpness: float = 0.05
    iterations: int = 3
    prototypes: int = 3000
    frozen_prototypes: float = 1 / 400
    queue: int = zero_or_more(0)
    queue_start: float = 0.0
    head_dim: int = 2048
    output_dim: int = 128


class Swav(Learner[SwavRecipe]):
    """The network, prototypes and loss of SwAV.

    At chance the loss is about ``ln(prototypes)``.

    Source: Caron et al. 2020, arXiv 2006.09882; loss, Sinkhorn's algorithm
    and head are lightly's.
    Deviations: the queue begins to count when it is full, on all devices at once.
    """

    def __init__(self, settings: PretrainSettings, recipe: SwavRecipe) -> None:
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead
        from lightly.models.utils import normalize_weight

        super().__init__(settings, recipe)
        _check(settings, recipe)
        encoder = self.encoder()
        head = SwaVProjectionHead(encoder.geometry.dim, recipe.head_dim, recipe.output_dim)
        self.student = Branch(encoder, head)
        # lightly's prototypes have a bias, which cosines have not.
        self.prototypes = nn.Linear(recipe.output_dim, recipe.prototypes, bias=False)
        normalize_weight(self.prototypes.weight)
        queues = [Queue(recipe.queue, recipe.output_dim) for _ in range(2 * bool(recipe.queue))]
        self.queues = nn.ModuleList(queues)
        self.criterion = SwaVLoss(
            recipe.temperature,
            recipe.iterations,
            recipe.sharpness,
            sinkhorn_gather_distributed=settings.devices > 1,
        )

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """Cross-entropy of each view's scores with the other global views' assignments."""
        large = self.views(images, generator)
        small = self.local_views(images, generator)
        tokens = self.student.backbone(large.flatten(0, 1))
        vectors = [tokens.image]
        if small is not None:
            vectors.append(self.student.backbone(small.flatten(0, 1)).image)
        unit = F.normalize(self.student.head(torch.cat(vectors)), dim=1)
        outputs = torch.split(unit, len(images))
        scores = [self.prototypes(output) for output in outputs]
        queued = self._queue_scores(outputs[:2], step)
        loss: Tensor = self.criterion(scores[:2], scores[2:], queued)
        return Outcome(loss.sum(), tokens.patches, large.flatten(0, 1))

    @torch.no_grad()
    def _queue_scores(self, outputs: tuple[Tensor, ...], step: int) -> list[Tensor] | None:
        """Scores of what the queues held, once they are full; the batch then enters them."""
        from lightly.utils import dist

        if step < self.queue_begins:
            return None
        scores = None
        if step >= self.queue_counts:
            # All devices hold the same queue, and each brings its share into the assignment.
            share = slice(dist.rank(), None, dist.world_size())
            scores = [self.prototypes(queue.rows[share]) for queue in self.memories]
        for queue, output in zip(self.memories, outputs, strict=True):
            queue.put(output)
        return scores

    @property
    def memories(self) -> list[Queue]:
        """One queue per global view, or none."""
        return [queue for queue in self.queues if isinstance(queue, Queue)]

    @property
    def queue_begins(self) -> float:
        """Step from which the queues fill; infinite without queues."""
        return self.settings.warmup_steps(self.recipe.queue_start) if self.queues else math.inf

    @property
    def queue_counts(self) -> float:
        """Step from which the queues are full."""
        return self.queue_begins + -(-self.recipe.queue // self.settings.batch_size)

    def before_step(self, step: int) -> None:
        """The prototypes wait until assignments mean something."""
        if step < self.settings.warmup_steps(self.recipe.frozen_prototypes):
            self.prototypes.weight.grad = None

    def after_step(self, step: int) -> None:
        """The prototypes are unit vectors again."""
        from lightly.models.utils import normalize_weight

        normalize_weight(self.prototypes.weight)

    def backbones(self) -> dict[str, Encoder]:
        """The only network."""
        return {"backbone": self.student.backbone}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``ckp-%d.pth``."""
        return {
            "epoch": counter,
            "state_dict": {
                **renamed_state(self.student.backbone, "module."),
                **renamed_state(self.student.head, "module.projection_head.", layers__=""),
                **renamed_state(self.prototypes, "module.prototypes."),
            },
            "optimizer": optimizer,
        }


def _check(settings: PretrainSettings, recipe: SwavRecipe) -> None:
    images = settings.micro_batch_size * settings.devices + recipe.queue
    if images < recipe.prototypes:
        raise InputError(
            f"SwAV spreads images evenly over {recipe.prototypes} prototypes, and a batch with its "
            f"queue has only {images}: set prototypes to at most that, or queue to at least "
            f"{recipe.prototypes - images + recipe.queue}"
        )


METHOD = Method(
    name="swav",
    title="SwAV",
    source="Caron et al. 2020, Unsupervised Learning of Visual Features by Contrasting Cluster "
    "Assignments, arXiv 2006.09882",
    kind="clusters",
    families=("resnet", "vit", "swin"),
    build=Swav,
    published=SwavRecipe(),
    small=SwavRecipe(
        **SMALL_RUN,
        local=MILD_LOCAL,
        local_count=2,
        prototypes=128,
        frozen_prototypes=0.04,
        queue=256,
        queue_start=0.1,
        head_dim=512,
        output_dim=64,
    ),
    batch_size=4096,
    epochs=400,
    file_name="ckp-{}.pth",
    changed=(
        "The learning rate warms up from 0, not from a sixteenth, and the final rate does not grow "
        "with the batch.",
        "Prototypes are fixed for the first 1/400 of the run; in the run of the paper that is 313 "
        "steps.",
        "The queue is stored in the checkpoint, not in another file.",
        "The projector's first layer has no bias, because its batch norm would remove it.",
    ),
    chance_loss=lambda recipe, images: math.log(recipe.prototypes),
    least_micro_batch=2,
    least_reason="images are spread evenly over the prototypes",
)
