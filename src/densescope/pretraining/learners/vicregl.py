"""VICRegL: VICReg on whole images and on places of them that lie or look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from densescope.features.augmentation import cell_centers, located_views
from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import Learner, Method, Outcome, renamed_state
from densescope.pretraining.learners.siamese import DenseBranch, DenseOutput
from densescope.pretraining.recipe import SMALL_RUN, Recipe
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True, kw_only=True)
class VicreglRecipe(Recipe):
    """VICRegL's own settings; the defaults are those of its ResNet-50 at 512 images a step.

    Attributes:
        whole: weight of whole images against places (the paper's alpha).
        matches: places of the first and of the second view that are kept, the best matched ones.
        invariance: weight of the squared distance between views.
        variance: weight of the hinge that holds every output's standard deviation at 1.
        covariance: weight of the squared covariances.
        head_dim: width of the projector of whole images, hidden and last.
        local_dim: width of the projector of places, hidden and last.
    """

    optimizer: str = "lars"
    learning_rate: float = 0.3
    final_learning_rate: float = 6e-4
    warmup: float = 10 / 100
    weight_decay: tuple[float, float] = (1e-6, 1e-6)
    whole: float = 0.75
    matches: tuple[int, int] = (20, 4)
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    head_dim: int = 8192
    local_dim: int = 512


class Vicregl(Learner[VicreglRecipe]):
    """The network and loss of VICRegL.

    ``whole * VICReg(images) + (1 - whole) * (VICReg(places that look alike) + VICReg(places that
    lie near each other in the image))``. Where fewer places exist than are to be matched, all are.
    ``(2 - whole) * variance`` and a little less where everything collapses.

    Source: Bardes, Ponce, LeCun 2022, arXiv 2210.01571; loss and heads are
    lightly's.
    Deviations: two views and no small ones, as the paper does with a ResNet. lightly keeps the
    best matches by looks too, where the public code keeps all, and orders them by distance.
    Mirrored views have mirrored places, which the public code leaves out by default.
    """

    def __init__(self, settings: PretrainSettings, recipe: VicreglRecipe) -> None:
        from lightly.loss import VICRegLLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        super().__init__(settings, recipe)
        encoder = self.encoder()
        dim, wide, local = encoder.geometry.dim, recipe.head_dim, recipe.local_dim
        self.student = DenseBranch(
            encoder,
            VICRegProjectionHead(dim, wide, wide),
            VICRegProjectionHead(dim, local, local),
        )
        self.criterion: nn.Module = VICRegLLoss(
            recipe.invariance,
            recipe.variance,
            recipe.covariance,
            alpha=recipe.whole,
            gather_distributed=settings.devices > 1,
            num_matches=recipe.matches,
        )

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """The criterion on two views and where their patches lie in the image."""
        views, boxes = self.views_and_boxes(images, generator)
        outputs: list[DenseOutput] = [self.student(view) for view in views]
        rows = self.geometry.rows
        grid = (len(images), rows, rows, -1)
        loss: Tensor = self.criterion(
            [(one.image, one.patches.view(grid)) for one in outputs],
            list(cell_centers(boxes, rows)),
        )
        patches = torch.cat([one.tokens.patches for one in outputs])
        return Outcome(loss.sum(), patches, views.flatten(0, 1))

    def views_and_boxes(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two normalized views, ``2 images 3 size size``, and their boxes, ``2 images 4``."""
        drawn = [
            located_views(
                images,
                views=1,
                size=self.settings.backbone.image_size,
                settings=augmentation,
                generator=generator,
            )
            for augmentation in (self.recipe.first, self.recipe.second)
        ]
        views, boxes = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        return (views - self.mean) / self.std, boxes

    def backbones(self) -> dict[str, Encoder]:
        """The only network."""
        return {"backbone": self.student.backbone}

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``model.pth``."""
        return {
            "epoch": counter,
            "model": {
                **renamed_state(self.student.backbone, "module.backbone."),
                **renamed_state(self.student.local_head, "module.maps_projector.", layers__=""),
                **renamed_state(self.student.head, "module.projector.", layers__=""),
            },
            "optimizer": optimizer,
        }


METHOD = Method(
    name="vicregl",
    title="VICRegL",
    source="Bardes, Ponce, LeCun 2022, VICRegL: Self-Supervised Learning of Local Visual "
    "Features, arXiv 2210.01571",
    kind="redundancy",
    families=("resnet", "vit", "swin"),
    build=Vicregl,
    published=VicreglRecipe(),
    small=VicreglRecipe(**SMALL_RUN, head_dim=512, local_dim=128),
    batch_size=512,
    epochs=100,
    file_name="model_{}.pth",
    changed=(
        "There are no small views, as in the paper for a ResNet.",
        "Of the pairs matched by features only the best are kept, as of those matched by location.",
        "If a view is mirrored, the locations of its patches are mirrored, too.",
        "The public code also trains a classifier with labels; it is left out.",
        "The final learning rate does not grow with the batch.",
        "The projectors' last layers have a bias, which does not change the loss; layers before a "
        "batch norm have no bias.",
    ),
    chance_loss=lambda recipe, images: 0.99 * recipe.variance * (2 - recipe.whole),
    least_micro_batch=2,
    least_reason="its variances are computed over the images",
)
