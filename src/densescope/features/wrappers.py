"""Networks, and the names of their tensors, without what was put around them in training.

``DistributedDataParallel``, ``torch.compile``, FSDP, activation checkpointing and DeepSpeed's
strategy each insert one component into the names of the tensors inside them, in any order and at
any depth: ``module._orig_mod.backbone.blocks.0._checkpoint_wrapped_module.attn.qkv.weight``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from densescope.errors import CheckpointError

Value = TypeVar("Value")

WRAPPERS = frozenset(
    {
        "module",  # DistributedDataParallel, DataParallel, AveragedModel
        "_orig_mod",  # torch.compile
        "_fsdp_wrapped_module",
        "_fpw_module",  # FSDP before torch 2.0
        "_checkpoint_wrapped_module",
        "_forward_module",  # Lightning's DeepSpeed strategy
    }
)


def without_wrappers(name: str) -> str:
    """A tensor's name, or the beginning of one, without the components that wrappers insert.

    Only whole components are taken out, never a part of one, and never the last.

    Example:
        >>> name = "module._orig_mod.backbone.blocks.0._checkpoint_wrapped_module.norm1.bias"
        >>> without_wrappers(name)
        'backbone.blocks.0.norm1.bias'
        >>> without_wrappers("submodule.weight"), without_wrappers("module.")
        ('submodule.weight', '')
    """
    *parts, last = name.split(".")
    return ".".join([*(part for part in parts if part not in WRAPPERS), last])


def keys_without_wrappers(values: Mapping[str, Value]) -> dict[str, Value]:
    """Values under the names that they have without wrappers.

    Raises:
        CheckpointError: two of them have the same name then.
    """
    found: dict[str, Value] = {}
    whose: dict[str, str] = {}
    for name, value in values.items():
        plain = without_wrappers(name)
        if plain in found:
            raise CheckpointError(
                f"{whose[plain]} and {name} are both named {plain} without their wrappers, so it "
                "cannot be told which to take: save one of the two networks"
            )
        found[plain], whose[plain] = value, name
    return found


def as_named(values: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    """Values without wrappers under those of the names that agree with theirs.

    A few architectures have a part of their own that is called like a wrapper (timm's iFormer).
    """
    own = {without_wrappers(name): name for name in names}
    return {own.get(name, name): value for name, value in values.items()}


def unwrap_module(model: Any) -> Any:
    """The module inside the wrappers of parallel training and of ``torch.compile``."""
    while True:
        if isinstance(model, DistributedDataParallel | DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model
