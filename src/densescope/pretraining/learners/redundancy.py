"""What Barlow Twins, VICReg and VICRegL share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from densescope.pretraining.learner import renamed_state
from densescope.pretraining.learners.siamese import TwoViews
from densescope.pretraining.recipe import AnyRecipe


class JointEmbedding(TwoViews[AnyRecipe]):
    """One network sees both views, and one criterion compares what its head says of them.

    A subclass sets ``student`` and ``criterion``.
    """

    criterion: nn.Module
    weights = "backbone"

    def compare(self, first: Tensor, second: Tensor, views: Tensor, step: int) -> Tensor:
        """What the criterion says of the two."""
        loss: Tensor = self.criterion(first, second)
        return loss

    def content(self, counter: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The content of ``checkpoint.pth`` and ``model.pth``."""
        return {
            "epoch": counter,
            "model": {
                **renamed_state(self.student.backbone, "module.backbone."),
                **renamed_state(self.student.head, "module.projector.", layers__=""),
            },
            "optimizer": optimizer,
        }
