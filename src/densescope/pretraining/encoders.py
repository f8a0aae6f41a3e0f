"""timm networks under training: one forward gives the image vector and the patch tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.features.architectures import build_architecture
from densescope.features.formats import find_format
from densescope.pretraining.settings import BackboneSettings

FAMILIES = {"vit": ("vit", "deit"), "resnet": ("resnet", "resnext", "wide"), "swin": ("swin",)}
FAMILY_TITLES = {"vit": "vision transformers", "resnet": "ResNets", "swin": "Swin transformers"}
# One per family: dense features at 64 pixels, and a few images a second on two cores.
SMALL = {
    "vit": BackboneSettings(),
    "resnet": BackboneSettings("resnet18", {"channels": (32, 64, 128, 256), "output_stride": 8}),
    "swin": BackboneSettings(
        "swin_tiny_patch4_window7_224",
        {
            "patch_size": 2,
            "window_size": 4,
            "embed_dim": 32,
            "depths": (1, 1, 2, 1),
            "num_heads": (1, 2, 4, 8),
        },
    ),
}
_ANY_SIZE = {"vit": {"dynamic_img_size": True}, "swin": {"strict_img_size": False}}  # of images
_LEAST_GRID = 7  # patches along a side at 224 pixels, of every published backbone


class EncoderOutput(NamedTuple):
    """Output of a network: ``images dim`` and ``images patches dim``."""

    image: Tensor
    patches: Tensor


@dataclass(frozen=True)
class Geometry:
    """Sizes that heads, views and masks depend on.

    Attributes:
        dim: width of the features.
        patch_size: side of a patch in pixels.
        rows: patches along a side.
    """

    dim: int
    patch_size: int
    rows: int

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.rows**2


def family_of(architecture: str) -> str:
    """``"vit"``, ``"resnet"`` or ``"swin"``.

    Raises:
        InputError: it is none of them.
    """
    first = architecture.split(".")[0]
    for family, beginnings in FAMILIES.items():
        if first.startswith(beginnings):
            return family
    raise InputError(
        f"cannot pretrain {architecture!r}: use one of timm's {', '.join(FAMILY_TITLES.values())}"
    )


def fit_to_image_size(backbone: BackboneSettings) -> BackboneSettings:
    """Options with which a published architecture has a grid on small images too.

    A ResNet-50 or Swin-T makes 7 x 7 patches of 224 pixels, but 2 x 2 of 64. Where nothing else
    is asked for, a ViT then gets smaller patches, a Swin smaller patches and windows, a ResNet a
    smaller output stride.
    """
    size, family = backbone.image_size, family_of(backbone.architecture)
    missing: dict[str, Any] = {}
    if family == "vit" and size < 16 * _LEAST_GRID:
        missing = {"patch_size": max(size // 8, 1)}
    elif family == "resnet" and size < 32 * _LEAST_GRID:
        missing = {"output_stride": 16 if size >= 16 * _LEAST_GRID else 8}
    elif family == "swin" and size < 32 * _LEAST_GRID:
        missing = {"patch_size": 2, "window_size": max(size // 16, 1)}
    return replace(backbone, options={**missing, **backbone.options})


def build_encoder(method: str, backbone: BackboneSettings, *, fixed_positions: bool) -> Encoder:
    """A network of this run with fresh weights, drawn from torch's global generator.

    Args:
        method: the row of ``FORMATS`` whose options (heads, epsilon, class token) it gets.
        backbone: architecture, options and image size.
        fixed_positions: sine and cosine positions that are not trained (MoCo v3, MAE, I-JEPA).

    Raises:
        InputError: the options do not fit together or the image is not a whole number of patches.
        CheckpointError: timm has no such architecture or option.
    """
    row = find_format(method)
    name, family = backbone.architecture, family_of(backbone.architecture)
    options = {**row.of(name).options, **backbone.loader_options}
    _check_options(backbone, family, options)
    options |= _ANY_SIZE.get(family, {})
    model, _ = build_architecture(name, options, initialized=True)
    encoder = Encoder(model, family, backbone.image_size)
    if fixed_positions and family == "vit":
        _fix_positions(encoder)
    return encoder


class Encoder(nn.Module):
    """A timm model without classifier, whatever its family."""

    def __init__(self, model: Any, family: str, image_size: int) -> None:
        super().__init__()
        self.model = model
        self.family = family
        patch_size = int(model.feature_info[-1]["reduction"])
        rows = image_size // patch_size if family != "resnet" else -(-image_size // patch_size)
        self.geometry = Geometry(int(model.num_features), patch_size, rows)

    @property
    def prefix_tokens(self) -> int:
        """Class and register tokens before the patches."""
        return int(getattr(self.model, "num_prefix_tokens", 0))

    def forward(self, images: Tensor) -> EncoderOutput:
        """Image vector and patch tokens, row by row, after the final norm."""
        output = self.model.forward_features(images)
        if self.family == "vit":
            return self.split(output)
        grid = output.flatten(1, 2) if self.family == "swin" else output.flatten(2).mT
        return EncoderOutput(grid.mean(1), grid)

    def visible(self, images: Tensor, keep: Tensor) -> EncoderOutput:
        """The tokens of a ViT that sees only some patches.

        Args:
            images: normalized.
            keep: ``images kept``, places of the patches it sees.
        """
        prefix = torch.arange(self.prefix_tokens, device=keep.device).expand(len(keep), -1)
        places = torch.cat([prefix, keep + self.prefix_tokens], dim=1)
        return self.split(self._masked(None).encode(images, idx_keep=places))

    def with_masks(self, images: Tensor, mask: Tensor, token: nn.Parameter) -> EncoderOutput:
        """The tokens of a ViT some of whose patches are replaced by one learned token.

        Args:
            images: normalized.
            mask: ``images patches``, true where a patch is replaced.
            token: ``1 1 dim``.
        """
        prefix = mask.new_zeros(len(mask), self.prefix_tokens)
        return self.split(self._masked(token).encode(images, mask=torch.cat([prefix, mask], 1)))

    def split(self, tokens: Tensor) -> EncoderOutput:
        """A ViT's output as image vector and patches."""
        patches = tokens[:, self.prefix_tokens :]
        has_class = getattr(self.model, "cls_token", None) is not None
        return EncoderOutput(tokens[:, 0] if has_class else patches.mean(1), patches)

    def _masked(self, token: nn.Parameter | None) -> Any:
        from lightly.models.modules.masked_vision_transformer_timm import (
            MaskedVisionTransformerTIMM,
        )

        # A shell around the same weights, not a part of this module: names stay timm's.
        return MaskedVisionTransformerTIMM(
            self.model,
            mask_token=token,
            weight_initialization="skip",
            pos_embed_initialization="skip",
        )


def _check_options(backbone: BackboneSettings, family: str, options: dict[str, Any]) -> None:
    size, patch = backbone.image_size, options.get("patch_size")
    if isinstance(patch, int):
        if size < patch:
            raise InputError(
                f"images of {size} pixels are smaller than one patch of {patch}: set patch_size "
                "to at most half of them"
            )
        if size % patch:
            raise InputError(f"image_size {size} is not a multiple of the patch size {patch}")
    dim, heads = options.get("embed_dim"), options.get("num_heads")
    if family == "vit" and isinstance(dim, int) and isinstance(heads, int) and dim % heads:
        raise InputError(f"{heads} heads do not divide a width of {dim}")


def _fix_positions(encoder: Encoder) -> None:
    from lightly.models.utils import initialize_2d_sine_cosine_positional_embedding

    if encoder.geometry.dim % 4:
        raise InputError(
            f"sine and cosine positions need a width that is a multiple of 4, not "
            f"{encoder.geometry.dim}"
        )
    initialize_2d_sine_cosine_positional_embedding(
        encoder.model.pos_embed, num_prefix_tokens=encoder.prefix_tokens
    )
