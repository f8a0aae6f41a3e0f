"""Formats, and networks of them, whose tensor names a file has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.checkpoints import Container
from densescope.features.formats import FORMATS, Format, Weights
from densescope.features.formats.row import EMA
from densescope.features.layouts import (
    Coverage,
    StepError,
    find_prefix,
    found_at,
    tensors_at,
    unpack,
)
from densescope.features.network_prefixes import flattened, network_prefixes
from densescope.features.ranks import FLAT_NAMES
from densescope.features.shapes import mocov3_heads
from densescope.features.wrappers import without_wrappers

# Names that must occur, names that may occur: enough to tell families apart.
_FAMILIES = {
    "vit": (
        "blocks.0.attn.qkv.weight",
        r"(cls_token|pos_embed|patch_embed\.proj\.\w+|blocks\.\d+\.(norm|attn|mlp)[\w.]+|norm\.\w+)",
    ),
    "timm vit": (
        "blocks.0.attn.qkv.weight",
        r"(cls_token|reg_token|pos_embed|patch_embed\.proj\.\w+|blocks\.\d+\.[\w.]+"
        r"|(norm|norm_pre)\.\w+)",
    ),
    "dino2": (
        "blocks.0.ls1.gamma",
        r"(\w+_tokens?|pos_embed|patch_embed\.proj\.\w+|blocks\.\d+\.[\w.]+|norm\.\w+)",
    ),
    "resnet": ("layer1.0.conv1.weight", r"(conv1|bn1|layer[1-4]\.\d+)\.[\w.]+"),
    "swin": ("layers.0.blocks.0.attn.qkv.weight", r"(patch_embed|layers\.\d+|norm)\.[\w.]+"),
    "clip": (
        "transformer.resblocks.0.attn.in_proj_weight",
        r"(class_embedding|positional_embedding|(conv1|ln_pre|ln_post|transformer)\.[\w.]+)",
    ),
    "torchvision vit": (
        "encoder.layers.encoder_layer_0.ln_1.weight",
        r"(class_token|encoder\.[\w.]+|conv_proj\.\w+)",
    ),
    "timm convnext": (
        "stages.0.blocks.0.conv_dw.weight",
        r"(stem|stages|norm_pre|head\.norm)\.[\w.]+",
    ),
    "convnext": ("stages.0.0.dwconv.weight", r"(downsample_layers|stages|norm)\.[\w.]+"),
}
# timm drops or renames them
_NOT_TIMM = {"mask_token", "register_tokens", "storage_tokens"}
_OTHERS_NAMES = ("clip", "convnext")  # families whose names here are not timm's


@dataclass(frozen=True)
class Fit:
    """A format that fits a file.

    Attributes:
        format: its name.
        weights: sets of weights that fit, where the default one does not.
    """

    format: str
    weights: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.format} (weights={' or '.join(self.weights)})" if self.weights else self.format
        )

    @property
    def first(self) -> str | None:
        """The set of weights to take, ``None`` for the default one."""
        return self.weights[0] if self.weights else None

    @property
    def arguments(self) -> str:
        """As the command takes it: ``--format NAME --weights NAME``."""
        weights = f" --weights {self.weights[0]}" if self.weights else ""
        return f"--format {self.format}{weights}"


def fits_of(container: Container) -> list[Fit]:
    """Formats whose path and prefix lead to tensors with the names of their architecture.

    Formats that belong to no method come first: a method's own normalization and options are of
    use only to whoever knows that the file is of that method.
    """
    fits = []
    for row in sorted(FORMATS.values(), key=lambda row: bool(row.architecture)):
        if row.reader != "weights":
            continue
        if row.name == "safetensors" and container.kind != "safetensors":
            continue
        sets = {chosen.name: chosen for chosen in (*row.weights, row.choose(EMA.name))}
        names = [name for name, chosen in sets.items() if _fits(container, row, chosen)]
        if names:
            default = names[0] == row.weights[0].name
            fits.append(Fit(row.name, () if default else (names[0],)))
    return fits


def fits_by_name(container: Container, asked: Format) -> list[Fit]:
    """Formats that fit when the weights are named by the beginning of their names.

    Args:
        container: what was read.
        asked: the format that was tried, which comes first.
    """
    rows = {row.name: row for row in (asked, *FORMATS.values()) if row is asked or row.by_prefix}
    found = {
        row.name: prefixes_of(container, row)
        for row in rows.values()
        if row.name != "safetensors" or container.kind == "safetensors"
    }
    return [Fit(name, tuple(named)) for name, named in found.items() if named]


def prefixes_of(container: Container, row: Format) -> list[str]:
    """Beginnings by which networks of a file can be named as sets of weights of a format."""
    try:
        first = tensors_at(container, row, row.weights[0])
    except StepError:
        first = {}
    named = network_prefixes(first) or network_prefixes(flattened(container.content))
    return [name for name in named if name and _fits(container, row, row.choose(name))]


def for_network(
    container: Container, row: Format, chosen: Weights, architecture: str | None = None
) -> Format:
    """The row for the network that is in the file.

    Args:
        container: what was read.
        row: of a code that may train several networks, whose names tell them apart.
        chosen: which set of weights.
        architecture: the one that the user named, which need not be told.

    Raises:
        StepError: a key of the path is missing, or no tensor has the prefix.
    """
    if architecture:
        row = row.of(architecture)
    if container.ranks or not (row.others or row.without):
        return row
    found = tensors_at(container, row, chosen)
    prefix = find_prefix(found, container, row, chosen)
    for other in () if architecture else row.others:
        if prefix + _FAMILIES[_family(other.name)][0] in found:
            return row.of(other.name)
    for name, options in row.without:
        if prefix + name not in found:
            row = replace(row, options={**row.options, **options})
    return row


def _fits(container: Container, row: Format, chosen: Weights) -> bool:
    if container.ranks and row.registration is None:
        return False
    try:
        row = for_network(container, row, chosen)
        tensors, coverage = unpack(container, row, chosen)
    except CheckpointError:
        return False
    if container.ranks:
        return any(name.endswith(FLAT_NAMES) for name in tensors)
    if fixes_heads_of_anyone(row, coverage, tensors):
        return False
    if not row.architecture and not _NOT_TIMM.isdisjoint(tensors):
        return False
    if not _begins_as_written(container, row, chosen):
        return False
    own = [_family(row.architecture)] if row.architecture else set(_FAMILIES) - {*_OTHERS_NAMES}
    if not any(
        needed in tensors and all(re.fullmatch(allowed, name) for name in tensors)
        for needed, allowed in map(_FAMILIES.__getitem__, own)
    ):
        return False
    return "cls_token" not in tensors or row.options.get("class_token", True)


def fixes_heads_of_anyone(row: Format, coverage: Coverage, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a row has heads of its own for names that any network has, and nothing else speaks.

    What speaks for MoCo v3 in a file of its ``convert_to_deit.py`` are the fixed positions.
    """
    return "num_heads" in row.options and not coverage.prefix and mocov3_heads(tensors) is None


def _begins_as_written(container: Container, row: Format, chosen: Weights) -> bool:
    """Where a wrapper is all that a prefix consists of, a file without it is likelier another's."""
    if not all(prefix and not without_wrappers(prefix) for prefix in chosen.prefixes):
        return True
    names = found_at(container, row, chosen)
    return any(name.startswith(chosen.prefixes) for name in names)


def _family(architecture: str) -> str:
    if "dinov" in architecture:
        return "dino2"
    if "_clip_" in architecture:
        return "clip"
    return re.split(r"[_\d]", architecture)[0]
