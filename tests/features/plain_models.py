"""Reference networks written without timm: a functional ViT, and torchvision's ResNet and Swin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.swin_transformer import SwinTransformer

from densescope.features.backbones import Features

DIM, DEPTH, HEADS, PATCH, SIZE = 48, 2, 4, 8, 32
VIT_OPTIONS = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH}
Weights = dict[str, Tensor]


def random_images(generator: torch.Generator, size: int = SIZE) -> Tensor:
    return torch.randn(2, 3, size, size, generator=generator)


def vit_weights(
    generator: torch.Generator,
    *,
    class_token: bool = True,
    dim: int = DIM,
    patch: int = PATCH,
    size: int = SIZE,
) -> Weights:
    """Tensors of a pre-norm ViT under the names every public code shares; small by default."""

    def draw(*shape: int, around: float = 0.0) -> Tensor:
        return around + 0.2 * (DIM / dim) ** 0.5 * torch.randn(shape, generator=generator)

    patches = (size // patch) ** 2
    weights = {"cls_token": draw(1, 1, dim)} if class_token else {}
    weights["pos_embed"] = draw(1, patches + class_token, dim)
    weights["patch_embed.proj.weight"] = draw(dim, 3, patch, patch)
    weights["patch_embed.proj.bias"] = draw(dim)
    for block in range(DEPTH):
        stem = f"blocks.{block}"
        for norm in ("norm1", "norm2"):
            weights[f"{stem}.{norm}.weight"] = draw(dim, around=1.0)
            weights[f"{stem}.{norm}.bias"] = draw(dim)
        for name, rows, columns in (
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            ("mlp.fc1", 4 * dim, dim),
            ("mlp.fc2", dim, 4 * dim),
        ):
            weights[f"{stem}.{name}.weight"] = draw(rows, columns)
            weights[f"{stem}.{name}.bias"] = draw(rows)
    weights["norm.weight"] = draw(dim, around=1.0)
    weights["norm.bias"] = draw(dim)
    return weights


def vit_features(
    weights: Weights, images: Tensor, *, heads: int = HEADS, layers: Sequence[int] = (-1,)
) -> Features:
    """Forward pass of :func:`vit_weights`, with registers, layer scale and SwiGLU if present."""
    tokens = F.conv2d(
        images,
        weights["patch_embed.proj.weight"],
        weights["patch_embed.proj.bias"],
        stride=weights["patch_embed.proj.weight"].shape[-1],
    )
    rows, columns = tokens.shape[-2:]
    tokens = tokens.flatten(2).transpose(1, 2)
    prefix = 0
    if "cls_token" in weights:
        tokens = torch.cat([weights["cls_token"].expand(len(images), -1, -1), tokens], 1)
        prefix = 1
    tokens = tokens + weights["pos_embed"]
    if "register_tokens" in weights:
        registers = weights["register_tokens"].expand(len(images), -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        prefix += registers.shape[1]
    grids = []
    for block in range(DEPTH):
        tokens = _block(weights, f"blocks.{block}", tokens, heads)
        patches = _norm(weights, "norm", tokens)[:, prefix:]
        grids.append(patches.transpose(1, 2).unflatten(2, (rows, columns)))
    tokens = _norm(weights, "norm", tokens)
    image = tokens[:, 0] if prefix else tokens.mean(1)
    return Features(tuple(grids[layer] for layer in layers), image)


def _norm(weights: Weights, name: str, tokens: Tensor) -> Tensor:
    return F.layer_norm(
        tokens, tokens.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6
    )


def _linear(weights: Weights, name: str, tokens: Tensor) -> Tensor:
    return tokens @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _block(weights: Weights, stem: str, tokens: Tensor, heads: int) -> Tensor:
    joint = _linear(weights, f"{stem}.attn.qkv", _norm(weights, f"{stem}.norm1", tokens))
    query, key, value = joint.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    attention = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    mixed = (attention @ value).transpose(1, 2).flatten(2)
    mixed = _linear(weights, f"{stem}.attn.proj", mixed)
    tokens = tokens + mixed * weights.get(f"{stem}.ls1.gamma", torch.tensor(1.0))
    normed = _norm(weights, f"{stem}.norm2", tokens)
    if f"{stem}.mlp.w12.weight" in weights:
        gate, content = _linear(weights, f"{stem}.mlp.w12", normed).chunk(2, -1)
        out = _linear(weights, f"{stem}.mlp.w3", F.silu(gate) * content)
    else:
        out = _linear(
            weights, f"{stem}.mlp.fc2", F.gelu(_linear(weights, f"{stem}.mlp.fc1", normed))
        )
    return tokens + out * weights.get(f"{stem}.ls2.gamma", torch.tensor(1.0))


def perturb(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Random values everywhere, so that no tensor can be lost unseen."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.1 * noise.abs())
            elif name.endswith(("running_mean", "bias")):
                tensor.copy_(0.1 * noise)
            elif tensor.ndim == 1:
                tensor.copy_(1 + 0.1 * noise)
            else:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
    return model.eval()


RESNET_OPTIONS = {"img_size": 64, "layers": (1, 1, 1, 1)}


def _resnet() -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 1])


def resnet_weights(generator: torch.Generator) -> Weights:
    """torchvision's ResNet, made small; it names its tensors like the SSL codes' ResNet-50."""
    weights = perturb(_resnet(), generator).state_dict()
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


def resnet_features(weights: Weights, images: Tensor) -> Features:
    model = _resnet()
    model.fc = nn.Identity()
    model.load_state_dict(weights)
    model.eval()
    trunk = nn.Sequential(*list(model.children())[:-2])
    with torch.no_grad():
        return Features((trunk(images),), model(images))


SWIN_SIZE, SWIN_EPS = 64, 1e-6
SWIN_OPTIONS = {
    "img_size": SWIN_SIZE,
    "embed_dim": 24,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
}


def _swin(eps: float) -> SwinTransformer:
    return SwinTransformer(
        patch_size=[4, 4],
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        stochastic_depth_prob=0.0,
        norm_layer=partial(nn.LayerNorm, eps=eps),
    )


_SWIN_NAMES = (
    ("features.0.0.", "patch_embed.proj."),
    ("features.0.2.", "patch_embed.norm."),
    ("features.1.", "layers.0.blocks."),
    ("features.2.", "layers.0.downsample."),
    ("features.3.", "layers.1.blocks."),
    (".mlp.0.", ".mlp.fc1."),
    (".mlp.3.", ".mlp.fc2."),
)


def swin_weights(generator: torch.Generator) -> Weights:
    """torchvision's Swin under the names of the original code, with its fixed buffers."""
    model = perturb(_swin(SWIN_EPS), generator)
    weights = {}
    for name, value in model.state_dict().items():
        if name.startswith("head."):
            continue
        for old, new in _SWIN_NAMES:
            name = name.replace(old, new) if old in name else name
        weights[name] = value
    return weights


def swin_features(weights: Weights, images: Tensor, *, eps: float = SWIN_EPS) -> Features:
    model = _swin(eps).eval()
    theirs = {}
    for name in model.state_dict():
        ours = name
        for old, new in _SWIN_NAMES:
            ours = ours.replace(old, new) if old in ours else ours
        theirs[name] = model.state_dict()[name] if name.startswith("head.") else weights[ours]
    model.load_state_dict(theirs)
    with torch.no_grad():
        grid = model.norm(model.features(images)).permute(0, 3, 1, 2)
    return Features((grid,), grid.mean((2, 3)))


def dinov3_weights(generator: torch.Generator, *, masked: bool) -> Weights:
    """A small DINOv3: rotary positions, registers, layer scale, no bias for the key.

    ``masked`` says how the key's bias is kept out: by a mask over it, or by being zero.
    """
    weights = vit_weights(generator)
    del weights["pos_embed"]

    def draw(*shape: int) -> Tensor:
        return 0.2 * torch.randn(shape, generator=generator)

    weights["storage_tokens"] = draw(1, 4, DIM)
    weights["mask_token"] = draw(1, DIM)
    weights["rope_embed.periods"] = draw(DIM // HEADS // 4)
    weights["local_cls_norm.weight"] = draw(DIM)
    for block in range(DEPTH):
        for scale in ("ls1", "ls2"):
            weights[f"blocks.{block}.{scale}.gamma"] = 1 + draw(DIM)
        if masked:
            mask = torch.ones(3 * DIM)
            mask[DIM : 2 * DIM] = 0
            weights[f"blocks.{block}.attn.qkv.bias_mask"] = mask
        else:
            weights[f"blocks.{block}.attn.qkv.bias"][DIM : 2 * DIM] = 0
    return weights


def dinov3_features(weights: Weights, images: Tensor, *, eps: float = 1e-5) -> Features:
    """Forward pass of :func:`dinov3_weights`."""
    kernel = weights["patch_embed.proj.weight"]
    grid = F.conv2d(images, kernel, weights["patch_embed.proj.bias"], stride=kernel.shape[-1])
    rows, columns = grid.shape[-2:]
    first = torch.cat(
        [weights[name] for name in ("cls_token", "storage_tokens") if name in weights], 1
    )
    tokens = torch.cat([first.expand(len(images), -1, -1), grid.flatten(2).transpose(1, 2)], 1)
    angles = _rotary_angles(rows, columns)
    for block in range(DEPTH):
        tokens = _rotary_block(weights, f"blocks.{block}", tokens, angles, eps)
    tokens = F.layer_norm(tokens, (DIM,), weights["norm.weight"], weights["norm.bias"], eps)
    patches = tokens[:, first.shape[1] :].transpose(1, 2).unflatten(2, (rows, columns))
    return Features((patches,), tokens[:, 0])


def _rotary_angles(rows: int, columns: int) -> Tensor:
    """``patches head_dim``: half of it turns with the row, half with the column, base 100."""
    quarter = DIM // HEADS // 4
    speed = 2 * torch.pi / 100 ** (torch.arange(quarter) / quarter)
    down = (2 * (torch.arange(rows) + 0.5) / rows - 1).repeat_interleave(columns)
    right = (2 * (torch.arange(columns) + 0.5) / columns - 1).repeat(rows)
    half = torch.cat([down[:, None] * speed, right[:, None] * speed], 1)
    return torch.cat([half, half], 1)


def _rotate(vectors: Tensor, angles: Tensor) -> Tensor:
    """Turn patch vectors; class token and registers in front of them stay."""
    prefix = vectors.shape[-2] - len(angles)
    fixed, turning = vectors[..., :prefix, :], vectors[..., prefix:, :]
    left, right = turning.chunk(2, -1)
    turned = turning * angles.cos() + torch.cat([-right, left], -1) * angles.sin()
    return torch.cat([fixed, turned], -2)


def _rotary_block(
    weights: Weights, stem: str, tokens: Tensor, angles: Tensor, eps: float
) -> Tensor:
    def norm(name: str, values: Tensor) -> Tensor:
        scale, shift = weights[f"{stem}.{name}.weight"], weights[f"{stem}.{name}.bias"]
        return F.layer_norm(values, (DIM,), scale, shift, eps)

    bias = weights[f"{stem}.attn.qkv.bias"] * weights.get(
        f"{stem}.attn.qkv.bias_mask", torch.tensor(1.0)
    )
    joint = norm("norm1", tokens) @ weights[f"{stem}.attn.qkv.weight"].T + bias
    query, key, value = joint.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    query, key = _rotate(query, angles), _rotate(key, angles)
    attention = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    mixed = _linear(weights, f"{stem}.attn.proj", (attention @ value).transpose(1, 2).flatten(2))
    tokens = tokens + mixed * weights[f"{stem}.ls1.gamma"]
    hidden = F.gelu(_linear(weights, f"{stem}.mlp.fc1", norm("norm2", tokens)))
    return tokens + _linear(weights, f"{stem}.mlp.fc2", hidden) * weights[f"{stem}.ls2.gamma"]
