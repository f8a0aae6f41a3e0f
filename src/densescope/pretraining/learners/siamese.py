"""What methods share: two views of an image, a moving average, heads for images and patches."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from densescope.pretraining.encoders import Encoder, EncoderOutput
from densescope.pretraining.learner import Branch, Learner, Outcome, renamed_state, update_ema
from densescope.pretraining.optimizers import cosine
from densescope.pretraining.recipe import AnyRecipe


class EMATeacher(Learner[AnyRecipe]):
    """A moving average follows the student; a subclass sets both and the average's momentum."""

    student: nn.Module
    teacher: nn.Module
    teacher_momentum: tuple[float, float]

    def after_step(self, step: int) -> None:
        """The moving average follows."""
        start, end = self.teacher_momentum
        momentum = cosine(step, steps=self.settings.steps, start=start, end=end)
        update_ema(self.student, self.teacher, momentum)


class TwoViews(Learner[AnyRecipe]):
    """Both views go through ``student``, one after the other: batch norm sees one view at a time.

    A subclass sets ``student`` and says what it makes of the head's outputs.
    """

    student: Branch

    def loss(self, images: Tensor, step: int, generator: torch.Generator) -> Outcome:
        """The method's loss on two views drawn here."""
        views = self.views(images, generator)
        (first, first_tokens), (second, second_tokens) = (self.student(view) for view in views)
        loss = self.compare(first, second, views, step)
        patches = torch.cat([first_tokens.patches, second_tokens.patches])
        return Outcome(loss, patches, views.flatten(0, 1))

    @abstractmethod
    def compare(self, first: Tensor, second: Tensor, views: Tensor, step: int) -> Tensor:
        """The loss of the head's outputs for the two views, each ``images width``."""

    def backbones(self) -> dict[str, Encoder]:
        """The only network, under the name of the format's only weights."""
        return {self.weights: self.student.backbone}

    weights = "encoder"


class Predictive(TwoViews[AnyRecipe]):
    """A predictor predicts from each view the target's output for the other view.

    The target is the student itself, without gradient. A subclass sets ``predictor``.
    """

    predictor: nn.Module

    def compare(self, first: Tensor, second: Tensor, views: Tensor, step: int) -> Tensor:
        """The sum over both directions."""
        teacher_output = self.targets(first, second, views)
        loss_ab = self.prediction_loss(self.predictor(first), teacher_output[1])
        loss_ba = self.prediction_loss(self.predictor(second), teacher_output[0])
        return loss_ab + loss_ba

    def targets(self, first: Tensor, second: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """Targets of the predictions for both views."""
        return first.detach(), second.detach()

    @abstractmethod
    def prediction_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of one direction."""


class EMAPredictive(EMATeacher[AnyRecipe], Predictive[AnyRecipe]):
    """The target is a moving average of the student; a subclass sets ``teacher`` too."""

    student: Branch
    teacher: Branch

    def targets(self, first: Tensor, second: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the moving average for both views."""
        with torch.no_grad():
            return self.teacher(views[0])[0], self.teacher(views[1])[0]


class JointEmbedding(TwoViews[AnyRecipe]):
    """One network sees both views, and one criterion compares what its head says of them.

    A subclass sets ``student`` and ``criterion``.
    """

    criterion: nn.Module
    weights = "backbone"

    def compare(self, first: Tensor, second: Tensor, views: Tensor, step: int) -> Tensor:
        """The criterion of the two outputs."""
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


class DenseOutput(NamedTuple):
    """What a branch says of images.

    Attributes:
        image: of each image, ``images width``.
        patches: of each patch, ``images patches width``.
        tokens: of the backbone.
    """

    image: Tensor
    patches: Tensor
    tokens: EncoderOutput


class DenseBranch(nn.Module):
    """A backbone with a head for the image vector and one for the patches."""

    def __init__(self, encoder: Encoder, head: nn.Module, local_head: nn.Module) -> None:
        super().__init__()
        self.backbone = encoder
        self.head = head
        self.local_head = local_head

    def forward(self, images: Tensor) -> DenseOutput:
        """Both heads' outputs and the backbone's tokens."""
        tokens: EncoderOutput = self.backbone(images)
        patches = tokens.patches
        places = self.local_head(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return DenseOutput(self.head(tokens.image), places, tokens)
