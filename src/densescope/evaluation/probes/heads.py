"""A linear head as segmentation recipes have it, its optimizer and its learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.evaluation.probes.augment import Augmentation

SCHEDULES = ("poly", "warmup-cosine", "drop", "constant")
OPTIMIZERS = ("adamw", "adam", "sgd")
SMALL_DIM = 384


@dataclass(frozen=True)
class HeadSettings:
    """A published recipe for a linear head.

    Attributes:
        optimizer: ``"adamw"``, ``"adam"`` or ``"sgd"``; one group, all parameters decay alike.
        learning_rate: of backbones wider than 384.
        small_learning_rate: of backbones up to 384 wide, where the recipe tells them apart.
        weight_decay: decoupled for AdamW.
        momentum: of SGD.
        betas: of Adam and AdamW.
        schedule: ``"poly"`` (linear to zero), ``"warmup-cosine"``, ``"drop"`` or ``"constant"``.
        warmup_steps: linear warm-up; shortened in proportion where a caller shortens ``steps``.
        warmup_ratio: fraction of the rate it begins with.
        drop_at: fraction of the steps after which ``"drop"`` multiplies the rate by 0.1.
        steps: of the optimizer, or ``None`` where the recipe counts epochs.
        epochs: passes over the training images where ``steps`` is ``None``.
        batch: images of a step.
        batch_norm: normalize features over the batch first.
        dropout: fraction of channels dropped before that.
        feature_size: side to which features are brought before the head, or ``None``.
        initial: ``"normal"`` (deviation 0.01, bias 0) or ``"uniform"`` (torch's convolution).
        loss_over: ``"all"`` divides the loss by all pixels, ``"counted"`` by those with a label.
        loss_at: ``"labels"`` brings scores to the size of the masks, ``"grid"`` the masks to the
            grid of the features, as the part of each patch that every class has (cached only).
        stride: step between windows of a slide, in pixels.
        augmentation: of training images.
    """

    optimizer: str
    learning_rate: float
    weight_decay: float
    steps: int | None
    batch: int
    schedule: str
    small_learning_rate: float | None = None
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 0
    warmup_ratio: float = 1e-6
    drop_at: float = 1.0
    epochs: int | None = None
    batch_norm: bool = False
    dropout: float = 0.0
    feature_size: int | None = None
    initial: str = "normal"
    loss_over: str = "all"
    loss_at: str = "labels"
    stride: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("schedule", self.schedule, SCHEDULES),
            ("optimizer", self.optimizer, OPTIMIZERS),
        ):
            if value not in known:
                raise InputError(f"there is no {name} {value!r}; there are: {', '.join(known)}")
        counts = [count for count in (self.steps, self.epochs) if count is not None]
        if not counts or min(counts) < 1 or self.batch < 1:
            raise InputError(
                f"{self.steps} steps, {self.epochs} epochs and batches of {self.batch} images "
                "train nothing: steps or epochs, and batch, must be at least 1"
            )

    def rate_for(self, dim: int) -> float:
        """The rate for features of one block that are ``dim`` wide."""
        if self.small_learning_rate is not None and dim <= SMALL_DIM:
            return self.small_learning_rate
        return self.learning_rate

    def steps_for(self, images: int) -> int:
        """Steps of the whole training; the last, smaller batch of an epoch is left out."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 1) * max(images // self.batch, 1)


def rate_at(settings: HeadSettings, step: int, total: int, *, warmup: int) -> float:
    """Fraction of the learning rate at a step, counted from 0.

    - poly: ``1 - step / total``, times the warm-up
    - warmup-cosine: in the warm-up as poly, after it ``(1 + cos(pi (step + 1) / total)) / 2``
    - drop: 1, then 0.1 from ``drop_at * total`` on
    - constant: 1

    The warm-up is ``1 - (1 - step / warmup) (1 - ratio)`` for the first ``warmup`` steps.

    Example:
        >>> from densescope.evaluation.probes import PROTOCOLS
        >>> recipe = PROTOCOLS["dinov2-linear"].settings
        >>> [round(rate_at(recipe, s, 40_000, warmup=1500), 4) for s in (0, 750, 1500, 20_000)]
        [0.0, 0.4906, 0.9625, 0.5]
    """
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "drop":
        return 0.1 if step >= settings.drop_at * total else 1.0
    if step < warmup:
        rising = 1 - (1 - step / warmup) * (1 - settings.warmup_ratio)
        return rising * (1 - step / total)
    if settings.schedule == "warmup-cosine":
        return (1 + math.cos(math.pi * (step + 1) / total)) / 2
    return 1 - step / total


def build_optimizer(head: nn.Module, settings: HeadSettings, rate: float) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of a head."""
    parameters = list(head.parameters())
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, betas=settings.betas, weight_decay=settings.weight_decay)


class LinearHead(nn.Module):
    """Layers concatenated, channels dropped, normalized, then one 1 x 1 convolution."""

    def __init__(
        self, dim: int, classes: int, settings: HeadSettings, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.feature_size = settings.feature_size
        self.generator = generator
        self.norm = nn.BatchNorm2d(dim) if settings.batch_norm else nn.Identity()
        self.weight = nn.Parameter(torch.empty(classes, dim, 1, 1))
        self.bias = nn.Parameter(torch.zeros(classes))
        with torch.no_grad():
            if settings.initial == "normal":
                self.weight.normal_(0, 0.01, generator=generator)
            else:
                bound = 1 / math.sqrt(dim)
                self.weight.uniform_(-bound, bound, generator=generator)
                self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, grids: Sequence[Tensor]) -> Tensor:
        """Scores ``images classes rows columns`` from one grid per layer."""
        size = (int(grids[0].shape[2]), int(grids[0].shape[3]))
        joined = torch.cat([_brought_to(grid, size) for grid in grids], 1)
        if self.feature_size is not None:
            joined = _brought_to(joined, (self.feature_size, self.feature_size))
        if self.training and self.dropout:
            # The generator lives on the CPU, so that results do not depend on the device.
            kept = torch.rand(joined.shape[:2], generator=self.generator) >= self.dropout
            joined = joined * (kept.to(joined) / (1 - self.dropout))[:, :, None, None]
        return F.conv2d(self.norm(joined), self.weight, self.bias)


def grid_loss(scores: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of scores on the grid of the features, divided by all of its patches.

    Args:
        scores: ``images classes rows columns``.
        shares: part of each patch that every class has, in the same shape; what is missing to 1
            has no label and no loss.
    """
    total = F.cross_entropy(scores, shares, reduction="sum")
    return total / (shares.numel() // shares.shape[1])


def pixel_loss(scores: Tensor, labels: Tensor, *, ignore: int, over: str) -> Tensor:
    """Cross-entropy of scores brought to the size of the labels bilinearly.

    Args:
        scores: ``images classes rows columns``.
        labels: ``images rows columns``, integers.
        ignore: label of pixels that have no loss.
        over: ``"all"`` divides by all pixels, ``"counted"`` by those that have a loss.
    """
    scores = _brought_to(scores, (int(labels.shape[1]), int(labels.shape[2])))
    total = F.cross_entropy(scores, labels.long(), ignore_index=ignore, reduction="sum")
    count = labels.numel() if over == "all" else int(labels.ne(ignore).sum())
    return total / max(count, 1)


def _brought_to(grid: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(grid.shape[2:]) == size:
        return grid
    return F.interpolate(grid, size, mode="bilinear", align_corners=False)
