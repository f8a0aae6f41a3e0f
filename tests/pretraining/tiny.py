"""Runs small enough for a test: a few steps of a tiny network, for every method."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from densescope.evaluation.scenes import make_scenes
from densescope.features.checkpoints import read_checkpoint
from densescope.pretraining.learner import Learner
from densescope.pretraining.methods import METHODS, resolve_settings
from densescope.pretraining.recipe import MultiCropRecipe, Recipe
from densescope.pretraining.settings import BackboneSettings, PretrainSettings

AnyLearner = TypeVar("AnyLearner", bound=Learner[Any])

SIZE = 16
BACKBONES = {
    "vit": BackboneSettings(
        "vit_tiny_patch16_224",
        {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
        SIZE,
    ),
    "resnet": BackboneSettings(
        "resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "output_stride": 8}, SIZE
    ),
    "swin": BackboneSettings(
        "swin_tiny_patch4_window7_224",
        {
            "patch_size": 2,
            "window_size": 4,
            "embed_dim": 8,
            "depths": (2, 1),
            "num_heads": (1, 2),
        },
        SIZE,
    ),
}


def tiny_recipe(recipe: Recipe) -> Recipe:
    """The same recipe with narrow heads, few prototypes and one small view."""
    narrow = {
        part.name: 32
        for part in fields(recipe)
        if type(getattr(recipe, part.name)) is int
        and getattr(recipe, part.name) > 32
        and part.name != "rate_images"
    }
    changed = replace(recipe, **narrow)
    if isinstance(changed, MultiCropRecipe):
        changed = replace(changed, local_count=min(changed.local_count, 1), local_size=8)
    return changed


def tiny(method: str, family: str | None = None, **changes: Any) -> PretrainSettings:
    """A run of five steps with checkpoints after two, four and five."""
    row = METHODS[method]
    settings = PretrainSettings(
        method=method,
        recipe=tiny_recipe(row.small),
        backbone=BACKBONES[family or row.families[0]],
        steps=5,
        batch_size=8,
        checkpoint_every=2,
        device="cpu",
    )
    return replace(settings, **changes)


def learner_of(method: str, kind: type[AnyLearner], **changes: Any) -> AnyLearner:
    """The networks and loss of such a run, with the recipe changed."""
    settings = resolve_settings(tiny(method))
    assert settings.recipe is not None
    recipe = replace(settings.recipe, **changes)
    learner = METHODS[method].build(replace(settings, recipe=recipe), recipe)
    assert isinstance(learner, kind)
    return learner


@cache
def images() -> Tensor:
    return make_scenes(20, size=SIZE, seed=0).images


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_checkpoint(path).content
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two nested states hold the same bits."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
