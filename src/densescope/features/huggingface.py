"""Folders that Transformers wrote: ViT, DINOv2 and v3, I-JEPA, Swin, ResNet and their like."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from densescope.errors import CheckpointError
from densescope.features.architectures import without_values
from densescope.features.checkpoints import read_checkpoint, size_of
from densescope.features.layouts import Coverage, StepError, listing
from densescope.features.loaded import LoadedBackbone
from densescope.features.normalization import (
    Normalization,
    of_preprocessor,
)
from densescope.features.protocol import Backbone
from densescope.features.sharded import settings_of, weights_in
from densescope.features.spec import BackboneSpec
from densescope.features.stored import tensors_sha256
from densescope.features.training import trainer_facts
from densescope.features.transformers_backbone import TransformersBackbone, vision_tower
from densescope.files import is_local
from densescope.text import named

# Made anew by AutoModel where a pre-training checkpoint has none, and not used for features.
_CURE = (
    "read it by a short Python file of yours that returns its grid (--format custom --loader "
    "LOADER.py)"
)
_SPARE = 1 << 24  # weights that may be missing
_MOST, _MOST_LAYERS = 10_000_000, 1024  # numbers of a network; vocabularies are the largest
_UNUSED = ("pooler.", "mask_token", "embeddings.mask_token")


def load_huggingface(folder: Path, spec: BackboneSpec) -> LoadedBackbone:
    """Load a local folder with ``AutoModel``; nothing is downloaded and no remote code is run.

    Raises:
        CheckpointError: Transformers is not installed, the folder is not one of its models, or its
            weights do not fill the architecture.
    """
    if not is_local(folder):
        raise StepError(
            "read",
            f"{folder} is in an object store, and Transformers reads folders of a disk: copy it",
        )
    if not (folder / "config.json").is_file():
        raise StepError("read", f"{folder} is not a Transformers folder: it has no config.json")
    config = settings_of(folder)
    _refuse_numbers(folder, config)
    if "architecture" in config:
        raise StepError(
            "architecture",
            f"{folder} is the folder of a timm model ({named(config['architecture'])}), which timm "
            "itself reads: give --format timm",
        )
    if (held := weights_in(folder)) is not None and ".safetensors" not in held.name:
        read_checkpoint(folder)  # a pickle that Transformers would read without a budget
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as cause:
        raise CheckpointError(
            "format=huggingface needs Transformers: pip install 'densescope[huggingface]'"
        ) from cause
    try:
        with _quiet():
            settings = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            with without_values():
                wanted = AutoModel.from_config(settings, trust_remote_code=False).num_parameters()
            if wanted > _SPARE + 8 * size_of(folder):  # a weight has a bit at least
                raise ValueError(f"its config.json describes {wanted:,} weights")
            model, report = AutoModel.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as cause:
        raise StepError("load", f"Transformers cannot load {folder}: {cause}") from cause
    missing = [n for n in map(str, report["missing_keys"]) if not n.startswith(_UNUSED)]
    misfits = [str(name) for name in report["mismatched_keys"]]
    if missing or misfits:
        raise StepError(
            "load",
            f"{folder} does not fill {type(model).__name__}: {listing([*missing, *misfits])}",
        )
    backbone = _backbone(folder, model.float().eval(), spec)
    return LoadedBackbone(
        backbone=cast(Backbone, backbone.eval().requires_grad_(False)),
        coverage=Coverage("model", (), "", len(model.state_dict()) - len(report["missing_keys"])),
        sha256=tensors_sha256(_read(model, report["missing_keys"])),
        bytes=size_of(folder),
        epoch_inside=None,
        format=spec.format,
        architecture=type(vision_tower(model)).__name__,
        options={},
        training=trainer_facts(folder),
    )


def _refuse_numbers(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a network that is beyond any before Transformers takes memory for it."""
    waiting: list[tuple[str, Any]] = list(config.items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]
        most = _MOST_LAYERS if "layers" in str(key) or key == "depths" else _MOST
        if isinstance(value, int | float) and abs(value) > most:
            raise StepError(
                "load",
                f"{folder / 'config.json'} says {named(key)}={named(value)}, which no network has: "
                f"at most {most:,}",
            )


def _read(model: nn.Module, missing: Collection[Any]) -> dict[str, Tensor]:
    """The tensors that the folder holds, without those that were made anew."""
    new = set(map(str, missing))
    return {name: value for name, value in model.state_dict().items() if name not in new}


def _backbone(folder: Path, model: Any, spec: BackboneSpec) -> nn.Module:
    """The reader of a model, tried on a pair of images.

    Raises:
        StepError: the model does not make a square grid of patch features of an image.
    """
    config = getattr(model.config, "vision_config", model.config)
    if getattr(config, "mask_ratio", 0):
        config.mask_ratio = 0.0  # all patches are looked at
    own = getattr(config, "image_size", None) or 224
    own = own if isinstance(own, int) else own[0]
    normalization = _normalization(folder, spec)
    backbone = TransformersBackbone(
        model,
        image_size=spec.image_size or int(own),
        mean=normalization.mean,
        std=normalization.std,
    )
    _try(folder, backbone)
    return cast(nn.Module, backbone)


def _try(folder: Path, backbone: Any) -> None:
    size = backbone.image_size
    images = torch.linspace(-1, 1, 6 * size * size).reshape(2, 3, size, size)
    kind = type(backbone.model).__name__
    try:
        with torch.no_grad():
            grid = backbone.features(images).patches[0]
    except Exception as cause:
        raise StepError(
            "architecture",
            f"{folder} holds a {kind}, whose patch features cannot be read from an image of {size} "
            f"x {size} pixels ({type(cause).__name__}: {str(cause).splitlines()[0]}); {_CURE}",
        ) from cause
    if grid.ndim != 4 or grid.shape[2] != grid.shape[3] or not 0 < grid.shape[3] <= size:
        raise StepError(
            "architecture",
            f"{folder} holds a {kind}, which makes {tuple(grid.shape[1:])} of an image, not a "
            f"square grid of patch features; {_CURE}",
        )
    cells = grid.shape[3]
    backbone.patch_size = (
        size // cells if size % cells == 0 else 1 << (size // cells).bit_length() - 1
    )


def _normalization(folder: Path, spec: BackboneSpec) -> Normalization:
    asked = spec.asked_normalization()
    if asked is not None:
        return asked
    file = folder / "preprocessor_config.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = of_preprocessor(stored)
    if found is None:
        raise StepError(
            "read",
            f"{folder} has no preprocessor_config.json with image_mean and image_std, so nothing "
            "says how its images were normalized: give --normalization imagenet, or the mean and "
            "standard deviation of its training, such as --normalization 0.5,0.5,0.5/0.5,0.5,0.5",
        )
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Transformers from reporting what the returned report says, and its progress."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    before, shown = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(before)
        if shown:
            transformers_logging.enable_progress_bar()
