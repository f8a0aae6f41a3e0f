"""The pretraining methods, one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from densescope.errors import InputError
from densescope.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from torch import Tensor


class Learner(Protocol):
    """What a training loop needs of a method; it is a ``torch.nn.Module`` too."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer; ``decays`` tells whether weight decay applies."""
        ...

    def loss(self, images: Tensor, step: int) -> Tensor:
        """The loss of a batch of images in [0, 1]."""
        ...

    def before_step(self, step: int) -> None:
        """Called after the backward pass, before gradients are clipped and used."""
        ...

    def after_step(self, step: int) -> None:
        """Called after the optimizer's step."""
        ...

    def checkpoint(self, epoch: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """What the method's public training code would save."""
        ...


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as settings name it, and as ``FORMATS`` names the layout of its files.
        source: the paper.
        file_name: pattern of its checkpoints, with the number of the epoch from 0.
        build: settings -> learner.
    """

    name: str
    source: str
    file_name: str
    build: Callable[[PretrainSettings], Learner]


def _dino(settings: PretrainSettings) -> Learner:
    from densescope.pretraining.dino import Dino

    return Dino(settings)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (Method("dino", "arXiv 2104.14294", "checkpoint{:04d}.pth", _dino),)
}


def find_method(name: str) -> Method:
    """The row of a method.

    Raises:
        InputError: there is none of that name.
    """
    if name not in METHODS:
        raise InputError(f"no method {name!r}: this version trains {', '.join(METHODS)}")
    return METHODS[name]
