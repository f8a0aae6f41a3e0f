"""Regularizers of patch features that can be added to the loss of a method."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.numerics.regularizer import DenseStructureLoss
from densescope.pretraining.encoders import Encoder
from densescope.pretraining.learner import Learner, Outcome, update_ema
from densescope.pretraining.settings import RegularizerSettings

PAKA_MOMENTUM = 0.996
TokenDistance = Callable[[Tensor, Tensor], Tensor]


class Regularizer(nn.Module, ABC):
    """A term of the loss that reads the student's patch tokens.

    What it must remember over a run lies in its state dict.
    """

    @abstractmethod
    def forward(self, outcome: Outcome, step: int) -> Tensor:
        """The term that is added to the loss of a step."""

    def after_step(self, learner: Learner[Any]) -> None:
        """Called with new weights."""


class DseRegularizer(Regularizer):
    """The paper's: ``-beta * DSE`` of the tokens, with the effective rank of the metric.

    ``"dse-pooled"`` has that of the released regularizer: one of all patches of the batch.
    """

    def __init__(self, settings: RegularizerSettings, seed: int) -> None:
        super().__init__()
        self.dense = DenseStructureLoss(
            settings.weight,
            rank="pooled" if settings.name == "dse-pooled" else "per-position",
            images=settings.images or None,
            every=settings.every,
            seed=seed,
        )

    def forward(self, outcome: Outcome, step: int) -> Tensor:
        """The term of this step."""
        term: Tensor = self.dense(outcome.patches)
        return term


class AnchorRegularizer(Regularizer):
    """``beta`` times how far the tokens' likeness to each other is from that in another network.

    Args:
        settings: its weight, and how often and on how many views it works.
        network: the other network; a copy is made.
        likeness: (student, other) tokens ``views patches dim`` -> a number.
        momentum: 1: the other network stays as it is; below, it follows the student.
    """

    def __init__(
        self,
        settings: RegularizerSettings,
        network: Encoder,
        likeness: TokenDistance,
        momentum: float,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.network = copy.deepcopy(network)
        self.network.requires_grad_(False)
        self.network.eval()
        self.likeness = likeness
        self.momentum = momentum

    def train(self, mode: bool = True) -> AnchorRegularizer:
        """The other network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, outcome: Outcome, step: int) -> Tensor:
        """The term of this step; 0 where ``every`` leaves it out."""
        if step % self.settings.every:
            return outcome.patches.sum() * 0
        count = len(outcome.patches)
        taken = min(self.settings.images or count, count)
        # Spread over the batch, so that all kinds of views take part.
        which = torch.arange(taken, device=outcome.patches.device) * count // taken
        with torch.no_grad():
            teacher_output = self.network(outcome.views[which]).patches
            if outcome.kept is not None:
                teacher_output = torch.take_along_dim(
                    teacher_output, outcome.kept[which][:, :, None], dim=1
                )
        apart = self.likeness(outcome.patches[which].float(), teacher_output.float())
        return self.settings.weight * self.settings.every * apart

    def after_step(self, learner: Learner[Any]) -> None:
        """The other network follows where it should."""
        if self.momentum < 1:
            update_ema(learner.trained, self.network, self.momentum)


def gram_distance(student: Tensor, anchor: Tensor) -> Tensor:
    """Mean squared difference of the cosines between all pairs of patches of an image.

    ``mean_ij ((S S^T)_ij - (A A^T)_ij)^2`` with rows of unit length.

    Args:
        student: ``views patches dim``.
        anchor: the same; gets no gradient.

    Returns:
        A scalar in [0, 4], 0 where all cosines agree; whatever turns or stretches all patches of
        an image alike does not matter.

    Source: Simeoni et al. 2025, DINOv3, arXiv 2508.10104, Gram anchoring.
    Deviations: the mean instead of the sum over pairs, so that the weight does not depend on the
    number of patches.

    Example:
        >>> a = torch.eye(2)[None]
        >>> [round(float(gram_distance(a, b)), 3) for b in (3 * a, torch.ones(1, 2, 2))]
        [0.0, 0.5]
    """
    student, anchor = F.normalize(student, dim=-1), F.normalize(anchor.detach(), dim=-1)
    return (student @ student.mT - anchor @ anchor.mT).square().mean()


def build_regularizer(
    settings: RegularizerSettings | None, learner: Learner[Any], *, fresh: bool
) -> Regularizer | None:
    """The regularizer of a run, or ``None``.

    Args:
        settings: which, and how strong.
        learner: with the weights the run begins with.
        fresh: whether those are initial weights.

    Raises:
        InputError: there is nothing worth anchoring to.
    """
    if settings is None:
        return None
    if settings.name.startswith("dse"):
        return DseRegularizer(settings, learner.settings.seed)
    if settings.name == "paka":
        from lightly.loss.patch_kernel_alignment_loss import PatchKernelAlignmentLoss

        return AnchorRegularizer(
            settings, learner.trained, PatchKernelAlignmentLoss(), PAKA_MOMENTUM
        )
    if fresh:
        raise InputError(
            "Gram anchoring holds a run to an earlier teacher, and this run begins with random "
            "weights: name a checkpoint with --start-from"
        )
    teacher = next(iter(learner.backbones().values()))
    return AnchorRegularizer(settings, teacher, gram_distance, momentum=1.0)
