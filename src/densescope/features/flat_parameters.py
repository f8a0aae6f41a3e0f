"""From the flat parameters of FSDP back to the tensors of a backbone.

FSDP strings the parameters of every wrapped module together in the order of their registration,
without saying where one ends. Names and shapes come from the architecture, and what can be checked
is: the number of values, the padding, and the rank's own pieces of each parameter where the run
kept them (``use_orig_params=True``, as DINOv2 does).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from densescope.errors import CheckpointError
from densescope.features.checkpoints import Container
from densescope.features.formats import FORMATS
from densescope.features.formats.row import Format, Weights
from densescope.features.inert import InertTensor
from densescope.features.layouts import StepError, find_prefix, tensors_at
from densescope.features.ranks import FLAT_NAMES, join_shards, shard_of

_ALIGNMENTS = (1, 2, 4, 8, 16)  # values in 16 bytes; 1 is without alignment
_PADDING = 42.0  # what torch fills gaps with
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
Shapes = Mapping[str, tuple[int, ...]]
_Layout = dict[str, dict[str, tuple[int, ...]]]  # wrapped module -> its parameters in order


@dataclass(frozen=True)
class _Flat:
    """All flat parameters of a backbone, by wrapped module, and what else the file says of it."""

    units: Mapping[str, Tensor]
    pieces: Mapping[str, tuple[Tensor, ...]]  # name -> what each rank has under that name
    group_size: int


def unflatten(
    container: Container, row: Format, chosen: Weights, model: nn.Module, architecture: str
) -> Container:
    """The same content with whole, named tensors in place of one backbone's flat parameters.

    Args:
        container: rank files, as :func:`~densescope.features.checkpoints.read_checkpoint` reads
            them.
        row: the format the user named.
        chosen: which of its sets of weights.
        model: the architecture, whose shapes count.
        architecture: its name, for errors.

    Raises:
        StepError: the format does not know flat parameters, or they do not fit the architecture.
    """
    if row.registration is None:
        known = ", ".join(other.name for other in FORMATS.values() if other.registration)
        raise StepError(
            "read",
            f"{container.path} holds flat parameters of FSDP, which do not say which weight is "
            f"where, and format {row.name} does not know it either; formats that do: {known}",
        )
    ranks = [
        tensors_at(replace(container, content=content), row, chosen) for content in container.ranks
    ]
    prefix = find_prefix(ranks[0], container, row, chosen)
    flat = _collect(ranks, prefix)
    if not flat.units:
        return replace(container, content=_nested(chosen, ranks[0]), ranks=())
    try:
        registered = row.registration(model)
    except CheckpointError as error:
        raise StepError("architecture", str(error)) from error
    try:
        tensors = _split(flat, registered)
    except ValueError as cause:
        raise StepError(
            "load",
            f"the flat parameters at {prefix} of {container.path} do not fit {architecture}: "
            f"{cause}; check the architecture and its options",
        ) from cause
    kept = {
        name: value
        for name, value in ranks[0].items()
        if not (name.startswith(prefix) and isinstance(value, InertTensor))
    }
    whole = {prefix + name: tensor for name, tensor in tensors.items()}
    return replace(container, content=_nested(chosen, kept | whole), ranks=())


def _nested(chosen: Weights, tensors: Mapping[str, Any]) -> Any:
    content: Any = dict(tensors)
    for key in reversed(chosen.path):
        content = {key: content}
    return content


def _collect(ranks: list[Mapping[str, Any]], prefix: str) -> _Flat:
    units: dict[str, Tensor] = {}
    pieces: dict[str, tuple[Any, ...]] = {}
    group_size = 1
    for name, value in ranks[0].items():
        if not name.startswith(prefix):
            continue
        inside = name.removeprefix(prefix)
        unit, _, last = inside.rpartition(".")
        everywhere = tuple(rank.get(name) for rank in ranks)
        if isinstance(value, InertTensor) and last in FLAT_NAMES:
            shards = [shard_of(name, thing) for thing in everywhere]
            units[unit] = join_shards(name, shards)
            group_size = shards[0].group_size
        elif all(_is_row(thing) for thing in everywhere):
            pieces[inside] = everywhere
    return _Flat(units, {name: rows[:group_size] for name, rows in pieces.items()}, group_size)


def _is_row(thing: Any) -> bool:
    return isinstance(thing, Tensor) and not isinstance(thing, InertTensor) and thing.ndim == 1


def _split(flat: _Flat, registered: Shapes) -> dict[str, Tensor]:
    """Cut flat parameters where the parameters of the architecture begin and end.

    Raises:
        ValueError: they hold another number of values, or it cannot be told where to cut.
    """
    candidates: list[dict[str, Tensor]] = []
    gaps: list[list[Tensor]] = []
    seen: set[tuple[Any, ...]] = set()
    for layout in _layouts(flat, registered):
        for alignment in _ALIGNMENTS:
            places = _places(flat, layout, alignment)
            if places is not None and places not in seen:
                seen.add(places)
                cut, left = _cut(flat, layout, places)
                candidates.append(cut)
                gaps.append(left)
    if not candidates:
        raise ValueError(_disagreement(flat, registered))
    return _agreeing(flat, candidates, gaps)


def _layouts(flat: _Flat, registered: Shapes) -> Iterator[_Layout]:
    """The ways in which the blocks can lie in the wrapped modules of these names."""
    inner = sorted(unit for unit in flat.units if unit)
    if not inner:
        yield {"": dict(registered)}
        return
    chunks = len(inner)
    if set(inner) != {f"blocks.{chunk}" for chunk in range(chunks)}:
        raise ValueError(f"{', '.join(inner)} are wrapped, where blocks.0, blocks.1, ... can be")
    matches = {name: _BLOCK.fullmatch(name) for name in registered}
    depth = 1 + max(int(match.group(1)) for match in matches.values() if match)
    # A wrapped block is named as it is, one in a wrapped chunk after its chunk too.
    single = any(re.match(r"blocks\.\d+\.[a-z]", name) for name in flat.pieces)
    for length in range(1, depth + 1):
        if -(-depth // length) != chunks:
            continue
        layout: _Layout = {unit: {} for unit in flat.units}
        for name, match in matches.items():
            if match is None:
                layout.setdefault("", {})[name] = registered[name]
                continue
            unit = f"blocks.{int(match.group(1)) // length}"
            named = name if single else f"{unit}.{match.group(1)}.{match.group(2)}"
            layout[unit][named] = registered[name]
        yield layout


def _places(flat: _Flat, layout: _Layout, alignment: int) -> tuple[Any, ...] | None:
    """First values of all parameters, or ``None`` if the flat parameters have other sizes."""
    places = []
    for unit, shapes in layout.items():
        end = 0
        for name, shape in shapes.items():
            start = -(-end // alignment) * alignment
            places.append((unit, name, start))
            end = start + prod(shape)
        size = flat.units[unit].numel() if unit in flat.units else -1
        filled = -(-end // flat.group_size) * flat.group_size  # only where torch aligns at all
        if size not in (end, filled if alignment > 1 else end):
            return None
    return tuple(places)


def _cut(
    flat: _Flat, layout: _Layout, places: tuple[Any, ...]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    tensors, gaps, end = {}, [], dict.fromkeys(flat.units, 0)
    for unit, name, start in places:
        shape, whole = layout[unit][name], flat.units[unit]
        gaps.append(whole[end[unit] : start])
        end[unit] = start + prod(shape)
        tensors[name] = whole[start : end[unit]].view(shape)
    gaps += [whole[end[unit] :] for unit, whole in flat.units.items()]
    return tensors, gaps


def _agreeing(
    flat: _Flat, candidates: list[dict[str, Tensor]], gaps: list[list[Tensor]]
) -> dict[str, Tensor]:
    """The one way to cut that agrees with the pieces and with the padding."""
    wrong = [_contradicted(flat, cut) for cut in candidates]
    fitting = [index for index, name in enumerate(wrong) if name is None]
    if not fitting:
        raise ValueError(f"the ranks' own pieces of {wrong[0]} have other values")
    if len(fitting) > 1:
        fitting = [index for index in fitting if _is_padding(gaps[index])]
    if len(fitting) != 1:
        raise ValueError("it cannot be told how they were aligned")
    return candidates[fitting[0]]


def _contradicted(flat: _Flat, cut: Mapping[str, Tensor]) -> str | None:
    for name, tensor in cut.items():
        if name not in flat.pieces:
            continue
        piece = torch.cat(flat.pieces[name])
        if piece.dtype != tensor.dtype or not _same_bytes(piece, tensor.flatten()):
            return name
    return None


def _same_bytes(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.view(torch.uint8), second.view(torch.uint8))


def _is_padding(gaps: list[Tensor]) -> bool:
    """Whether nothing but torch's filler lies between; averaging it moved the last digits."""
    return all(bool(((gap.double() - _PADDING).abs() < 0.5).all()) for gap in gaps)


def _disagreement(flat: _Flat, registered: Shapes) -> str:
    there = sum(whole.numel() for whole in flat.units.values())
    wanted = sum(prod(shape) for shape in registered.values())
    if there == wanted:
        return f"their {there} values are the right number, but divided otherwise among modules"
    return f"they hold {there} values, the architecture has {wanted}"
