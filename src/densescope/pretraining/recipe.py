"""Recipes of methods as data, and changes of single values."""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from densescope.errors import InputError
from densescope.features.augmentation import AugmentationSettings as AugmentationSettings

OPTIMIZERS = ("adamw", "sgd", "lars")

# The published augmentations, at 224 pixels.
SIMCLR_FIRST = AugmentationSettings(scale=(0.08, 1.0), blur=1.0)
SIMCLR_SECOND = replace(SIMCLR_FIRST, blur=0.1, solarize=0.2)
MOCO_V2 = AugmentationSettings(scale=(0.2, 1.0), saturation=0.4, blur=0.5)
CROP_AND_FLIP = AugmentationSettings(scale=(0.2, 1.0), jitter=0.0, grayscale=0.0)

# Milder than any paper's: a run of a few hundred small batches never learns to match harder
# views, and its outputs then collapse instead.
MILD = AugmentationSettings(
    scale=(0.4, 1.0),
    brightness=0.3,
    contrast=0.3,
    saturation=0.15,
    hue=0.05,
    grayscale=0.1,
    blur=0.1,
    blur_sigma_pixels=(0.1, 1.0),
)
MILD_LOCAL = replace(MILD, scale=(0.15, 0.4), blur=0.0)


# What the small recipes of all methods share, for a few thousand images of 64 pixels.
SMALL_RUN: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "rate_images": 0,
    "final_learning_rate": 1e-5,
    "warmup": 0.05,
    "weight_decay": (0.05, 0.05),
    "decay_all": False,
    "first": MILD,
    "second": MILD,
}


def check_heads(width: int, heads: int, what: str) -> None:
    """Refuse attention heads that do not divide their width.

    Raises:
        InputError: they do not.
    """
    if width % heads:
        raise InputError(f"{what}_heads {heads} does not divide {what}_dim {width}")


def zero_or_more(default: int) -> Any:
    """A whole number that may be 0."""
    return field(default=default, metadata={"least": 0})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the recipes of all methods have; each method adds what is its own.

    Parts of a run (``warmup``, ...) are fractions of its steps, so that a recipe fits every length.

    Attributes:
        optimizer: ``"adamw"``, ``"sgd"`` or ``"lars"``.
        learning_rate: its highest value, after the warm-up, for a batch of ``rate_images``.
        rate_images: the rate grows in proportion to the batch over this many images; 0: it does
            not depend on the batch.
        final_learning_rate: its value at the end of the cosine.
        warmup: part of the run in which the rate rises from 0 on a line.
        weight_decay: first and last value on a cosine.
        decay_all: whether biases and norms decay too.
        momentum: of SGD and LARS.
        betas: of AdamW.
        clip_norm: largest norm of the gradient of all weights together; 0 for none.
        first: augmentation of the first view.
        second: augmentation of the second view.
    """

    optimizer: str = "adamw"
    learning_rate: float
    rate_images: int = zero_or_more(256)
    final_learning_rate: float = 0.0
    warmup: float = 0.0
    weight_decay: tuple[float, float] = (0.0, 0.0)
    decay_all: bool = False
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 0.0
    first: AugmentationSettings = SIMCLR_FIRST
    second: AugmentationSettings = SIMCLR_SECOND

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InputError(
                f"there is no optimizer {self.optimizer!r}: there are {', '.join(OPTIMIZERS)}"
            )
        if not 0 <= self.warmup < 1:
            raise InputError(f"a warm-up of {self.warmup:g} of the run is impossible: use 0 to 1")
        for part in fields(self):
            value = getattr(self, part.name)
            least = part.metadata.get("least", 1)
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                raise InputError(f"{part.name} {value} is impossible: use at least {least}")
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{part.name} {value:g} is impossible: use 0 or more")

    def rate_for(self, batch_size: int) -> float:
        """The highest learning rate of a run with this batch.

        Example:
            >>> Recipe(learning_rate=0.05, rate_images=256).rate_for(512)
            0.1
        """
        if self.rate_images == 0:
            return self.learning_rate
        return self.learning_rate * batch_size / self.rate_images


@dataclass(frozen=True, kw_only=True)
class MultiCropRecipe(Recipe):
    """A recipe with small views that only the student sees.

    Attributes:
        local: augmentation of the small views.
        local_count: how many of them an image gets.
        local_size: their side in pixels, a multiple of the patch size; 0 takes 96/224 of the
            image's, rounded to one.
    """

    local: AugmentationSettings = field(
        default_factory=lambda: AugmentationSettings(scale=(0.05, 0.25), blur=0.5)
    )
    local_count: int = zero_or_more(8)
    local_size: int = zero_or_more(0)


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def change_recipe(recipe: AnyRecipe, assignments: Iterable[str]) -> AnyRecipe:
    """A recipe with some values changed.

    Args:
        recipe: what to start from.
        assignments: ``key=value`` texts; dots lead into augmentations (``first.blur=0.5``).

    Raises:
        InputError: a text has no ``=``, a key is unknown, or a value is of another kind.

    Example:
        >>> change_recipe(Recipe(learning_rate=1.0), ["first.blur=0.5", "warmup=0.1"]).first.blur
        0.5
    """
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r} is not key=value, such as warmup=0.1")
        recipe = _changed(recipe, key.strip().split("."), value.strip(), key.strip())
    return recipe


def _changed(thing: Any, path: list[str], text: str, key: str) -> Any:
    names = [part.name for part in fields(thing)]
    if path[0] not in names:
        close = difflib.get_close_matches(path[0], names, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        raise InputError(f"this recipe has no {key!r}; {hint}")
    old = getattr(thing, path[0])
    if is_dataclass(old):
        if len(path) == 1:
            inner = ", ".join(f"{key}.{part.name}" for part in fields(old))
            raise InputError(f"{key} is a group: set one of {inner}")
        return replace(thing, **{path[0]: _changed(old, path[1:], text, key)})
    if len(path) > 1:
        raise InputError(f"{path[0]} is one value: it has no {path[1]!r}")
    return replace(thing, **{path[0]: _value(text, old, key)})


def _value(text: str, old: Any, key: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if isinstance(old, tuple) and isinstance(value, tuple | list):
        value = tuple(value)
    fits = type(value) is type(old)
    if fits and isinstance(old, tuple):
        fits = len(value) == len(old) and all(type(v) in (int, float) for v in value)
    if not fits:
        raise InputError(f"{key}={text} does not fit: it is now {old!r}, of the same kind")
    return value
