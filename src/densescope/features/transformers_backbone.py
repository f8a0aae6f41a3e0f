"""A Transformers vision model as a backbone, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from math import isqrt
from typing import Any, cast

import torch
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.features.protocol import Features
from densescope.layers import block_of

# Their forward applies the last norm to the class token alone; here it goes over all tokens, as in
# the patch tokens of open_clip and timm.
_NORM_LEFT_OUT = tuple(
    f"{family}_vision_model"
    for family in ("clip", "chinese_clip", "altclip", "clipseg", "xclip", "metaclip_2", "mlcd")
)
_BEFORE_PATCHES = ("cls_token", "class_embedding", "distillation_token", "register_tokens")
_NORMS = ("layernorm", "norm", "post_layernorm", "rms_norm")


class TransformersBackbone(nn.Module):
    """A Transformers vision model as a :class:`Backbone`; of a model of images and text, its tower.

    It shares the model's weights, mode and ``requires_grad``. A masked autoencoder whose
    ``mask_ratio`` is 0 sees all patches, in their order.
    """

    def __init__(
        self, model: Any, *, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.model = model = vision_tower(model)
        self.image_size, self.mean, self.std = image_size, mean, std
        config = model.config
        pyramid = _stages(config)
        self.tokens = not pyramid and isinstance(getattr(config, "patch_size", None), int)
        self.patch_size = int(config.patch_size) if self.tokens else _stride(config, pyramid)
        self.depth = (
            (pyramid or int(getattr(config, "num_hidden_layers", 1)))
            if (pyramid or self.tokens)
            else 1
        )
        self.prefix = _prefix_tokens(model) if self.tokens else 0
        norms = [getattr(model, name) for name in _NORMS if hasattr(model, name)]
        self.norm = norms[0] if norms else None
        self.asks = frozenset(signature(model.forward).parameters)
        self.training = model.training

    def features(self, images: Tensor, layers: Sequence[int] = (-1,)) -> Features:
        """Patch grids of blocks (ViT, after the final norm) or stages, and the image vector.

        Raises:
            OptionError: a layer does not exist.
        """
        indices = [block_of(layer, self.depth) for layer in layers]
        out = self.model(images, output_hidden_states=True, **self._extra(images))
        return (
            self._from_tokens(images, out, indices)
            if self.tokens
            else self._pyramid(images, out, indices)
        )

    def _extra(self, images: Tensor) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        built = getattr(self.model.config, "image_size", None)
        sides = tuple(built) if isinstance(built, list | tuple) else (built, built)
        if "interpolate_pos_encoding" in self.asks and tuple(images.shape[-2:]) != sides:
            extra["interpolate_pos_encoding"] = True
        if "noise" in self.asks and self.model.config.model_type == "vit_mae":
            rows, columns = (side // self.patch_size for side in images.shape[-2:])
            order = torch.arange(rows * columns, device=images.device, dtype=torch.float32)
            extra["noise"] = order.expand(len(images), -1)
        return extra

    def _from_tokens(self, images: Tensor, out: Any, indices: Sequence[int]) -> Features:
        states = out.hidden_states
        last = out.last_hidden_state
        final = self._normed(last) if self.model.config.model_type in _NORM_LEFT_OUT else last
        outputs = [
            final
            if index == self.depth - 1
            else self._normed(states[len(states) - self.depth + index])
            for index in indices
        ]
        grids = tuple(self._grid(images, tokens) for tokens in outputs)
        if final.ndim == 4:
            return Features(grids, final.mean((2, 3)))
        summary = max(1, int(getattr(self.model.config, "n_cls_tokens", 1)))  # Pixio has several
        return Features(grids, final[:, : summary if self.prefix else None].mean(1))

    def _grid(self, images: Tensor, tokens: Tensor) -> Tensor:
        if tokens.ndim == 4:
            return tokens
        rows, columns = (side // self.patch_size for side in images.shape[-2:])
        patches = tokens[:, self.prefix : self.prefix + rows * columns]
        return patches.mT.reshape(len(tokens), -1, rows, columns)

    def _normed(self, tokens: Tensor) -> Tensor:
        return tokens if self.norm is None else cast(Tensor, self.norm(tokens))

    def _pyramid(self, images: Tensor, out: Any, indices: Sequence[int]) -> Features:
        states = list(getattr(out, "reshaped_hidden_states", None) or out.hidden_states or ())
        if self.model.config.model_type == "hiera":
            states = [state.movedim(3, 1) for state in states]
        final = self._last(out.last_hidden_state, states)
        grids = [final if i == self.depth - 1 else self._stage(states, i) for i in indices]
        return Features(tuple(grids), final.mean((2, 3)))

    def _stage(self, states: Sequence[Tensor], index: int) -> Tensor:
        """One of the grids before the last, where there is one per stage."""
        before = len(states) - self.depth  # the stem's grid, or the image
        if before not in (0, 1) or states[-1].ndim != 4:
            raise InputError(
                f"{type(self.model).__name__} does not say which grid is whose stage's: ask for "
                "layer -1"
            )
        return states[before + index]

    def _last(self, final: Tensor, states: Sequence[Tensor]) -> Tensor:
        """The final grid, at the side of the last stage where that is a grid."""
        if final.ndim == 4:
            return final
        grid = bool(states) and states[-1].ndim == 4
        return _square(final, tuple(states[-1].shape[-2:]) if grid else None)


def vision_tower(model: Any) -> Any:
    """The part that sees images in a model of images and text, else the model itself.

    Transformers 4 holds the network of a ``CLIPVisionModel`` in such a part, too.
    """
    return getattr(model, "vision_model", model)


def _prefix_tokens(model: Any) -> int:
    """Class, distillation and register tokens, by the parameters that hold them."""
    embeddings = getattr(model, "embeddings", None)
    held = embeddings.named_parameters(recurse=False) if embeddings is not None else ()
    return sum(
        value.shape[1] if value.ndim == 3 else 1 for name, value in held if name in _BEFORE_PATCHES
    )


def _square(tokens: Tensor, sides: tuple[int, ...] | None = None) -> Tensor:
    """``images tokens dim`` as a grid of the tokens behind a class token, if there is one."""
    side = isqrt(tokens.shape[1])
    rows, columns = sides or (side, side)
    patches = tokens[:, tokens.shape[1] - rows * columns :]
    return patches.mT.reshape(len(tokens), -1, rows, columns)


def _stages(config: Any) -> int:
    for name in ("depths", "depth"):
        depths = getattr(config, name, None)
        if isinstance(depths, list | tuple):
            return len(depths)
    return 0


def _stride(config: Any, stages: int) -> int:
    """Pixels of a cell in the last stage, as far as the configuration tells."""
    if isinstance(getattr(config, "patch_size", None), int):
        return int(config.patch_size) << max(stages - 1, 0)
    first = 2 if getattr(config, "downsample_in_first_stage", False) else 1
    return (4 * first) << max(stages - 1, 0)
