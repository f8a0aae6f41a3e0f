"""Patch tokens of models that are being trained: nothing is loaded, frozen or switched here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from densescope.errors import InputError
from densescope.features.normalization import IMAGENET
from densescope.features.protocol import Backbone, Features
from densescope.features.timm_backbone import TimmBackbone
from densescope.features.transformers_backbone import TransformersBackbone
from densescope.features.wrappers import unwrap_module

_CURE = "take its patch tokens yourself, as images patches dim, and hand those on"


def patch_tokens(model: Any, images: Tensor) -> Tensor:
    """Patch tokens of one more forward pass through a live model, with their gradient.

    The last block's tokens after the final norm, without class and register tokens; the cells of
    the last feature map where the model has no tokens. The model's mode and ``requires_grad`` stay
    as they are; in training mode its dropout and batch statistics take part as in any forward pass.
    A training step that has run the model already takes :func:`tokens_of` and saves this pass.

    Args:
        model: a timm model (with ``forward_intermediates``), a Transformers vision model, one of
            lightly's masked vision transformers, a :class:`~densescope.features.protocol.Backbone`,
            or a module that returns ``images patches dim`` or ``images dim rows columns``.
            ``torch.compile`` is looked through: this pass runs uncompiled.
        images: ``images channels height width``, normalized as the model wants them.

    Returns:
        ``images patches dim`` in the dtype of the model's output, patches row by row.

    Raises:
        InputError: the model is none of these, or gradients are recorded and it is wrapped in
            ``DistributedDataParallel``, which averages gradients of its own forward pass only.
    """
    if isinstance(model, DistributedDataParallel) and torch.is_grad_enabled():
        raise InputError(
            "the model is wrapped in DistributedDataParallel, which would not average the gradient "
            "of a forward pass around it: let the wrapped module return its patch tokens too, or "
            "take them from its output with tokens_of"
        )
    reader = _runnable(model)
    if isinstance(reader, TokenBackbone):
        return tokens_of(model, reader.run(images))
    return reader.features(images).patches[-1].flatten(2).mT


def tokens_of(model: Any, output: Any) -> Tensor:
    """Patch tokens in an output that a training step has anyway; no second forward pass.

    Class and register tokens are cut off, a feature map becomes one token per cell. Masked inputs
    are fine: whatever patches the output holds come back.

    Args:
        model: as for :func:`patch_tokens`; ``DistributedDataParallel`` is looked through too. It is
            asked for the number of tokens before the patches, and not run.
        output: of a timm model's ``forward_features``, of a Transformers model (which has
            ``last_hidden_state``), of ``encode`` of lightly's masked vision transformers, or of any
            other module that returns ``images patches dim`` or ``images dim rows columns``.

    Returns:
        ``images patches dim``, a view of the output where possible, differentiable.

    Raises:
        InputError: the output holds no patch tokens: a pooled vector, a tuple, class tokens only.
    """
    reader = _reader(model)
    output = getattr(output, "last_hidden_state", output)
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else _kind(output)
        raise InputError(
            f"the output of {_kind(_network_in(model))} is {found}, not images patches dim or "
            "images dim rows columns (of a timm model, forward_features gives tokens): "
            f"{_CURE}"
        )
    if output.ndim == 4:
        last = isinstance(reader, TimmBackbone) and reader.channels_last
        return output.flatten(1, 2) if last else output.flatten(2).mT
    prefix = int(getattr(reader, "prefix", 0))
    if output.shape[1] <= prefix:
        raise InputError(
            f"the output of {_kind(_network_in(model))} has {output.shape[1]} tokens per image and "
            f"the first {prefix} are class and register tokens: no patch is left"
        )
    return output[:, prefix:]


def live_backbone(
    model: Any,
    *,
    image_size: int,
    mean: Sequence[float] = IMAGENET.mean,
    std: Sequence[float] = IMAGENET.std,
    patch_size: int | None = None,
) -> Backbone:
    """A model in training as a :class:`~densescope.features.protocol.Backbone`.

    It shares the model's weights and leaves its mode and ``requires_grad`` alone: put the model in
    evaluation mode (and back) and switch gradients off around the measurement. Wrappers
    (``DistributedDataParallel``, ``DataParallel``, ``torch.compile``) are looked through. The
    image vector is the class token, the mean of the patches where there is none, and global
    average pooling for feature maps.

    Args:
        model: as for :func:`patch_tokens`; a ``Backbone`` comes back as it is, with its own
            normalization.
        image_size: side of the images in pixels.
        mean: mean that was subtracted from the images, per channel.
        std: standard deviation by which the images were divided, per channel.
        patch_size: pixels per cell; needed only for modules that do not say it themselves.

    Raises:
        InputError: the model is none of these, does not say its patch size, or is a ``Backbone``
            for another image size.
    """
    reader = _runnable(model, image_size, tuple(mean), tuple(std))
    if reader.image_size != image_size:
        raise InputError(
            f"this backbone was built for {reader.image_size} pixels, not {image_size}: "
            "ask for its own image_size"
        )
    if isinstance(reader, TokenBackbone):
        reader.patch_size = patch_size or reader.patch_size
        if reader.patch_size < 1:
            name = _kind(reader.model)
            raise InputError(f"{name} does not say its patch size: give patch_size=...")
    return reader


class TokenBackbone(nn.Module):
    """A module that gives patch tokens or one feature map, as a :class:`Backbone` of one layer."""

    def __init__(
        self,
        model: nn.Module,
        *,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        prefix: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.image_size, self.mean, self.std = image_size, mean, std
        self.prefix = prefix
        self.training = model.training
        size = getattr(model, "patch_size", None) or getattr(
            getattr(model, "vit", None), "patch_size", None
        )
        self.patch_size = size if isinstance(size, int) else 0

    def run(self, images: Tensor) -> Any:
        """The model's output; of ``encode`` where class tokens come first."""
        model: Any = self.model
        return model.encode(images) if self.prefix else model(images)

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        """The one patch grid, and the image vector.

        Raises:
            InputError: another layer than the last, or the patches do not fill a square.
        """
        if any(layer not in (0, -1) for layer in layers):
            raise InputError(f"{_kind(self.model)} gives one layer: ask for layer -1")
        output = self.run(images)
        tokens = tokens_of(self.model, output)
        is_map = isinstance(output, Tensor) and output.ndim == 4
        grid = (
            output
            if is_map
            else tokens.mT.reshape(*tokens.mT.shape[:2], *self._sides(tokens.shape[1]))
        )
        return Features((grid,) * len(layers), output[:, 0] if self.prefix else tokens.mean(1))

    def _sides(self, patches: int) -> tuple[int, int]:
        side = math.isqrt(patches)
        if side * side != patches:
            raise InputError(
                f"{_kind(self.model)} gives {patches} patches, which do not fill a square: let it "
                "return images dim rows columns"
            )
        return side, side


@dataclass(frozen=True)
class TokenReader:
    """How models of one library are recognized, and what reads them."""

    reads: Callable[[Any], bool]
    backbone: Callable[..., Any]


def _is_timm(model: Any) -> bool:
    return hasattr(model, "forward_intermediates") and hasattr(model, "feature_info")


def _is_transformers(model: Any) -> bool:
    config = getattr(model, "config", None)
    return hasattr(config, "model_type") and (
        hasattr(config, "num_hidden_layers") or hasattr(config, "depths")
    )


def _is_encoder(model: Any) -> bool:
    """One of lightly's vision transformers around torchvision's: one class token first."""
    length = hasattr(model, "sequence_length") or hasattr(model, "seq_length")
    return length and callable(getattr(model, "encode", None))


def _encoder(model: nn.Module, **about: Any) -> TokenBackbone:
    return TokenBackbone(model, prefix=1, **about)


READERS = (
    TokenReader(_is_timm, TimmBackbone),
    TokenReader(_is_transformers, TransformersBackbone),
    TokenReader(_is_encoder, _encoder),
    TokenReader(lambda model: isinstance(model, nn.Module), TokenBackbone),
)


def _reader(
    model: Any,
    image_size: int = 0,
    mean: tuple[float, ...] = IMAGENET.mean,
    std: tuple[float, ...] = IMAGENET.std,
) -> Backbone:
    inner = _network_in(model)
    if isinstance(inner, Backbone):
        return inner
    for row in READERS:
        if row.reads(inner):
            about = {"image_size": image_size, "mean": mean, "std": std}
            return cast(Backbone, row.backbone(inner, **about))
    raise InputError(
        f"cannot read patch tokens from {_kind(inner)}: known are timm, Transformers and lightly "
        f"models, backbones, and modules that return patch tokens; {_CURE}"
    )


def _runnable(model: Any, *about: Any) -> Backbone:
    """The reader of a model that can be run from outside and gives all its patches."""
    inner = _network_in(model)
    if any(_is_sharded(part) for part in (model, inner)):
        raise InputError(
            f"{_kind(inner)} is sharded by FSDP, which can only run it as a whole: let it return "
            "its patch tokens too, or take them from its output with tokens_of"
        )
    if getattr(getattr(inner, "config", None), "mask_ratio", 0):
        raise InputError(
            f"{_kind(inner)} leaves out a random {inner.config.mask_ratio:.0%} of the patches and "
            "shuffles the rest: take its patch tokens from an output you have with tokens_of"
        )
    return _reader(model, *about)


def _is_sharded(model: Any) -> bool:
    # By name: importing the classes takes as long as importing torch.
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(model).__mro__}
    return any(name.startswith("torch.distributed.fsdp.") for name in names)


def _wraps_shards(model: Any) -> bool:
    return type(model).__name__ == "FullyShardedDataParallel" and _is_sharded(model)


def _network_in(model: Any) -> Any:
    """The network without wrappers of parallel training and compilers, heads and masking."""
    while True:
        outer, model = model, unwrap_module(model)
        if _wraps_shards(model):
            model = model.module
        elif _is_encoder(model) and _is_timm(getattr(model, "vit", None)):
            model = model.vit
        elif _is_transformers(model):
            model = getattr(model, "base_model", model)
        if model is outer:
            return model


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
