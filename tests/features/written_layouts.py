"""Files as each public training code writes them, with everything else such a file holds."""

from __future__ import annotations

import argparse
import pathlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densescope.features.backbones import Features
from tests.features.plain_models import (
    HEADS,
    VIT_OPTIONS,
    Weights,
    resnet_features,
    resnet_weights,
    vit_features,
    vit_weights,
)

SMALL_VIT = {**VIT_OPTIONS, "num_heads": HEADS}
VIT_NAME, RESNET_NAME = "vit_small_patch16_224", "resnet18"


@dataclass(frozen=True)
class Written:
    """A file in one layout.

    ``expected`` maps a set of weights to the network that must come out of it; the default set is
    the key ``None``.
    """

    path: Path
    expected: dict[str | None, Callable[[Tensor], Features]]
    architecture: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 32


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def head(generator: torch.Generator, prefix: str) -> Weights:
    return {f"{prefix}{name}": torch.randn(5, 5, generator=generator) for name in ("w", "b")}


def optimizer(scalar: Any = 0.5) -> dict[str, Any]:
    return {
        "state": {0: {"step": 7, "exp_avg": torch.ones(3)}},
        "param_groups": [{"lr": scalar, "params": [0]}],
    }


def namespace(*, with_path: bool = True) -> argparse.Namespace:
    where = pathlib.PosixPath("/some/where") if with_path else "/some/where"
    return argparse.Namespace(arch="vit_small", output_dir=where, epochs=800)


def numpy_scalar() -> Any:
    return np.float64(0.25)


@contextmanager
def function_of_main(name: str) -> Iterator[Any]:
    """A function that pickles by reference as ``__main__.name``, as one in a training script."""
    main = sys.modules["__main__"]

    def function(parameter: Any) -> bool:
        raise AssertionError("a function of a checkpoint was called")

    function.__module__, function.__qualname__, function.__name__ = "__main__", name, name
    setattr(main, name, function)
    try:
        yield function
    finally:
        delattr(main, name)


@contextmanager
def foreign_class(module_name: str, name: str, base: type = object) -> Iterator[type]:
    """A class of a package that is not installed where the file is read."""
    module = types.ModuleType(module_name)
    made = type(name, (base,), {"__module__": module_name})
    setattr(module, name, made)
    sys.modules[module_name] = module
    try:
        yield made
    finally:
        del sys.modules[module_name]


def two_vits(generator: torch.Generator) -> tuple[Weights, Weights]:
    return vit_weights(generator), vit_weights(generator)


def vit_network(weights: Weights, heads: int = HEADS) -> Callable[[Tensor], Features]:
    return lambda images: vit_features(weights, images, heads=heads)


def resnet_network(weights: Weights) -> Callable[[Tensor], Features]:
    return lambda images: resnet_features(weights, images)


def moco_v3(folder: Path, generator: torch.Generator) -> Written:
    base, momentum = two_vits(generator)
    path = folder / "checkpoint_0003.pth.tar"
    torch.save(
        {
            "epoch": 4,
            "arch": "vit_small",
            "state_dict": {
                **prefixed("module.base_encoder.", base | head(generator, "head.")),
                **prefixed("module.momentum_encoder.", momentum | head(generator, "head.")),
                **head(generator, "module.predictor."),
            },
            "optimizer": optimizer(),
            "scaler": {"scale": 65536.0},
        },
        path,
    )
    # The row's own 12 heads must be used: no num_heads here.
    expected = {
        None: vit_network(momentum, 12),
        "momentum": vit_network(momentum, 12),
        "base": vit_network(base, 12),
    }
    return Written(path, expected, options=dict(VIT_OPTIONS))


def moco_v3_release(folder: Path, generator: torch.Generator) -> Written:
    base = vit_weights(generator)
    path = folder / "vit-s-300ep.pth.tar"
    content = prefixed("module.base_encoder.", base | head(generator, "head."))
    torch.save({"epoch": 300, "state_dict": content}, path)
    return Written(path, {None: vit_network(base, 12)}, options=dict(VIT_OPTIONS))


def dino_like(
    folder: Path, generator: torch.Generator, *, extra_teacher: Weights, extra_student: Weights
) -> Written:
    teacher, student = two_vits(generator)
    path = folder / "checkpoint0020.pth"
    torch.save(
        {
            "student": {
                **prefixed("module.backbone.", student | extra_student | extra_teacher),
                **head(generator, "module.head."),
            },
            "teacher": {
                **prefixed("backbone.", teacher | extra_teacher),
                **head(generator, "head."),
            },
            "optimizer": optimizer(numpy_scalar()),
            "epoch": 21,
            "args": namespace(),
            "dino_loss": {"center": torch.zeros(1, 5)},
            "fp16_scaler": {"scale": 65536.0},
        },
        path,
    )
    expected = {
        None: vit_network(teacher),
        "teacher": vit_network(teacher),
        "student": vit_network(student),
    }
    return Written(path, expected, VIT_NAME, dict(SMALL_VIT))


def dino(folder: Path, generator: torch.Generator) -> Written:
    return dino_like(folder, generator, extra_teacher={}, extra_student={})


def resnet_file(
    folder: Path,
    generator: torch.Generator,
    name: str,
    wrap: Callable[[Weights, Weights], Any],
    **sets: str,
) -> Written:
    """A file of two ResNets; ``sets`` says which of them each set of weights is."""
    first, second = resnet_weights(generator), resnet_weights(generator)
    path = folder / name
    torch.save(wrap(first, second), path)
    networks = {"first": resnet_network(first), "second": resnet_network(second)}
    expected = {None if key == "default" else key: networks[which] for key, which in sets.items()}
    return Written(path, expected, RESNET_NAME, {"img_size": 64}, 64)


def simsiam(folder: Path, generator: torch.Generator) -> Written:
    def wrap(first: Weights, second: Weights) -> Any:
        return {
            "epoch": 100,
            "arch": "resnet50",
            "state_dict": {
                **prefixed("module.encoder.", first | head(generator, "fc.")),
                **head(generator, "module.predictor."),
            },
            "optimizer": optimizer(),
        }

    return resnet_file(folder, generator, "checkpoint_0099.pth.tar", wrap, default="first")


LAYOUTS: dict[str, Callable[[Path, torch.Generator], Written]] = {
    "mocov3": moco_v3,
    "mocov3-release": moco_v3_release,
    "dino": dino,
    "simsiam": simsiam,
}
