"""What a method is: its recipe, the layout of its files, and what was changed from its paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from densescope.features.formats import FORMATS, Format
from densescope.pretraining.learner import Learner
from densescope.pretraining.recipe import Recipe
from densescope.pretraining.settings import PretrainSettings


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as settings name it, and as ``FORMATS`` names the layout of its files.
        title: as its authors write it.
        source: the paper.
        kind: what it learns from: ``"contrast"``, ``"prediction"``, ``"clusters"``,
            ``"redundancy"``, ``"masks"``.
        families: kinds of backbone it works with, that of the paper first.
        build: resolved settings and recipe -> learner, with weights from torch's global generator.
        published: the paper's recipe.
        small: the recipe for a few thousand small images and batches of tens.
        batch_size: images of a step in the paper.
        epochs: length of the paper's run, over ImageNet.
        file_name: pattern of its checkpoints, with the number the format gives them.
        changed: what differs from the paper beside the values in which ``small`` differs from
            ``published``, one sentence each.
        chance_loss: (recipe, images at once) -> the loss of outputs that say nothing of the image,
            where it is known; some losses fall below it by collapsing too.
        least_micro_batch: images that one device must see at once.
        least_reason: why.
    """

    name: str
    title: str
    source: str
    kind: str
    families: tuple[str, ...]
    build: Callable[[PretrainSettings, Any], Learner[Any]]
    published: Recipe
    small: Recipe
    batch_size: int
    epochs: int
    file_name: str
    changed: tuple[str, ...]
    chance_loss: Callable[[Any, int], float] | None = None
    least_micro_batch: int = 1
    least_reason: str = ""

    @property
    def format(self) -> Format:
        """The layout of its checkpoints."""
        return FORMATS[self.name]

    def numbers(self, finished: int) -> tuple[int, int]:
        """Numbers in the name of a file and inside it after so many finished epochs."""
        number = finished - self.format.offset
        return number, number + (self.format.counter_offset or 0)
