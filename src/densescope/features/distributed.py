"""Folders of ``torch.distributed.checkpoint`` (``.metadata`` and ``*.distcp``) on one machine.

The folder's index is a pickle that torch itself reads with the plain ``pickle`` module. Here every
class in it is an inert placeholder whose stored fields are looked at, so it runs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.archives import TorchArchive
from densescope.features.inert import Inert
from densescope.features.rebuilding import TORCH_ANSWERS
from densescope.features.stored import StoredTensor, TensorFile, in_memory
from densescope.features.unpickling import Unpickler
from densescope.files import opened
from densescope.text import named

# Optimizer state is twice the size of the weights and of no use here.
_LEFT_OUT = ("optimizer", "optim")
_COUNTERS = ("iteration", "epoch", "step", "global_step")


@dataclass(frozen=True)
class _Piece:
    file: TensorFile
    start: int
    length: int
    offsets: tuple[int, ...]


def read_distributed(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Tensors of a distributed checkpoint, stored ones, nested as they were saved.

    Args:
        folder: holds ``.metadata`` and the ``.distcp`` files of all ranks.

    Returns:
        The saved dictionary without optimizer state, and the class names its index asked for.

    Raises:
        CheckpointError: the index is damaged, or a file it points to is missing.
    """
    with opened(folder / ".metadata") as stream:
        unpickler = Unpickler(stream, TORCH_ANSWERS)
        index = unpickler.load()
    fields = _fields(index)
    described: Mapping[str, Any] = fields.get("state_dict_metadata") or {}
    if not described or not fields.get("storage_data"):
        raise CheckpointError(f"{folder}/.metadata lists no tensors: the save was interrupted")
    pieces = _pieces(folder, fields["storage_data"])
    places: Mapping[str, Any] = fields.get("planner_data") or {}
    content: dict[str, Any] = {}
    for name, about in described.items():
        where = places.get(name, (name,))
        if str(where[0]) in _LEFT_OUT:
            continue
        if "size" in _fields(about):
            value: Any = _stored(name, about, pieces.get(name, []))
        elif name in _COUNTERS:
            value = _load_piece(pieces[name][0])
        else:
            continue
        _put(content, tuple(where), value)
    return content, tuple(sorted(unpickler.foreign))


def _stored(name: str, about: Any, pieces: list[_Piece]) -> Tensor:
    size = tuple(_fields(about)["size"])
    dtype = _dtype(_fields(about).get("properties"))
    if dtype is None:
        return _assemble(name, size, pieces)
    return StoredTensor(lambda: _assemble(name, size, pieces).to(dtype), size, dtype)


def _dtype(properties: Any) -> torch.dtype | None:
    """The data type, where the index says it as any known torch does."""
    state = properties.state if isinstance(properties, Inert) else None
    first = state[0] if isinstance(state, tuple) and state else _fields(properties).get("dtype")
    return first if isinstance(first, torch.dtype) else None


def _fields(thing: Any) -> Mapping[str, Any]:
    state = thing.state if isinstance(thing, Inert) else None
    return state if isinstance(state, Mapping) else {}


def _pieces(folder: Path, storage: Mapping[Any, Any]) -> dict[str, list[_Piece]]:
    found: dict[str, list[_Piece]] = defaultdict(list)
    files: dict[str, TensorFile] = {}
    for key, info in storage.items():
        address, place = _fields(key), _fields(info)
        if place.get("transform_descriptors"):
            raise CheckpointError(f"{folder} was saved with compression, which is not supported")
        name = Path(str(place["relative_path"])).name
        if name not in files:
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder} lacks {named(name)}: copy the files of all ranks")
            files[name] = TensorFile(folder / name)
        start, length = int(place["offset"]), int(place["length"])
        if start < 0 or length < 0 or start + length > files[name].size:
            raise files[name].cut_off()
        offsets = tuple(address.get("offset") or ())
        found[address["fqn"]].append(_Piece(files[name], start, length, offsets))
    return found


def _load_piece(piece: _Piece) -> Any:
    return TorchArchive(piece.file, piece.start, piece.length).content()[0]


def _assemble(name: str, size: tuple[int, ...], pieces: Iterable[_Piece]) -> Tensor:
    parts = [(piece.offsets, _load_piece(piece)) for piece in pieces]
    if not all(isinstance(part, Tensor) for _, part in parts):
        raise CheckpointError(f"a shard of {named(name)} is no tensor: copy the files again")
    for _, part in parts:
        if tuple(part.shape) == size:
            return in_memory(part)  # type: ignore[no-any-return]
    if not parts or sum(part.numel() for _, part in parts) != prod(size):
        raise _uncovered(name)
    whole = torch.empty(size, dtype=parts[0][1].dtype)
    covered = torch.zeros(size, dtype=torch.bool)
    try:
        for offsets, part in parts:
            spans = zip(offsets, part.shape, strict=True)
            place = tuple(slice(start, start + length) for start, length in spans)
            whole[place], covered[place] = part, True
    except (RuntimeError, TypeError, ValueError, IndexError) as cause:
        raise _uncovered(name) from cause
    if not bool(covered.all()):
        raise _uncovered(name)
    return whole


def _uncovered(name: str) -> CheckpointError:
    return CheckpointError(f"the shards do not cover {named(name)}: copy the files of all ranks")


def _put(content: dict[str, Any], where: tuple[Any, ...], value: Any) -> None:
    for key in where[:-1]:
        content = content.setdefault(str(key), {})
    content[str(where[-1])] = value
