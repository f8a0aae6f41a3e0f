"""From the shapes of a file's tensors to timm architectures, heads and all.

Heads, epsilons and activations leave no trace in a shape. A named architecture fixes them, so what
is found here is a name: a network of that width, depth and patch size as its authors train it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from densescope.errors import CheckpointError
from densescope.features.architectures import build_architecture, without_values
from densescope.features.formats.row import Format
from densescope.features.layouts import StepError
from densescope.features.loaded import model_fingerprint, network_facts
from densescope.features.timm_backbone import TimmBackbone
from densescope.features.wrappers import as_named
from densescope.text import named

# Sizes of timm's vision transformers by width, with their depth.
_VITS = {
    192: ("tiny", 12),
    384: ("small", 12),
    512: ("medium", 12),
    768: ("base", 12),
    1024: ("large", 24),
    1152: ("so400m", 27),
    1280: ("huge", 32),
    1408: ("giant", 40),
    1536: ("giant", 40),
    1664: ("gigantic", 48),
}
# (a tensor that the file must have, or ``None``, and architectures to try); all that apply.
_VIT_NAMES: tuple[tuple[str | None, tuple[str, ...]], ...] = (
    (None, ("vit_{size}_patch{patch}_224", "vit_{size}_patch16_224", "vit_{size}_patch14_224")),
    (r"blocks\.0\.ls1\.gamma", ("vit_{size}_patch14_dinov2", "deit3_{size}_patch16_224")),
    (r"reg(ister)?_tokens?", ("vit_{size}_patch14_reg4_dinov2",)),
    (
        r"norm_pre\.weight",
        ("vit_{size}_patch{patch}_clip_224", "vit_{size}_patch{patch}_clip_quickgelu_224"),
    ),
    (r"cls_token", ("vit_{size}_patch16_dinov3_qkvb", "vit_{size}_patch16_dinov3")),
    (r"blocks\.0\.mlp\.(w1|fc1_g)\.weight", ("vit_{size}_plus_patch16_dinov3_qkvb",)),
)
_SWINS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "tiny",
    (96, (2, 2, 18, 2)): "small",
    (128, (2, 2, 18, 2)): "base",
    (192, (2, 2, 18, 2)): "large",
}
_RESNETS: dict[tuple[bool, tuple[int, ...]], tuple[str, ...]] = {
    (False, (2, 2, 2, 2)): ("resnet18",),
    (False, (3, 4, 6, 3)): ("resnet34",),
    (True, (2, 2, 2, 2)): ("resnet26",),
    (True, (3, 4, 6, 3)): ("resnet50", "wide_resnet50_2", "resnext50_32x4d"),
    (True, (3, 4, 23, 3)): ("resnet101", "wide_resnet101_2", "resnext101_32x8d"),
    (True, (3, 8, 36, 3)): ("resnet152",),
}
_CONVNEXTS: dict[tuple[int, tuple[int, ...]], str] = {
    (40, (2, 2, 6, 2)): "atto",
    (48, (2, 2, 6, 2)): "femto",
    (64, (2, 2, 6, 2)): "pico",
    (80, (2, 2, 8, 2)): "nano",
    (96, (3, 3, 9, 3)): "tiny",
    (96, (3, 3, 27, 3)): "small",
    (128, (3, 3, 27, 3)): "base",
    (192, (3, 3, 27, 3)): "large",
    (256, (3, 3, 27, 3)): "xlarge",
}


@dataclass(frozen=True)
class Shaped:
    """A timm architecture that tensors fill to the last one.

    Attributes:
        name: timm model name.
        options: arguments that the shapes ask for beyond the row's, such as ``img_size``.
        network: what two architectures share that compute the same features.
        facts: heads, depth, width, patch size and epsilon.
    """

    name: str
    options: Mapping[str, Any]
    network: str
    facts: Mapping[str, Any]

    @property
    def arguments(self) -> str:
        """As the command takes it: ``--architecture NAME --architecture-option ...``."""
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        given = f" --architecture-option {options}" if options else ""
        return f"--architecture {self.name}{given}"


def architectures_of(tensors: Mapping[str, Tensor], row: Format) -> list[Shaped]:
    """The different networks among timm's architectures that tensors fill, the usual one first.

    Args:
        tensors: under the names of the row's architecture, before its conversion.
        row: its options and conversion hold for every architecture of its family.

    Returns:
        One architecture per network: several where shapes leave heads, epsilons or activations
        open, none where no architecture known here has these shapes.
    """
    found: dict[str, Shaped] = {}
    for name, options in _candidates(tensors):
        if not row.trains(name):
            continue
        shaped = try_architecture(tensors, row, name, options)
        if shaped is not None:
            found.setdefault(shaped.network, shaped)
    return list(found.values())


def try_architecture(
    tensors: Mapping[str, Tensor], row: Format, name: str, options: Mapping[str, Any]
) -> Shaped | None:
    """One architecture, if the tensors fill it; only shapes are looked at.

    Args:
        tensors, row: as for :func:`architectures_of`.
        name: timm model name.
        options: of that architecture, over the row's.
    """
    own = row.of(name)
    try:
        model, facts, network = _built(name, _frozen({**own.options, **options}))
        if own.conversion is not None:
            model = deepcopy(model)  # a conversion may add to it
            tensors = own.conversion(tensors, model)
            network = model_fingerprint(model)
        tensors = as_named(tensors, model.state_dict())
    except (CheckpointError, AttributeError, KeyError):  # a conversion that is for other networks
        return None
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    if wanted != {key: value.shape for key, value in tensors.items()}:
        return None
    return Shaped(name, dict(options), network, facts)


@lru_cache(maxsize=64)
def _built(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[nn.Module, Any, str]:
    with without_values():
        model, size = build_architecture(name, dict(options))
    backbone: Any = model
    if hasattr(model, "feature_info"):
        backbone = TimmBackbone(model, image_size=size, mean=(), std=())
    return model, network_facts(backbone), model_fingerprint(model)


def weights_of(name: str, options: Mapping[str, Any]) -> int:
    """How many weights an architecture has, without taking memory for them.

    Raises:
        CheckpointError: it cannot be built with these options.
    """
    model = _built(name, _frozen(options))[0]
    return sum(value.numel() for value in model.state_dict().values())


def _frozen(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for key, value in values.items():
        parts = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(part, str | int | float | NoneType) for part in parts):
            raise StepError(
                "architecture",
                f"architecture option {named(key)}={named(value)} is no number, text or list",
            )
    return tuple(sorted(values.items()))


def _candidates(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Architectures to try; only the ones that timm has."""
    import timm

    for family in (_vits, _swins, _resnets, _convnexts):
        for name, options in family(tensors):
            if timm.is_model(name):
                yield name, options


def _vits(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    patch = tensors.get("patch_embed.proj.weight")
    if patch is None or patch.ndim != 4 or patch.shape[0] not in _VITS:
        return
    blocks, cell = _counts(tensors, r"blocks\.(\d+)\."), patch.shape[-1]
    size, usual = _VITS[patch.shape[0]]
    if not blocks:
        return
    options: dict[str, Any] = {} if blocks == usual else {"depth": blocks}
    if "cls_token" not in tensors:
        options |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
    seen = []
    for needed, patterns in _VIT_NAMES:
        if needed is None or any(re.fullmatch(needed, name) for name in tensors):
            seen += [pattern.format(size=size, patch=cell) for pattern in patterns]
    for name in dict.fromkeys(seen):
        yield name, {**options, **_patches(tensors, name, cell)}


def _patches(tensors: Mapping[str, Tensor], name: str, cell: int) -> dict[str, int]:
    """Patch and image size, where they are not those in the name of an architecture."""
    named = re.search(r"patch(\d+)", name)
    options = {} if named and int(named[1]) == cell else {"patch_size": cell}
    position = tensors.get("pos_embed")
    if position is None or position.ndim != 3:
        return options
    pixels = math.isqrt(position.shape[1]) * cell
    usual = {"dinov2": 518}.get(name.split("_")[-1], 224)
    return {**options, "img_size": pixels} if pixels != usual else options


def _swins(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    patch = tensors.get("patch_embed.proj.weight")
    bias = tensors.get("layers.0.blocks.0.attn.relative_position_bias_table")
    if patch is None or bias is None:
        return
    depths = _depths(tensors, r"layers\.{stage}\.blocks\.(\d+)\.")
    size = _SWINS.get((patch.shape[0], depths))
    window = (math.isqrt(bias.shape[0]) + 1) // 2
    if size is not None:
        name = f"swin_{size}_patch4_window7_224"
        yield name, {} if window == 7 else {"window_size": window}


def _resnets(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "layer1.0.conv1.weight" not in tensors:
        return
    depths = tuple(_counts(tensors, rf"layer{stage}\.(\d+)\.") for stage in range(1, 5))
    for name in _RESNETS.get(("layer1.0.conv3.weight" in tensors, depths), ()):
        yield name, {}


def _convnexts(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Any]]]:
    stem = tensors.get("stem.0.weight", tensors.get("downsample_layers.0.0.weight"))
    if stem is None:
        return
    depths = _depths(tensors, r"stages\.{stage}\.(?:blocks\.)?(\d+)\.(?:conv_dw|dwconv)\.")
    size = _CONVNEXTS.get((stem.shape[0], depths))
    if size is not None:
        yield f"convnext_{size}", {}
        yield f"convnextv2_{size}", {}


def _depths(tensors: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    return tuple(_counts(tensors, pattern.replace("{stage}", str(stage))) for stage in range(4))


def _counts(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


_HEADS = {384: 12, 768: 12, 1024: 16, 1280: 16}  # by width, in MoCo v3's code
_TOLERANCE = 2e-3  # files in half precision


def mocov3_heads(tensors: Mapping[str, Tensor]) -> int | None:
    """Heads of the network, where its positions are the fixed ones of MoCo v3's code.

    They are sines and cosines like those of MAE and I-JEPA, but with the two directions swapped. A
    file in which they were renamed or converted (``convert_to_deit.py``) keeps them.

    Returns:
        12 or 16; ``None`` for positions that were learned or are another code's, and for widths
        that MoCo v3 does not train.
    """
    held = tensors.get("pos_embed")
    if held is None or held.ndim != 3 or held.shape[-1] not in _HEADS:
        return None
    if not held.dtype.is_floating_point:
        return None
    side = math.isqrt(held.shape[1] - 1)
    if side * side != held.shape[1] - 1:
        return None
    expected = torch.cat([torch.zeros(1, held.shape[-1]), _mocov3(side, held.shape[-1])])
    found = held[0].to(torch.float32)
    return _HEADS[held.shape[-1]] if torch.allclose(found, expected, atol=_TOLERANCE) else None


def _mocov3(side: int, width: int) -> Tensor:
    """``side ** 2`` positions row by row: of the row first, then of the column."""
    rows, columns = torch.arange(side**2) // side, torch.arange(side**2) % side
    omega = 10000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = [place[:, None] * omega for place in (rows, columns)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
