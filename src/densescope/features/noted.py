"""What ``densescope pretrain`` and timm keep with weights of the network they are of."""

from __future__ import annotations

import json
from typing import Any

from densescope.features.checkpoints import Container
from densescope.features.normalization import Normalization, of_architecture
from densescope.features.sharded import settings_of, timm_model_of

_ABSENT = (KeyError, TypeError, ValueError, IndexError)


def noted_architecture(container: Container) -> tuple[str, dict[str, Any]] | None:
    """Architecture and options, or ``None`` where neither wrote the file."""
    if noted := timm_model_of(container.path):
        return noted
    try:
        backbone = _settings(container)["backbone"]
        options = {"img_size": backbone["image_size"], **backbone["options"]}
        name = str(backbone["architecture"])
    except _ABSENT:
        return None
    lists = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
    return name, {**options, **lists}


def noted_normalization(container: Container) -> Normalization | None:
    """Mean and standard deviation, or ``None`` where neither wrote the file."""
    try:
        if timm_model_of(container.path):
            return of_architecture(settings_of(container.path)["pretrained_cfg"])
        settings = _settings(container)
        return Normalization(tuple(settings["mean"]), tuple(settings["std"]))
    except _ABSENT:
        return None


def _settings(container: Container) -> Any:
    return json.loads(container.content["densescope"]["settings"])
