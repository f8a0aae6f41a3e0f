"""The table: public code bases, settings that their users have, and how each file is read here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from densescope.errors import CheckpointError
from densescope.features.checkpoints import read_checkpoint
from densescope.features.normalization import IMAGENET
from densescope.features.stored import in_memory
from tests.features.plain_models import random_images
from tests.features.written_layouts import LAYOUTS, Written
from tests.foreign import written as files
from tests.foreign.loading import load

RED_228 = (0.228, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Setting:
    """One way in which a code base writes a file, and the format that reads it.

    Attributes:
        code: name of the code base.
        what: the setting in words.
        write: writes the file, and knows the networks that are in it.
        format: name of the row that reads it.
        mean, std: normalization the code base trains with.
    """

    code: str
    what: str
    write: files.Writer
    format: str
    mean: tuple[float, ...] = IMAGENET.mean
    std: tuple[float, ...] = IMAGENET.std


@dataclass(frozen=True)
class Measured:
    """What came of a setting's set of weights.

    Attributes:
        setting: the setting.
        weights: as given to ``--weights``; ``None`` is the default.
        difference: largest difference of patch and image features from the code's own network, over
            the largest feature; ``None`` where the file does not load.
        problem: why it does not.
        mean, std: what it was loaded with.
    """

    setting: Setting
    weights: str | None
    difference: float | None
    problem: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def _plain(code: str, what: str, name: str, **about: Any) -> Setting:
    return Setting(code, what, LAYOUTS[name], name, **about)


SETTINGS = (
    _plain("DINO", "training, ViT", "dino"),
    Setting("DINO", "training, batch norm in the head", files.dino_head_with_batch_norm, "dino"),
    Setting("DINO", "training, ResNet", files.dino_resnet, "dino"),
    _plain("DINO", "released backbone", "dino-release"),
    _plain("iBOT", "training, ViT", "ibot"),
    Setting("iBOT", "training, Swin", files.ibot_swin, "ibot"),
    _plain("iBOT", "released teacher, ViT", "ibot-release"),
    Setting("iBOT", "released teacher, Swin", files.ibot_swin_release, "ibot-release"),
    _plain("Mugs", "training", "mugs"),
    _plain("Mugs", "released backbone", "mugs-release"),
    _plain("EsViT", "training, Swin", "esvit"),
    Setting("EsViT", "training, batch norm in the head", files.esvit_wrapped, "esvit"),
    _plain("MAE", "training", "mae"),
    _plain("MAE", "released encoder", "mae-release"),
    _plain("I-JEPA", "training and release", "ijepa"),
    _plain("MoCo v3", "training, ViT", "mocov3"),
    Setting("MoCo v3", "training, ResNet", files.mocov3_resnet, "mocov3"),
    _plain("MoCo v3", "released weights, ViT", "mocov3-release"),
    Setting("MoCo v3", "convert_to_deit.py", files.mocov3_deit, "mocov3-release"),
    _plain("BYOL", "training", "byol"),
    _plain("BYOL", "released backbone", "byol-release"),
    _plain("SimSiam", "training and release", "simsiam"),
    _plain("MEC", "training", "mec"),
    _plain("ReSA", "training", "resa"),
    _plain("ReSA", "released backbone", "resa-release"),
    _plain("DenseCL", "training", "densecl"),
    _plain("DenseCL", "released backbone", "densecl-release"),
    _plain("SwAV", "training", "swav", std=RED_228),
    _plain("SwAV", "released weights", "swav-release", std=RED_228),
    _plain("Barlow Twins", "training", "barlowtwins"),
    _plain("Barlow Twins", "released backbone", "resnet-release"),
    _plain("VICReg", "training", "vicreg"),
    _plain("VICRegL", "training, ResNet", "vicregl", std=RED_228),
    _plain("VICRegL", "released backbone, ResNet", "vicregl-release", std=RED_228),
    Setting(
        "VICRegL",
        "training, ConvNeXt",
        partial(files.vicregl_convnext, layer_scale=False),
        "vicregl",
        std=RED_228,
    ),
    Setting(
        "VICRegL",
        "training, ConvNeXt with layer scale",
        partial(files.vicregl_convnext, layer_scale=True),
        "vicregl",
        std=RED_228,
    ),
    Setting(
        "VICRegL",
        "released backbone, ConvNeXt",
        files.vicregl_release,
        "vicregl-release",
        std=RED_228,
    ),
    _plain("DINOv2", "training, teacher at an evaluation", "dinov2"),
    _plain("DINOv2", "released backbone, registers, SwiGLU", "dinov2-release"),
    Setting(
        "DINOv3",
        "training, recipes of the release",
        partial(files.dinov3, default=False, release=False),
        "dinov3",
    ),
    Setting(
        "DINOv3",
        "training, default and ImageNet-1k configuration",
        partial(files.dinov3, default=True, release=False),
        "dinov3",
    ),
    Setting(
        "DINOv3",
        "released backbone",
        partial(files.dinov3, default=False, release=True),
        "dinov3-release",
    ),
    Setting("solo-learn", "training, ResNet", partial(files.solo, vit=False), "lightning"),
    Setting("solo-learn", "training, ViT", partial(files.solo, vit=True), "lightning"),
    Setting("lightly", "ResNet in a Sequential", files.lightly_sequential, "lightning"),
    Setting("lightly", "masked ViT of timm", files.lightly_vit, "lightning"),
    Setting("lightly", "masked ViT of torchvision", files.lightly_torchvision, "lightning"),
    Setting("lightly-train", "last.ckpt", files.lightly_train, "lightning"),
    Setting("lightly-train", "exported_last.pt, timm", files.lightly_exported, "timm"),
    Setting("open_clip", "training, ViT", files.open_clip, "openclip", CLIP_MEAN, CLIP_STD),
    Setting(
        "open_clip", "weights of OpenAI", files.open_clip_of_openai, "openclip", CLIP_MEAN, CLIP_STD
    ),
    Setting("open_clip", "tower of timm", files.open_clip_timm, "openclip", CLIP_MEAN, CLIP_STD),
)


def _compiled(names: Mapping[str, Any]) -> dict[str, Any]:
    """``torch.compile`` around everything, activation checkpointing around each block."""
    return {f"_orig_mod.{_checkpointed(name)}": value for name, value in names.items()}


def _sharded(names: Mapping[str, Any]) -> dict[str, Any]:
    """DDP off, FSDP around everything and around each block."""
    return {
        "_fsdp_wrapped_module."
        + _checkpointed(name.removeprefix("module."), "_fsdp_wrapped_module"): value
        for name, value in names.items()
    }


def _checkpointed(name: str, wrapper: str = "_checkpoint_wrapped_module") -> str:
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part in ("blocks", "layer1", "layer4", "stages", "layers", "resblocks"):
            return ".".join([*parts[: index + 2], wrapper, *parts[index + 2 :]])
    return name


WRAPPED: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "compiled, blocks checkpointed": _compiled,
    "FSDP in place of DDP": _sharded,
}


def wrapped(setting: Setting, how: str) -> Setting:
    """The same setting of a user who wrapped the network in more, or in less."""

    def write(folder: Path, generator: torch.Generator) -> Written:
        made = setting.write(folder, generator)
        content = read_checkpoint(made.path).content
        torch.save(_renamed(content, WRAPPED[how]), made.path)
        return made

    return replace(setting, what=f"{setting.what}; {how}", write=write)


def _renamed(content: Any, rename: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
    """Networks under other names, and counters; the rest of a file is in its own setting."""
    if not isinstance(content, Mapping):
        return content
    if any(isinstance(value, torch.Tensor) for value in content.values()):
        return in_memory(rename(content))
    kept = {key: value for key, value in content.items() if isinstance(value, Mapping | int)}
    return {key: _renamed(value, rename) for key, value in kept.items() if key != "optimizer"}


def every_setting() -> Iterator[Setting]:
    """All settings; the first of every code base also in other wrappers."""
    seen: set[str] = set()
    for setting in SETTINGS:
        yield setting
        if setting.code not in seen:
            seen.add(setting.code)
            yield from (wrapped(setting, how) for how in WRAPPED)


def measure(setting: Setting) -> list[Measured]:
    """Write the file of a setting, read every network in it, and compare features."""
    with TemporaryDirectory() as folder:
        generator = torch.Generator().manual_seed(0)
        made = setting.write(Path(folder), generator)
        images = random_images(generator, made.size)
        return [_measured(setting, made, weights, images) for weights in made.expected]


def _measured(
    setting: Setting, made: Written, weights: str | None, images: torch.Tensor
) -> Measured:
    try:
        backbone = load(
            made.path,
            format=setting.format,
            architecture=made.architecture,
            architecture_options=made.options,
            weights=weights,
        ).backbone
    except CheckpointError as error:
        return Measured(setting, weights, None, str(error))
    found, expected = backbone.features(images), made.expected[weights](images)
    pairs = ((found.patches[0], expected.patches[0]), (found.image, expected.image))
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    return Measured(setting, weights, difference, "", backbone.mean, backbone.std)
