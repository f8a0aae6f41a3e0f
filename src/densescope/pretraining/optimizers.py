"""From a recipe to an optimizer, and the learning rate and weight decay of every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from densescope.pretraining.recipe import Recipe
from densescope.pretraining.settings import PretrainSettings


def cosine(step: int, *, steps: int, start: float, end: float, warmup: int = 0) -> float:
    """A linear rise from 0 to ``start``, then half a cosine from ``start`` to ``end``.

    Args:
        step: from 0 to ``steps - 1``.
        steps: length of the run.
        start: value at step ``warmup``.
        end: value at step ``steps - 1``.
        warmup: steps of the rise; step 0 has ``start / warmup``.

    Returns:
        The value at the step; ``end`` beyond the run.

    Example:
        >>> [round(cosine(i, steps=7, start=1.0, end=0.0, warmup=2), 3) for i in range(7)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return start * (step + 1) / warmup
    progress = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def ramp(step: int, *, steps: int, start: float, end: float) -> float:
    """A straight line from ``start`` at step 0 to ``end`` at ``steps``, then ``end``.

    Example:
        >>> [ramp(i, steps=2, start=0.0, end=1.0) for i in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """
    return end if step >= steps else start + (end - start) * step / steps


Groups = list[dict[str, Any]]


def parameter_groups_of(parameters: Iterable[nn.Parameter], recipe: Recipe) -> Groups:
    """Weights that decay, then biases, norms and other vectors, which mostly do not."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "decays": recipe.decay_all},
    ]


def recipe_optimizer(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; rate and decay are set before every step.

    LARS adapts only groups that decay.
    """
    # A group's order tells two resumed optimizers apart, so empty groups stay where they are.
    groups = [{"weight_decay": 0.0, "scheduled": True, **group} for group in groups]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum)
    from lightly.utils.lars import LARS

    optimizer: torch.optim.Optimizer = LARS(groups, lr=0.0, momentum=recipe.momentum)
    return optimizer


def set_rates(
    optimizer: torch.optim.Optimizer, settings: PretrainSettings, recipe: Recipe, step: int
) -> float:
    """Give every group the learning rate and weight decay of a step.

    A group with ``scheduled=False`` keeps the highest rate; one with ``rate`` scales it.

    Returns:
        The learning rate.
    """
    highest = recipe.rate_for(settings.batch_size)
    rate = cosine(
        step,
        steps=settings.steps,
        start=highest,
        end=recipe.final_learning_rate,
        warmup=settings.warmup_steps(recipe.warmup),
    )
    start, end = recipe.weight_decay
    decay = cosine(step, steps=settings.steps, start=start, end=end)
    for group in optimizer.param_groups:
        group["lr"] = (rate if group["scheduled"] else highest) * group.get("rate", 1.0)
        group["weight_decay"] = decay if group["decays"] else 0.0
    return rate
