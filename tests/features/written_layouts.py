"""Files as each public training code writes them, with everything else such a file holds."""

from __future__ import annotations

import argparse
import pathlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densescope.features.backbones import Features
from tests.features.plain_models import (
    DEPTH,
    DIM,
    HEADS,
    RESNET_OPTIONS,
    SWIN_OPTIONS,
    SWIN_SIZE,
    VIT_OPTIONS,
    Weights,
    resnet_features,
    resnet_weights,
    swin_features,
    swin_weights,
    vit_features,
    vit_weights,
)
from tests.foreign.networks import swav_features

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
    parts = module_name.split(".")
    packages = [".".join(parts[: count + 1]) for count in range(len(parts))]
    added = [package for package in packages if package not in sys.modules]
    for package in added:
        sys.modules[package] = types.ModuleType(package)
    made = type(name, (base,), {"__module__": module_name})
    setattr(sys.modules[module_name], name, made)
    try:
        yield made
    finally:
        for package in added:
            del sys.modules[package]


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
    features: Callable[[Weights, Tensor], Features] = resnet_features,
    **sets: str,
) -> Written:
    """A file of two ResNets; ``sets`` says which of them each set of weights is."""
    first, second = resnet_weights(generator), resnet_weights(generator)
    path = folder / name
    torch.save(wrap(first, second), path)
    networks = {"first": partial(features, first), "second": partial(features, second)}
    expected = {None if key == "default" else key: networks[which] for key, which in sets.items()}
    return Written(path, expected, RESNET_NAME, dict(RESNET_OPTIONS), 64)


def ibot(folder: Path, generator: torch.Generator) -> Written:
    mask = {"masked_embed": torch.randn(1, 48, generator=generator)}
    return dino_like(folder, generator, extra_teacher={}, extra_student=mask)


def mugs(folder: Path, generator: torch.Generator) -> Written:
    relation = head(generator, "relation_blocks.0.")
    return dino_like(folder, generator, extra_teacher=relation, extra_student={})


def flat_vit(
    folder: Path,
    generator: torch.Generator,
    name: str,
    wrap: Callable[[Weights], Any] = dict,
) -> Written:
    weights = vit_weights(generator)
    path = folder / name
    torch.save(wrap(weights), path)
    return Written(path, {None: vit_network(weights)}, VIT_NAME, dict(SMALL_VIT))


def dino_release(folder: Path, generator: torch.Generator) -> Written:
    return flat_vit(folder, generator, "dino_deitsmall16_pretrain.pth")


def ibot_release(folder: Path, generator: torch.Generator) -> Written:
    def wrap(weights: Weights) -> Any:
        return {"state_dict": weights | head(generator, "head.")}

    return flat_vit(folder, generator, "checkpoint_teacher.pth", wrap)


def mugs_release(folder: Path, generator: torch.Generator) -> Written:
    def wrap(weights: Weights) -> Any:
        return {"state_dict": weights | head(generator, "relation_blocks.0.")}

    return flat_vit(folder, generator, "vit_small_backbone_800ep.pth", wrap)


def esvit(folder: Path, generator: torch.Generator) -> Written:
    teacher, student = swin_weights(generator), swin_weights(generator)
    heads = {**head(generator, "head."), **head(generator, "head_dense.mlp.")}
    path = folder / "checkpoint0020.pth"
    torch.save(
        {
            "student": prefixed("module.", student | heads),
            "teacher": teacher | heads,
            "optimizer": optimizer(numpy_scalar()),
            "epoch": 21,
            "args": namespace(with_path=False),
            "dino_loss": {"center": torch.zeros(1, 5)},
        },
        path,
    )

    def network(weights: Weights) -> Callable[[Tensor], Features]:
        return lambda images: swin_features(weights, images)

    expected = {
        None: network(teacher),
        "teacher": network(teacher),
        "student": network(student),
    }
    return Written(path, expected, None, dict(SWIN_OPTIONS), SWIN_SIZE)


def mae(folder: Path, generator: torch.Generator) -> Written:
    def wrap(weights: Weights) -> Any:
        decoder = {"decoder_pos_embed": torch.ones(1, 5, 5), "mask_token": torch.ones(1, 1, 5)}
        return {
            "model": weights | decoder | head(generator, "decoder_blocks.0."),
            "optimizer": optimizer(),
            "epoch": 40,
            "scaler": {"scale": 65536.0},
            "args": namespace(),
        }

    return flat_vit(folder, generator, "checkpoint-40.pth", wrap)


def mae_release(folder: Path, generator: torch.Generator) -> Written:
    def wrap(weights: Weights) -> Any:
        return {"model": weights}

    return flat_vit(folder, generator, "mae_pretrain_vit_base.pth", wrap)


def ijepa(folder: Path, generator: torch.Generator) -> Written:
    target, context = (vit_weights(generator, class_token=False) for _ in range(2))
    path = folder / "jepa-ep100.pth.tar"
    torch.save(
        {
            "encoder": prefixed("module.", context),
            "predictor": prefixed("module.", head(generator, "predictor_blocks.0.")),
            "target_encoder": prefixed("module.", target),
            "opt": optimizer(),
            "scaler": None,
            "epoch": 99,
            "loss": 0.1,
            "batch_size": 2048,
            "world_size": 16,
            "lr": 0.001,
        },
        path,
    )
    expected = {
        None: vit_network(target),
        "target": vit_network(target),
        "context": vit_network(context),
    }
    return Written(path, expected, None, dict(SMALL_VIT))


def as_sequential(weights: Weights) -> Weights:
    """Names of a ResNet's tensors after ``Sequential(*list(resnet.children())[:-1])``."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    renamed = {}
    for name, value in weights.items():
        first, rest = name.split(".", 1)
        renamed[f"{numbers[first]}.{rest}"] = value
    return renamed


def byol(folder: Path, generator: torch.Generator) -> Written:
    def wrap(first: Weights, second: Weights) -> Any:
        return {
            "config": {"model": {"backbone": {"type": "resnet50"}}},
            "epoch": 100,
            "steps": 31200,
            "model": {
                **prefixed("module.online_network.encoder.", as_sequential(second)),
                **head(generator, "module.online_network.projetion."),
                **prefixed("module.target_network.encoder.", as_sequential(first)),
                **head(generator, "module.predictor."),
            },
            "optimizer": optimizer(numpy_scalar()),
        }

    sets = {"default": "first", "target": "first", "online": "second"}
    return resnet_file(folder, generator, "resnet50_100.pth.tar", wrap, **sets)


def byol_release(folder: Path, generator: torch.Generator) -> Written:
    def wrap(first: Weights, second: Weights) -> Any:
        return {
            "online_backbone": prefixed("module.", first),
            "target_backbone": prefixed("module.", second),
        }

    return resnet_file(folder, generator, "byol.pth.tar", wrap, default="first")


def simsiam_like(
    folder: Path, generator: torch.Generator, second_prefix: str, name: str, **sets: str
) -> Written:
    def wrap(first: Weights, second: Weights) -> Any:
        return {
            "epoch": 100,
            "arch": "resnet50",
            "state_dict": {
                **prefixed("module.encoder.", first | head(generator, "fc.")),
                **prefixed(second_prefix, second | head(generator, "fc.")),
                **head(generator, "module.predictor."),
            },
            "optimizer": optimizer(numpy_scalar()),
        }

    return resnet_file(folder, generator, name, wrap, default="first", **sets)


def simsiam(folder: Path, generator: torch.Generator) -> Written:
    return simsiam_like(folder, generator, "module.other.", "checkpoint_0099.pth.tar")


def mec(folder: Path, generator: torch.Generator) -> Written:
    sets = {"encoder": "first", "teacher": "second"}
    return simsiam_like(folder, generator, "module.teacher.", "checkpoint_0099.pth.tar", **sets)


def resa(folder: Path, generator: torch.Generator) -> Written:
    sets = {"encoder": "first", "momentum": "second"}
    return simsiam_like(folder, generator, "module.momentum_encoder.", "checkpoint.pth.tar", **sets)


def flat_resnet(folder: Path, generator: torch.Generator, name: str) -> Written:
    return resnet_file(folder, generator, name, lambda first, second: first, default="first")


def resa_release(folder: Path, generator: torch.Generator) -> Written:
    return flat_resnet(folder, generator, "resa_resnet50_only_bs256_ep100.pth")


def resnet_release(folder: Path, generator: torch.Generator) -> Written:
    return flat_resnet(folder, generator, "resnet50.pth")


def densecl(folder: Path, generator: torch.Generator) -> Written:
    with foreign_class("mmcv.utils.config", "ConfigDict", dict) as configuration:

        def wrap(first: Weights, second: Weights) -> Any:
            return {
                "meta": {"epoch": 200, "config": configuration(lr=0.3), "mmcv_version": "0.6"},
                "state_dict": {
                    "queue": torch.ones(3),
                    **prefixed("backbone.", first),
                    **prefixed("encoder_q.0.", first),
                    **head(generator, "encoder_q.1."),
                    **prefixed("encoder_k.0.", second),
                },
                "optimizer": optimizer(),
            }

        sets = {"default": "first", "backbone": "first", "momentum": "second"}
        return resnet_file(folder, generator, "epoch_200.pth", wrap, **sets)


def densecl_release(folder: Path, generator: torch.Generator) -> Written:
    def wrap(first: Weights, second: Weights) -> Any:
        return {"state_dict": first, "author": "OpenSelfSup"}

    return resnet_file(folder, generator, "densecl_r50.pth", wrap, default="first")


def swav_tensors(generator: torch.Generator, weights: Weights) -> Weights:
    heads = head(generator, "projection_head.0.") | head(generator, "prototypes.")
    return prefixed("module.", weights | heads)


def swav(folder: Path, generator: torch.Generator) -> Written:
    def wrap(first: Weights, second: Weights) -> Any:
        return {
            "epoch": 100,
            "state_dict": swav_tensors(generator, first),
            "optimizer": optimizer(numpy_scalar()),
            "amp": {"loss_scaler0": {"loss_scale": 65536.0}},
        }

    return resnet_file(folder, generator, "ckp-99.pth", wrap, swav_features, default="first")


def swav_release(folder: Path, generator: torch.Generator) -> Written:
    def wrap(first: Weights, second: Weights) -> Any:
        return swav_tensors(generator, first)

    name = "swav_800ep_pretrain.pth.tar"
    return resnet_file(folder, generator, name, wrap, swav_features, default="first")


def barlow_like(folder: Path, generator: torch.Generator, name: str, *more: str) -> Written:
    with function_of_main("exclude_bias_and_norm") as function:

        def wrap(first: Weights, second: Weights) -> Any:
            saved = optimizer()
            saved["param_groups"][0]["weight_decay_filter"] = function
            return {
                "epoch": 300,
                "model": {
                    **prefixed("module.backbone.", first),
                    **head(generator, "module.projector.0."),
                    **{
                        key: tensor
                        for part in more
                        for key, tensor in head(generator, part).items()
                    },
                },
                "optimizer": saved,
            }

        return resnet_file(folder, generator, name, wrap, default="first")


def barlow_twins(folder: Path, generator: torch.Generator) -> Written:
    return barlow_like(folder, generator, "checkpoint.pth")


def vicreg(folder: Path, generator: torch.Generator) -> Written:
    return barlow_like(folder, generator, "model_300.pth")


def vicregl(folder: Path, generator: torch.Generator) -> Written:
    parts = ("module.maps_projector.0.", "module.classifier.")
    return barlow_like(folder, generator, "model_300.pth", *parts)


def vicregl_release(folder: Path, generator: torch.Generator) -> Written:
    made = resnet_release(folder, generator)
    return replace(made, path=made.path.rename(folder / "resnet50_alpha0.9.pth"))


def dinov2_weights(generator: torch.Generator, *, registers: int, swiglu: bool) -> Weights:
    weights = vit_weights(generator)

    def draw(*shape: int) -> Tensor:
        return 0.2 * torch.randn(shape, generator=generator)

    for block in range(DEPTH):
        for scale in ("ls1", "ls2"):
            weights[f"blocks.{block}.{scale}.gamma"] = 1 + draw(DIM)
        if swiglu:
            for name in ("fc1", "fc2"):
                for kind in ("weight", "bias"):
                    del weights[f"blocks.{block}.mlp.{name}.{kind}"]
            weights[f"blocks.{block}.mlp.w12.weight"] = draw(2 * 4 * DIM, DIM)
            weights[f"blocks.{block}.mlp.w12.bias"] = draw(2 * 4 * DIM)
            weights[f"blocks.{block}.mlp.w3.weight"] = draw(DIM, 4 * DIM)
            weights[f"blocks.{block}.mlp.w3.bias"] = draw(DIM)
    if registers:
        weights["register_tokens"] = draw(1, registers, DIM)
    weights["mask_token"] = draw(1, DIM)
    return weights


def dinov2(folder: Path, generator: torch.Generator) -> Written:
    weights = dinov2_weights(generator, registers=0, swiglu=False)
    chunked = {
        name.replace(f"blocks.{block}.", f"blocks.{block}.{block}.", 1): value
        for name, value in weights.items()
        for block in [name.split(".")[1] if name.startswith("blocks.") else ""]
    }
    path = folder / "eval" / "training_1249" / "teacher_checkpoint.pth"
    path.parent.mkdir(parents=True)
    heads = head(generator, "dino_head.mlp.0.") | head(generator, "ibot_head.mlp.0.")
    torch.save({"teacher": prefixed("backbone.", chunked) | heads}, path)
    return Written(path, {None: vit_network(weights)}, None, dict(SMALL_VIT))


def dinov2_release(folder: Path, generator: torch.Generator) -> Written:
    weights = dinov2_weights(generator, registers=4, swiglu=True)
    path = folder / "dinov2_vitg14_reg4_pretrain.pth"
    torch.save(weights, path)
    options = {**SMALL_VIT, "mlp_ratio": 2 * 4}
    return Written(path, {None: vit_network(weights)}, "vit_giant_patch14_reg4_dinov2", options)


def timm_file(folder: Path, generator: torch.Generator) -> Written:
    def wrap(weights: Weights) -> Any:
        classifier = {"head.weight": torch.ones(10, 48), "head.bias": torch.ones(10)}
        return {"epoch": 4, "state_dict": prefixed("module.", weights | classifier)}

    return flat_vit(folder, generator, "checkpoint-4.pth.tar", wrap)


def safetensors_file(folder: Path, generator: torch.Generator) -> Written:
    from safetensors.torch import save_file

    weights = vit_weights(generator)
    path = folder / "model.safetensors"
    save_file(weights, path)
    return Written(path, {None: vit_network(weights)}, VIT_NAME, dict(SMALL_VIT))


def lightning(folder: Path, generator: torch.Generator) -> Written:
    student, teacher = two_vits(generator)
    path = folder / "epoch=3-step=400.ckpt"
    with foreign_class("my_project.configs", "Settings") as settings:
        torch.save(
            {
                "epoch": 3,
                "global_step": 400,
                "pytorch-lightning_version": "2.4.0",
                "state_dict": {
                    **prefixed("backbone.", student),
                    **prefixed("teacher.vit.", teacher),
                    **head(generator, "projector."),
                },
                "callbacks": {},
                "hyper_parameters": {"settings": settings()},
                "optimizer_states": [optimizer()],
            },
            path,
        )
    expected = {
        None: vit_network(student),
        "backbone": vit_network(student),
        "teacher.vit": vit_network(teacher),
    }
    return Written(path, expected, VIT_NAME, dict(SMALL_VIT))


# dinov3, huggingface and custom have tests of their own: they need another reference network.
LAYOUTS: dict[str, Callable[[Path, torch.Generator], Written]] = {
    "mocov3": moco_v3,
    "mocov3-release": moco_v3_release,
    "dino": dino,
    "dino-release": dino_release,
    "ibot": ibot,
    "ibot-release": ibot_release,
    "mugs": mugs,
    "mugs-release": mugs_release,
    "esvit": esvit,
    "mae": mae,
    "mae-release": mae_release,
    "ijepa": ijepa,
    "byol": byol,
    "byol-release": byol_release,
    "simsiam": simsiam,
    "mec": mec,
    "resa": resa,
    "resa-release": resa_release,
    "densecl": densecl,
    "densecl-release": densecl_release,
    "swav": swav,
    "swav-release": swav_release,
    "barlowtwins": barlow_twins,
    "vicreg": vicreg,
    "vicregl": vicregl,
    "resnet-release": resnet_release,
    "vicregl-release": vicregl_release,
    "dinov2": dinov2,
    "dinov2-release": dinov2_release,
    "timm": timm_file,
    "safetensors": safetensors_file,
    "lightning": lightning,
}
