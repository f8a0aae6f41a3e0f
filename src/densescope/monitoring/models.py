"""Which part of a model in training is read, and how to read it without leaving a trace."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.features.live import READERS, live_backbone
from densescope.features.protocol import Backbone, Features
from densescope.features.wrappers import unwrap_module, without_wrappers

Where = str | Callable[[Any], Any] | None
ReadTokens = Callable[[Any, Tensor], Tensor]

# Words for the slow copy of a network, as parts of an attribute's name.
SLOW = re.compile(
    r"(^|[._])(teacher|ema|momentum|target|averaged|swa)([._]|$)|(^|[._])(encoder_k|key_encoder)"
)
# Looked for where no part of the model is of a known library, in this order.
PLAIN = ("teacher.backbone", "teacher_backbone", "backbone_momentum", "teacher", "backbone")


def find_backbone(model: Any, where: Where = None) -> tuple[Any, str]:
    """The backbone to read within a model, and the path it was found under.

    Without ``where``: of all parts of the model that are of a known kind (timm, Transformers,
    lightly, or a :class:`~densescope.features.protocol.Backbone`), those of a slow copy (whose path
    has a word such as teacher, ema, momentum or target) come first, then the outermost, then the
    first. Where no part is of a known kind, the attributes of ``PLAIN`` are tried, and at last the
    model itself is taken.

    Args:
        model: what is being trained: a network, or a module that holds several.
        where: an attribute path such as ``"teacher.backbone"``, or a function that takes the model
            and returns its backbone.

    Raises:
        InputError: there is no such attribute.
    """
    if callable(where):
        return where(model), getattr(where, "__name__", "function")
    model = unwrap_module(model)
    if where is not None:
        return _at(model, where), where
    if not isinstance(model, nn.Module):
        return model, ""
    known = [(name, part) for name, part in model.named_modules() if _is_known(part)]
    if known:
        name, part = min(known, key=lambda found: (not SLOW.search(found[0]), _depth(found[0])))
        return unwrap_module(part), without_wrappers(f"{name}.")[:-1]
    for path in PLAIN:
        found = _attribute(model, path)
        if isinstance(found, nn.Module):
            return found, path
    return model, ""


class TokenModule(nn.Module):
    """A module whose patch tokens a function of the user's reads."""

    def __init__(self, module: nn.Module, read: ReadTokens) -> None:
        super().__init__()
        self.module = module
        self.read = read
        self.training = module.training

    def forward(self, images: Tensor) -> Tensor:
        """``images patches dim``."""
        return self.read(self.module, images)


def _is_known(part: Any) -> bool:
    """The last reader takes any module, and so says nothing."""
    return isinstance(part, Backbone) or any(row.reads(part) for row in READERS[:-1])


def _depth(name: str) -> int:
    return len(name.split(".")) if name else 0


def _attribute(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = unwrap_module(getattr(model, name, None))
    return model


def _at(model: Any, path: str) -> Any:
    for position, name in enumerate(path.split(".")):
        if not hasattr(model, name):
            parts = [n for n, _ in model.named_children()] if isinstance(model, nn.Module) else []
            held = f"; it has {', '.join(parts)}" if parts else ""
            at = ".".join(path.split(".")[:position]) or f"the {type(model).__name__}"
            raise InputError(f"there is no {path} in the model: {at} has no {name}{held}")
        model = unwrap_module(getattr(model, name))
    return model


@dataclass
class ReadOnlyBackbone:
    """A live backbone without ``to`` and ``eval``: it is read where it is, as it is."""

    backbone: Backbone
    dtype: torch.dtype
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch_size: int
    image_size: int

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        """Features of images, which are cast to the dtype of the weights."""
        return self.backbone.features(images.to(self.dtype), layers=layers)


def read_only_backbone(
    part: Any, *, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> ReadOnlyBackbone:
    """A live model as a backbone that nothing will move or switch.

    Raises:
        InputError: patch tokens cannot be read from it.
    """
    # The size of a cell, which some modules do not say, is of no use here.
    backbone = live_backbone(part, image_size=image_size, mean=mean, std=std, patch_size=1)
    weight = _weight(part)
    return ReadOnlyBackbone(
        backbone,
        torch.float32 if weight is None else weight.dtype,
        tuple(backbone.mean),
        tuple(backbone.std),
        backbone.patch_size,
        backbone.image_size,
    )


def device_of(part: Any) -> torch.device:
    """Device of the weights of a model; the CPU where it has none."""
    weight = _weight(part)
    return torch.device("cpu") if weight is None else weight.device


def _weight(part: Any) -> Tensor | None:
    if not isinstance(part, nn.Module):
        return None
    return next((p for p in part.parameters() if p.is_floating_point()), None)


def seed_evaluation(part: Any, seed: int) -> None:
    """Let what a model draws in evaluation mode (random masks) follow from a seed.

    To be called within :func:`evaluation_mode`, which puts the states back that this sets.
    """
    device = device_of(part)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


@contextmanager
def evaluation_mode(part: Any) -> Iterator[None]:
    """Evaluation mode, no gradients, full precision and a random state of its own.

    All of it is undone afterwards. The mode of every submodule comes back as it was, also where
    some were in evaluation mode within a model in training; the global random states of the CPU and
    of the model's device stay.
    """
    modules = list(part.modules()) if isinstance(part, nn.Module) else []
    modes = [module.training for module in modules]
    device = device_of(part)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            if modules:
                part.eval()
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                yield
        finally:
            if modules:
                part.train(modes[0])
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
