"""Conversions beyond renaming that a few formats need for timm's architectures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from densescope.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# What lists formats or works on records must not wait for torch, so its type stands in quotes.
Tensors = Mapping[str, "Tensor"]
# (tensors of the file, the timm model they go into) -> tensors under the model's names
Conversion = Callable[[Tensors, Any], dict[str, "Tensor"]]
# the timm model -> names and shapes of the training code's parameters, as it registers them
Registration = Callable[[Any], dict[str, tuple[int, ...]]]

_DINOV2_MODULES = ("patch_embed", "blocks", "norm")
_DINOV2_BLOCK = (
    *("norm1", "attn.qkv", "attn.proj", "ls1"),
    *("norm2", "mlp.fc1", "mlp.fc2", "ls2"),
)
_CONVNEXT = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv", ".mlp.fc"),
    (r"^norm\.", "norm_pre."),
)
_CLIP = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)
_DOWNSAMPLE = re.compile(r"^layers\.(\d+)\.downsample\.")


def swin_downsampling(tensors: Tensors, model: Any) -> dict[str, Tensor]:
    """Swin code halves the grid at the end of a stage, timm at the start of the next one."""

    def later(found: re.Match[str]) -> str:
        return f"layers.{int(found.group(1)) + 1}.downsample."

    return {_DOWNSAMPLE.sub(later, name): tensor for name, tensor in tensors.items()}


def convnext_names(tensors: Tensors, model: Any) -> dict[str, Tensor]:
    """ConvNeXt's code in timm's words; without layer scale, timm's is set to one."""
    import torch

    out = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _CONVNEXT:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    gammas = {name: value for name, value in model.state_dict().items() if ".gamma" in name}
    if not any(name in out for name in gammas):
        out.update({name: torch.ones_like(value) for name, value in gammas.items()})
    return out


def clip_names(tensors: Tensors, model: Any) -> dict[str, Tensor]:
    """CLIP's vision transformer in timm's words; a tower of timm's keeps its names."""
    out = {}
    for name, tensor in tensors.items():
        if name == "class_embedding":
            tensor = tensor[None, None]
        if name == "positional_embedding":
            tensor = tensor[None]
        for pattern, replacement in _CLIP:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return out


def torchvision_vit(tensors: Tensors, model: Any) -> dict[str, Tensor]:
    """torchvision's vision transformer in timm's words; all other names stay."""
    if "encoder.layers.encoder_layer_0.ln_1.weight" not in tensors:
        return dict(tensors)
    out = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _TORCHVISION_VIT:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return out


def dinov2_tokens(tensors: Tensors, model: Any) -> dict[str, Tensor]:
    """DINOv2 adds a position to its class token before the registers; timm stores their sum."""
    out = {}
    for name, tensor in tensors.items():
        name = name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        out["reg_token" if name == "register_tokens" else name] = tensor
    if getattr(model, "no_embed_class", False) and {"cls_token", "pos_embed"} <= set(out):
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:]
    return out


def dinov2_registration(model: Any) -> dict[str, tuple[int, ...]]:
    """DINOv2's parameters of a timm model, in DINOv2's order.

    Its tokens belong to the network itself and so come first, the mask token (which timm leaves
    out) last among them; then the patch embedding, the blocks and the final norm.

    Raises:
        CheckpointError: the model is not a vision transformer with a class token and positions.
    """
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    if not {"cls_token", "pos_embed", "blocks.0.attn.qkv.weight"} <= set(shapes):
        raise CheckpointError(f"{type(model).__name__} is not a vision transformer as DINOv2's")
    _, tokens, width = shapes.pop("pos_embed")
    ordered = {"cls_token": shapes.pop("cls_token")}
    ordered["pos_embed"] = (1, tokens + bool(getattr(model, "no_embed_class", False)), width)
    if "reg_token" in shapes:
        ordered["register_tokens"] = shapes.pop("reg_token")
    ordered["mask_token"] = (1, width)
    # a gated layer is twice as wide inside, and DINOv2 names its parts otherwise
    gated = shapes.get("blocks.0.mlp.fc1.bias") != shapes.get("blocks.0.mlp.fc2.weight", (0, 0))[1:]
    for name in sorted(shapes, key=_dinov2_place):
        named = name.replace(".fc1.", ".w12.").replace(".fc2.", ".w3.") if gated else name
        ordered[named] = shapes[name]
    return ordered


def _dinov2_place(name: str) -> tuple[int, int, int, bool]:
    """Where DINOv2 registers a parameter: module, block, part of the block, weight or bias."""
    parts = name.split(".")
    module = _DINOV2_MODULES.index(parts[0]) if parts[0] in _DINOV2_MODULES else 3
    block = int(parts[1]) if parts[0] == "blocks" else 0
    inside = ".".join(parts[2:-1])
    part = _DINOV2_BLOCK.index(inside) if inside in _DINOV2_BLOCK else len(_DINOV2_BLOCK)
    return module, block, part, parts[-1] == "bias"


def dinov3_tokens(tensors: Tensors, model: Any) -> dict[str, Tensor]:
    """DINOv3 in timm's words: registers, layer scale, and a joint bias in three parts.

    The key's bias is masked out in the released recipes, and timm keeps zeros in its place that no
    file holds. Of a run with ``mask_k_bias: false`` they become part of the model, to be filled.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)
        if name == "storage_tokens":
            out["reg_token"] = tensor
        elif name.endswith(".qkv.bias"):
            out.update(_joint_bias(name, tensor, tensors, model))
        elif not name.endswith(".qkv.bias_mask"):
            out[name] = tensor
    return out


def _joint_bias(name: str, bias: Tensor, tensors: Tensors, model: Any) -> dict[str, Tensor]:
    query, key, value = bias.chunk(3)
    stem = name.removesuffix("qkv.bias")
    trained = f"{name}_mask" not in tensors and bool(key.any())
    attention = model.get_submodule(stem.removesuffix("."))
    attention.register_buffer("k_bias", attention.k_bias, persistent=trained)
    parts = {f"{stem}q_bias": query, f"{stem}v_bias": value}
    return {**parts, f"{stem}k_bias": key} if trained else parts
