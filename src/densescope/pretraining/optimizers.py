"""From a recipe to an optimizer, and the rate and decay of every step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from densescope.pretraining.recipe import Recipe
from densescope.pretraining.schedules import cosine
from densescope.pretraining.settings import PretrainSettings

Groups = list[dict[str, Any]]


def parameter_groups_of(parameters: Iterable[nn.Parameter], recipe: Recipe) -> Groups:
    """Weights that decay, then biases, norms and other vectors, which mostly do not."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "decays": recipe.decay_all},
    ]


def build_optimizer(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
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
