"""Files of an FSDP run, one per rank (``model_0012499.rank_0.pth``), that belong together.

Each holds its own piece of every flat parameter as a pickled ``ShardedTensor``, which torch can
only read inside a process group of the same size. Here it is an inert placeholder whose stored
fields are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.inert import SHARDED, InertTensor, stored_fields
from densescope.features.wrappers import without_wrappers

_SHOWN = 4
FLAT_NAMES = ("flat_param", "_flat_param")  # before and since torch 2.0
_RANK = re.compile(r"(.+\.rank_)(\d+)(\.\w+)")


@dataclass(frozen=True)
class RankShard:
    """One rank's piece of a flat parameter, and what it says of the whole.

    Attributes:
        size: values in the whole flat parameter.
        pieces: (first value, values) of this rank; none where all of its share is padding.
        rank, world_size: of the rank among all that trained.
        group_size: ranks that share one copy of the parameter.
    """

    size: int
    pieces: tuple[tuple[int, Tensor], ...]
    rank: int
    world_size: int
    group_size: int


def rank_files(path: Path) -> list[Path]:
    """Files of all ranks of the same step, by rank; the path alone where it names no rank."""
    named = _RANK.fullmatch(path.name)
    if named is None or not path.parent.is_dir():
        return [path]
    found = {}
    for other in path.parent.iterdir():
        match = _RANK.fullmatch(other.name)
        if match and match.group(1, 3) == named.group(1, 3):
            found[int(match.group(2))] = other
    return [found[rank] for rank in sorted(found)] or [path]


def has_shards(foreign: tuple[str, ...]) -> bool:
    """Whether a file names the class of sharded tensors."""
    return any(name.endswith(SHARDED) for name in foreign)


def read_ranks(path: Path, content: Any, read: Callable[[Path], Any]) -> tuple[Any, ...]:
    """Contents of the files of all ranks, in order.

    Args:
        path: the file of one of them.
        content: what it holds.
        read: reads another one.

    Raises:
        CheckpointError: a rank's file is missing, cut off, or of another run or step.
    """
    named = _RANK.fullmatch(path.name)
    if named is None:
        raise CheckpointError(
            f"{path} holds one rank's shards of an FSDP run, but its name does not say whose: "
            "name it as the training code did, such as model_0012499.rank_0.pth, beside the files "
            "of the other ranks"
        )
    world_size = _first_shard(path, content).world_size
    names = (f"{named.group(1)}{rank}{named.group(3)}" for rank in range(world_size))
    absent = (name for name in names if not path.with_name(name).is_file())
    missing = list(islice(absent, _SHOWN + 1))  # a file may speak of any number of ranks
    if missing:
        more = ", ..." if len(missing) > _SHOWN else ""
        raise CheckpointError(
            f"{path.parent} lacks {', '.join(missing[:_SHOWN])}{more}: {path.name} is of a run of "
            f"{world_size} ranks, copy the files of all of them"
        )
    files = [
        path.with_name(f"{named.group(1)}{rank}{named.group(3)}") for rank in range(world_size)
    ]
    contents = tuple(content if file == path else read(file) for file in files)
    for rank, (file, other) in enumerate(zip(files, contents, strict=True)):
        _check_same_save(rank, file, other, path, content)
    return tuple(_without_wrappers(other) for other in contents)


def shard_of(name: str, thing: Any) -> RankShard:
    """What a placeholder of a ``ShardedTensor`` holds.

    Raises:
        CheckpointError: it is not stored as any known torch stores it.
    """
    try:
        local, metadata, group = thing.state[:3]
        place = stored_fields(group)
        (size,) = stored_fields(metadata)["size"]
        pieces = []
        for shard in local:
            stored = stored_fields(shard)
            (start,) = stored_fields(stored["metadata"])["shard_offsets"]
            pieces.append((int(start), _plain(stored["tensor"])))
        shard = RankShard(
            size=int(size),
            pieces=tuple(pieces),
            rank=int(place["global_rank"]),
            world_size=int(place["global_world_size"]),
            group_size=int(place["local_world_size"]),
        )
        if not 0 <= shard.rank < shard.world_size or shard.group_size < 1:
            raise ValueError(f"rank {shard.rank} of {shard.world_size}")
        return shard
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as cause:
        raise CheckpointError(
            f"the sharded tensor {name} is stored in an unknown way ({type(cause).__name__}: "
            f"{cause}); save with torch.distributed.checkpoint instead"
        ) from cause


def join_shards(name: str, shards: list[RankShard]) -> Tensor:
    """The whole flat parameter, without the padding that made shards equally long.

    Raises:
        CheckpointError: the shards overlap, leave a gap, or speak of different sizes.
    """
    pieces = {start: piece for shard in shards for start, piece in shard.pieces}
    filled = 0
    for start in sorted(pieces):
        if start == filled:
            filled += pieces[start].numel()
    if filled != shards[0].size or any(shard.size != filled for shard in shards):
        raise CheckpointError(
            f"the rank files do not make up {name}: {filled} of its {shards[0].size} values are "
            "there in a row; copy the files of one save"
        )
    return torch.cat([pieces[start] for start in sorted(pieces)])


def _plain(tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor) or isinstance(tensor, InertTensor) or tensor.ndim != 1:
        raise ValueError("a shard is not a row of values")
    return tensor.detach()


def _first_shard(path: Path, content: Any) -> RankShard:
    parts = content.values() if isinstance(content, Mapping) else ()
    for part in (content, *parts):
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if isinstance(value, InertTensor):
                return shard_of(str(name), value)
    raise CheckpointError(f"{path} holds no sharded tensor at a place where FSDP saves one")


def _check_same_save(rank: int, file: Path, content: Any, path: Path, first: Any) -> None:
    shard, expected = _first_shard(file, content), _first_shard(path, first)
    if shard.rank != rank:
        raise CheckpointError(f"{file} was written by rank {shard.rank}: it was renamed")
    if (shard.world_size, shard.size) != (expected.world_size, expected.size):
        raise CheckpointError(
            f"{file} is of a run of {shard.world_size} ranks, {path.name} of one of "
            f"{expected.world_size}: copy the files of one save, or they are of different models"
        )
    for key in first:
        if isinstance(first[key], int) and content.get(key) != first[key]:
            raise CheckpointError(
                f"{file} says {key} {content.get(key)}, {path.name} says {first[key]}: copy the "
                "files of one save"
            )


def _without_wrappers(content: Any, depth: int = 0) -> Any:
    """The same with the names that tensors have outside FSDP's wrappers, near the top."""
    if not isinstance(content, Mapping) or depth > 1:
        return content
    return {
        without_wrappers(key) if isinstance(key, str) else key: _without_wrappers(value, depth + 1)
        for key, value in content.items()
    }
