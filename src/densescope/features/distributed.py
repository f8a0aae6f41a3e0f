"""Folders of ``torch.distributed.checkpoint`` (``.metadata`` and ``*.distcp``) on one machine.

The folder's index is a pickle that torch itself reads with the plain ``pickle`` module. Here every
class in it becomes an inert placeholder whose stored fields are looked at, so it runs nothing.
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.inert import Inert, placeholder
from densescope.features.stored import StoredTensor
from densescope.files import opened

_PLAIN = {
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): dict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
}
# Optimizer state is twice the size of the weights and of no use here.
_LEFT_OUT = ("optimizer", "optim")
_COUNTERS = ("iteration", "epoch", "step", "global_step")


class _IndexUnpickler(pickle.Unpickler):
    """Answers every name by an inert class; only tuples, dictionaries and sets are real."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.foreign: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        self.foreign.add(f"{module}.{name}")
        return placeholder(f"{module}.{name}")


@dataclass(frozen=True)
class _Piece:
    file: Path
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
        unpickler = _IndexUnpickler(stream)
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
    for key, info in storage.items():
        address, place = _fields(key), _fields(info)
        if place.get("transform_descriptors"):
            raise CheckpointError(f"{folder} was saved with compression, which is not supported")
        file = folder / Path(str(place["relative_path"])).name
        if not file.is_file():
            raise CheckpointError(f"{folder} lacks {file.name}: copy the files of all ranks")
        offsets = tuple(address.get("offset") or ())
        found[address["fqn"]].append(_Piece(file, place["offset"], place["length"], offsets))
    return found


def _load_piece(piece: _Piece) -> Any:
    with opened(piece.file) as stream:
        stream.seek(piece.start)
        data = stream.read(piece.length)
    if len(data) < piece.length:
        raise CheckpointError(f"{piece.file} is cut off: copy it again")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _assemble(name: str, size: tuple[int, ...], pieces: Iterable[_Piece]) -> Tensor:
    whole: Tensor | None = None
    filled = 0
    for piece in pieces:
        part = _load_piece(piece)
        if tuple(part.shape) == size:
            return part  # type: ignore[no-any-return]
        if whole is None:
            whole = torch.empty(size, dtype=part.dtype)
        spans = zip(piece.offsets, part.shape, strict=True)
        whole[tuple(slice(start, start + length) for start, length in spans)] = part
        filled += part.numel()
    if whole is None or filled != whole.numel():
        raise CheckpointError(f"the shards do not cover {name}: copy the files of all ranks")
    return whole


def _put(content: dict[str, Any], where: tuple[Any, ...], value: Any) -> None:
    for key in where[:-1]:
        content = content.setdefault(str(key), {})
    content[str(where[-1])] = value
