"""Folders that Transformers wrote: ViT, DINOv2 and v3, I-JEPA, Swin, ResNet and their like."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from densescope.errors import CheckpointError, InputError
from densescope.features.checkpoints import size_of
from densescope.features.format_row import IMAGENET_MEAN, IMAGENET_STD, Format
from densescope.features.layouts import Coverage, StepError, listing
from densescope.features.loaded import LoadedBackbone
from densescope.features.protocol import Backbone, Features
from densescope.features.stored import identity

# Made anew by AutoModel where a pre-training checkpoint has none, and not used for features.
_UNUSED = ("pooler.", "mask_token", "embeddings.mask_token")
_NO_CLASS_TOKEN = ("ijepa", "siglip_vision_model", "siglip2_vision_model")


class TransformersBackbone(nn.Module):
    """A Transformers vision model as a :class:`Backbone`.

    It shares the model's weights, mode and ``requires_grad``.
    """

    def __init__(
        self, model: Any, *, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.model = model
        self.image_size, self.mean, self.std = image_size, mean, std
        config = model.config
        self.tokens = hasattr(config, "num_hidden_layers") and hasattr(config, "patch_size")
        self.tokens = self.tokens and not hasattr(config, "depths")
        self.patch_size = int(config.patch_size) if self.tokens else _stride(config)
        self.depth = int(config.num_hidden_layers if self.tokens else len(config.depths))
        self.prefix = _prefix_tokens(config) if self.tokens else 0
        self.norm = getattr(model, "layernorm", None) or getattr(model, "norm", None)
        self.resizes = "interpolate_pos_encoding" in signature(model.forward).parameters
        self.training = model.training

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        """Patch grids of blocks (ViT, after the final norm) or stages, and the image vector.

        Raises:
            InputError: a layer does not exist.
        """
        for layer in layers:
            if not -self.depth <= layer < self.depth:
                raise InputError(f"layer {layer} does not exist: this backbone has {self.depth}")
        extra = {"interpolate_pos_encoding": True} if self.resizes else {}
        out = self.model(images, output_hidden_states=True, **extra)
        indices = [layer % self.depth for layer in layers]
        if self.tokens:
            return self._from_tokens(images, out, indices)
        return self._from_grids(out, indices)

    def _from_tokens(self, images: Tensor, out: Any, indices: Sequence[int]) -> Features:
        rows, columns = (side // self.patch_size for side in images.shape[-2:])
        grids = []
        for index in indices:
            last = index == self.depth - 1
            tokens = out.last_hidden_state if last else self._normed(out.hidden_states[index + 1])
            grid = tokens[:, self.prefix :].transpose(1, 2)
            grids.append(grid.unflatten(2, (rows, columns)).contiguous())
        final = out.last_hidden_state
        return Features(tuple(grids), final[:, 0] if self.prefix else final.mean(1))

    def _normed(self, tokens: Tensor) -> Tensor:
        return tokens if self.norm is None else cast(Tensor, self.norm(tokens))

    def _from_grids(self, out: Any, indices: Sequence[int]) -> Features:
        states = getattr(out, "reshaped_hidden_states", None) or out.hidden_states
        final = out.last_hidden_state
        if final.ndim == 3:
            side = states[-1].shape[-2:]
            final = final.transpose(1, 2).unflatten(2, tuple(side))
        grids = [final if index == self.depth - 1 else states[index + 1] for index in indices]
        return Features(tuple(grids), final.mean((2, 3)))


def load_huggingface(folder: Path, row: Format, image_size: int | None) -> LoadedBackbone:
    """Load a local folder with ``AutoModel``; nothing is downloaded and no remote code is run.

    Raises:
        CheckpointError: Transformers is not installed, the folder is not one of its models, or its
            weights do not fill the architecture.
    """
    if not (folder / "config.json").is_file():
        raise StepError("read", f"{folder} is not a Transformers folder: it has no config.json")
    try:
        from transformers import AutoModel
    except ImportError as cause:
        raise CheckpointError(
            "format=huggingface needs Transformers: pip install 'densescope[huggingface]'"
        ) from cause
    try:
        with _quiet():
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
    config = model.config
    mean, std = _normalization(folder)
    size = image_size or int(getattr(config, "image_size", None) or 224)
    backbone = TransformersBackbone(model.float(), image_size=size, mean=mean, std=std)
    return LoadedBackbone(
        backbone=cast(Backbone, backbone.eval().requires_grad_(False)),
        coverage=Coverage("model", (), "", len(model.state_dict()) - len(report["missing_keys"])),
        sha256=identity(_read(model, report["missing_keys"])),
        bytes=size_of(folder),
        epoch_inside=None,
        format=row.name,
        architecture=type(model).__name__,
        options={},
    )


def _read(model: nn.Module, missing: Collection[Any]) -> dict[str, Tensor]:
    """The tensors that the folder holds, without those that were made anew."""
    new = set(map(str, missing))
    return {name: value for name, value in model.state_dict().items() if name not in new}


def _normalization(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return IMAGENET_MEAN, IMAGENET_STD
    stored = json.loads(file.read_text(encoding="utf-8"))
    mean, std = stored.get("image_mean") or IMAGENET_MEAN, stored.get("image_std") or IMAGENET_STD
    return tuple(map(float, mean)), tuple(map(float, std))


def _stride(config: Any) -> int:
    if hasattr(config, "patch_size"):
        return int(config.patch_size) << (len(config.depths) - 1)
    first = 2 if getattr(config, "downsample_in_first_stage", False) else 1
    return (4 * first) << (len(config.depths) - 1)


def _prefix_tokens(config: Any) -> int:
    if config.model_type in _NO_CLASS_TOKEN:
        return 0
    distilled = config.model_type == "deit"
    return 1 + int(distilled) + int(getattr(config, "num_register_tokens", 0) or 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Transformers from reporting what the returned report says."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
