"""What a few formats need beyond renaming, so that timm's architectures compute the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from densescope.errors import CheckpointError

Tensors = Mapping[str, Tensor]
# (tensors of the file, the timm model they go into) -> tensors under the model's names
Conversion = Callable[[Tensors, Any], dict[str, Tensor]]

_DOWNSAMPLE = re.compile(r"^layers\.(\d+)\.downsample\.")


def swin_downsampling(tensors: Tensors, model: Any) -> dict[str, Tensor]:
    """Swin code halves the grid at the end of a stage, timm at the start of the next one."""

    def later(found: re.Match[str]) -> str:
        return f"layers.{int(found.group(1)) + 1}.downsample."

    return {_DOWNSAMPLE.sub(later, name): tensor for name, tensor in tensors.items()}


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


def dinov3_tokens(tensors: Tensors, model: Any) -> dict[str, Tensor]:
    """DINOv3 in timm's words: registers, layer scale, and a joint bias in three parts.

    The key's bias is masked out in the released recipes and timm has no place for another.

    Raises:
        CheckpointError: the key's bias is there, not masked, and not zero.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)
        if name == "storage_tokens":
            out["reg_token"] = tensor
        elif name.endswith(".qkv.bias"):
            out.update(_joint_bias(name, tensor, tensors))
        elif not name.endswith(".qkv.bias_mask"):
            out[name] = tensor
    return out


def _joint_bias(name: str, bias: Tensor, tensors: Tensors) -> dict[str, Tensor]:
    query, key, value = bias.chunk(3)
    if f"{name}_mask" not in tensors and bool(torch.count_nonzero(key)):
        raise CheckpointError(
            f"{name} has a bias for the key (mask_k_bias was off), which timm's DINOv3 cannot "
            "hold; load this model with format=custom"
        )
    stem = name.removesuffix("qkv.bias")
    return {f"{stem}q_bias": query, f"{stem}v_bias": value}
