"""What can be added to a method's loss to hold its patch features together."""

from __future__ import annotations

from typing import Any

from torch import nn

from densescope.errors import InputError
from densescope.pretraining.learner import Learner
from densescope.pretraining.settings import RegularizerSettings


def build_regularizer(
    settings: RegularizerSettings | None, learner: Learner[Any]
) -> nn.Module | None:
    """A module that is called with an outcome and a step, or ``None``.

    Raises:
        InputError: it does not exist.
    """
    if settings is None:
        return None
    raise InputError(f"there is no regularizer {settings.name!r}")
