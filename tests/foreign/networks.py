"""Networks of code bases that differ from timm's, written from their definitions and made small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from densescope.features.backbones import Features

Weights = dict[str, Tensor]
CONVNEXT_DIMS = (8, 16, 24, 32)
CONVNEXT_OPTIONS = {"img_size": 64, "depths": (1, 1, 1, 1), "dims": CONVNEXT_DIMS}


def convnext_weights(generator: torch.Generator, *, layer_scale: bool) -> Weights:
    """VICRegL's ConvNeXt: downsampling layers in a list of their own, one last norm."""

    def draw(*shape: int, around: float = 0.0) -> Tensor:
        return around + 0.2 * torch.randn(shape, generator=generator)

    def norm(name: str, dim: int) -> Weights:
        return {f"{name}.weight": draw(dim, around=1.0), f"{name}.bias": draw(dim)}

    def layer(name: str, *shape: int) -> Weights:
        return {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}

    weights: Weights = {}
    for stage, dim in enumerate(CONVNEXT_DIMS):
        before = CONVNEXT_DIMS[max(stage - 1, 0)]
        down, block = f"downsample_layers.{stage}", f"stages.{stage}.0"
        weights |= (
            layer(f"{down}.1", dim, before, 2, 2) | norm(f"{down}.0", before)
            if stage
            else layer(f"{down}.0", dim, 3, 4, 4) | norm(f"{down}.1", dim)
        )
        weights |= layer(f"{block}.dwconv", dim, 1, 7, 7) | norm(f"{block}.norm", dim)
        weights |= layer(f"{block}.pwconv1", 4 * dim, dim) | layer(f"{block}.pwconv2", dim, 4 * dim)
        if layer_scale:
            weights[f"{block}.gamma"] = draw(dim, around=1.0)
    return weights | norm("norm", CONVNEXT_DIMS[-1])


def convnext_features(weights: Weights, images: Tensor) -> Features:
    """Every position goes through the last norm before the mean is taken, unlike in ConvNeXt."""

    def norm(name: str, grid: Tensor) -> Tensor:
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(grid.movedim(1, 3), scale.shape, scale, shift, 1e-6).movedim(3, 1)

    def conv(name: str, grid: Tensor, **how: int) -> Tensor:
        return F.conv2d(grid, weights[f"{name}.weight"], weights[f"{name}.bias"], **how)

    grid = images
    for stage, dim in enumerate(CONVNEXT_DIMS):
        down, block = f"downsample_layers.{stage}", f"stages.{stage}.0"
        if stage:
            grid = conv(f"{down}.1", norm(f"{down}.0", grid), stride=2)
        else:
            grid = norm(f"{down}.1", conv(f"{down}.0", grid, stride=4))
        inner = norm(f"{block}.norm", conv(f"{block}.dwconv", grid, padding=3, groups=dim))
        hidden = inner.movedim(1, 3) @ weights[f"{block}.pwconv1.weight"].T
        hidden = F.gelu(hidden + weights[f"{block}.pwconv1.bias"])
        inner = hidden @ weights[f"{block}.pwconv2.weight"].T + weights[f"{block}.pwconv2.bias"]
        grid = grid + (inner * weights.get(f"{block}.gamma", torch.tensor(1.0))).movedim(3, 1)
    grid = norm("norm", grid)
    return Features((grid,), grid.mean((2, 3)))


class _PaddedResNet(ResNet):
    """SwAV's: three pixels are padded in two steps, one of them in front of the first layer."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1])
        self.padding = nn.ConstantPad2d(1, 0.0)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=2, bias=False)
        self.fc = nn.Identity()  # type: ignore[assignment]


def swav_features(weights: Weights, images: Tensor) -> Features:
    """SwAV's ResNet until its last map."""
    model = _PaddedResNet()
    model.load_state_dict(weights)
    model.eval()
    with torch.no_grad():
        grid = model.maxpool(model.relu(model.bn1(model.conv1(model.padding(images)))))
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            grid = layer(grid)
    return Features((grid,), grid.mean((2, 3)))


@dataclass(frozen=True)
class ClipSize:
    """A small vision transformer of CLIP's kind; heads are 64 wide, as open_clip has them."""

    width: int = 128
    heads: int = 2
    blocks: int = 2
    patch: int = 8
    side: int = 32


CLIP = ClipSize()
CLIP_OPTIONS = {
    "img_size": CLIP.side,
    "patch_size": CLIP.patch,
    "embed_dim": CLIP.width,
    "depth": CLIP.blocks,
    "num_heads": CLIP.heads,
}


def clip_weights(generator: torch.Generator) -> Weights:
    """The vision tower under the names of OpenAI's and open_clip's code, with its projection."""

    def draw(*shape: int, around: float = 0.0) -> Tensor:
        return around + 0.1 * torch.randn(shape, generator=generator)

    width = CLIP.width
    weights = {
        "class_embedding": draw(width),
        "positional_embedding": draw((CLIP.side // CLIP.patch) ** 2 + 1, width),
        "proj": draw(width, 16),
        "conv1.weight": draw(width, 3, CLIP.patch, CLIP.patch),
    }
    for name in ("ln_pre", "ln_post"):
        weights |= {f"{name}.weight": draw(width, around=1.0), f"{name}.bias": draw(width)}
    for block in range(CLIP.blocks):
        stem = f"transformer.resblocks.{block}"
        for name in ("ln_1", "ln_2"):
            weights |= {
                f"{stem}.{name}.weight": draw(width, around=1.0),
                f"{stem}.{name}.bias": draw(width),
            }
        weights[f"{stem}.attn.in_proj_weight"] = draw(3 * width, width)
        weights[f"{stem}.attn.in_proj_bias"] = draw(3 * width)
        for name, rows, columns in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            weights[f"{stem}.{name}.weight"] = draw(rows, columns)
            weights[f"{stem}.{name}.bias"] = draw(rows)
    return weights


def clip_features(weights: Weights, images: Tensor, *, quick: bool = False) -> Features:
    """All tokens go through the last norm; ``quick`` is OpenAI's approximation of GELU."""

    def norm(name: str, tokens: Tensor) -> Tensor:
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(tokens, scale.shape, scale, shift, 1e-5)

    def linear(name: str, tokens: Tensor) -> Tensor:
        return F.linear(tokens, weights[f"{name}.weight"], weights[f"{name}.bias"])

    tokens = F.conv2d(images, weights["conv1.weight"], stride=CLIP.patch).flatten(2).mT
    first = weights["class_embedding"].expand(len(images), 1, -1)
    tokens = torch.cat([first, tokens], 1) + weights["positional_embedding"]
    tokens = norm("ln_pre", tokens)
    for block in range(CLIP.blocks):
        stem = f"transformer.resblocks.{block}"
        normed = norm(f"{stem}.ln_1", tokens).transpose(0, 1)
        mixed, _ = F.multi_head_attention_forward(
            normed,
            normed,
            normed,
            CLIP.width,
            CLIP.heads,
            weights[f"{stem}.attn.in_proj_weight"],
            weights[f"{stem}.attn.in_proj_bias"],
            None,
            None,
            False,
            0.0,
            weights[f"{stem}.attn.out_proj.weight"],
            weights[f"{stem}.attn.out_proj.bias"],
            training=False,
            need_weights=False,
        )
        tokens = tokens + mixed.transpose(0, 1)
        hidden = linear(f"{stem}.mlp.c_fc", norm(f"{stem}.ln_2", tokens))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if quick else F.gelu(hidden)
        tokens = tokens + linear(f"{stem}.mlp.c_proj", hidden)
    tokens = norm("ln_post", tokens)
    side = CLIP.side // CLIP.patch
    return Features((tokens[:, 1:].mT.reshape(len(images), -1, side, side),), tokens[:, 0])
