"""Features are computed once and kept: memory-mapped half-precision arrays beside a description."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densescope.errors import DataError, RecordError
from densescope.records import plain, read_json, write_json
from densescope.writing import replacing

Array = np.ndarray[Any, Any]
READ_BYTES = 1 << 24
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class StoredArray:
    """An array in the cache, read a piece at a time.

    Attributes:
        values: memory-mapped, or in memory where there is no folder; float16 for features.
        offset: added per entry of the last axis after multiplying with ``scale``, or ``None``.
        scale: see ``offset``.
    """

    values: Array
    offset: Tensor | None = None
    scale: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return tuple(self.values.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        """Entries ``start`` to ``stop`` of the first axis; features as float32."""
        return self._restore(np.array(self.values[start:stop]))

    def some(self, indices: Tensor) -> StoredArray:
        """Entries of the first axis as an array in memory, stored as they are."""
        return StoredArray(np.array(self.values[indices.numpy()]), self.offset, self.scale)

    def take(self, indices: Tensor) -> Tensor:
        """Entries of the first axis in the order of ``indices``; features as float32."""
        return self._restore(np.array(self.values[indices.numpy()]))

    def take_patches(self, indices: Tensor) -> Tensor:
        """Vectors of the first two axes seen as one, in the order of ``indices``."""
        flat = self.values.reshape(-1, self.values.shape[-1])
        return self._restore(np.array(flat[indices.numpy()]))

    def chunks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """All entries of the first axis, ``size`` at a time, and where they belong."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.rows(part.start, part.stop)

    def mapped(self) -> Tensor:
        """Everything as stored, not copied; pages of a file are read when they are used.

        The file is not changed by writing into the tensor.
        """
        if not isinstance(self.values, np.memmap):
            return torch.from_numpy(self.values)
        place, offset = str(self.values.filename), self.values.offset
        own = np.memmap(place, self.values.dtype, "c", offset, self.values.shape)
        return torch.from_numpy(own)

    def whole(self) -> Tensor:
        """Everything at once, in memory."""
        return self.rows(0, len(self))

    def _restore(self, values: Array) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.offset is None or self.scale is None:
            return tensor
        return tensor.float().mul_(self.scale).add_(self.offset)


class ArrayWriter:
    """Fills an array from the front; features are stored as float16 about their mean.

    Half precision has eleven bits: features far from zero, as those of a collapsed checkpoint are,
    would lose what little they differ in. So each dimension is stored as its distance from the
    mean of the first piece, in units of its standard deviation there.
    """

    def __init__(self, values: Array, *, features: bool) -> None:
        self.values = values
        self.features = features
        self.filled = 0
        self.offset: Tensor | None = None
        self.scale: Tensor | None = None

    def append(self, piece: Tensor) -> None:
        """Write the next entries of the first axis."""
        if self.features:
            piece = self._centered(piece.detach().float().cpu())
        rows = slice(self.filled, self.filled + len(piece))
        self.values[rows] = piece.numpy()
        self.filled = rows.stop

    def finished(self) -> StoredArray:
        """The array that was written."""
        if self.filled != len(self.values):
            raise DataError(
                f"{self.filled} of {len(self.values)} entries were computed: this is a fault of "
                "the program, please report it"
            )
        return StoredArray(self.values, self.offset, self.scale)

    def _centered(self, piece: Tensor) -> Tensor:
        if self.offset is None or self.scale is None:
            flat = piece.flatten(0, -2)
            self.offset, spread = flat.mean(0), flat.std(0, correction=0)
            typical = float(spread.square().mean().sqrt())
            self.scale = spread.clamp(min=1e-3 * typical) if typical > 0 else spread.fill_(1.0)
        stored = (piece - self.offset) / self.scale
        if float(stored.abs().max()) > LARGEST:
            raise DataError(
                "features of one image are 65504 times as spread out as those of the first images "
                "and do not fit into the cache: this checkpoint has diverged"
            )
        return stored.half()


class FeatureCache:
    """A folder of arrays, each found again by what it was computed from.

    An entry is ``<digest>.npy`` beside ``<digest>.json``; the digest is of the key, and the JSON
    has the key in words, the size and a checksum of the whole file. An entry that is cut off,
    altered or of another key counts as absent and is computed again. Files appear under their name
    only when they are complete.

    Args:
        folder: where to keep arrays; ``None`` keeps them in memory only as long as they are used.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)

    def find(self, key: Mapping[str, Any]) -> StoredArray | None:
        """The array of this key, or ``None`` where it is absent or not intact."""
        if self.folder is None:
            return None
        path = self.folder / f"{digest_of(key)}.npy"
        try:
            note = read_json(path.with_suffix(".json"))
            intact = note["key"] == plain(key) and note["bytes"] == path.stat().st_size
            if not intact or note["crc32"] != _checksum(path):
                return None
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            affine = (_vector(note["offset"]), _vector(note["scale"]))
        except (RecordError, OSError, ValueError, KeyError, EOFError):
            return None
        return StoredArray(values, *affine)

    @contextmanager
    def writing(
        self, key: Mapping[str, Any], shape: tuple[int, ...], *, dtype: str = "features"
    ) -> Iterator[ArrayWriter]:
        """Write an array; it can be found once this ends without an error.

        Args:
            key: what the array is computed from, in plain values.
            shape: of the whole array.
            dtype: ``"features"`` for float16 about the mean, else a NumPy dtype.
        """
        features = dtype == "features"
        stored = np.dtype(np.float16 if features else dtype)
        if self.folder is None:
            yield ArrayWriter(np.empty(shape, stored), features=features)
            return
        path = self.folder / f"{digest_of(key)}.npy"
        with replacing(path) as part:
            values = _mapped(part, stored, shape)
            writer = ArrayWriter(values, features=features)
            yield writer
            array = writer.finished()
            values.flush()
            note = {"key": plain(key), "bytes": part.stat().st_size, "crc32": _checksum(part)}
        affine = {"offset": _numbers(array.offset), "scale": _numbers(array.scale)}
        write_json({**note, **affine}, path.with_suffix(".json"))

    def bytes(self) -> int:
        """Size of everything in the folder, with what a stopped program left behind."""
        return sum(path.stat().st_size for path in self._files())

    def clear(self) -> int:
        """Remove everything the cache wrote and nothing else.

        Returns:
            The number of bytes that were freed.
        """
        freed = self.bytes()
        for path in self._files():
            path.unlink(missing_ok=True)
        return freed

    def _files(self) -> list[Path]:
        if self.folder is None or not self.folder.is_dir():
            return []
        return [
            path
            for path in sorted(self.folder.iterdir())
            if path.suffix in (".npy", ".json", ".part") and _is_digest(path.name.strip("."))
        ]


def digest_of(key: Mapping[str, Any]) -> str:
    """Name of a key: sha256 over its values, whatever their order."""
    text = json.dumps(plain(key), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_digest(name: str) -> bool:
    stem = name.split(".")[0]
    return len(stem) == 64 and all(letter in "0123456789abcdef" for letter in stem)


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as stream:
        while piece := stream.read(READ_BYTES):
            total = zlib.crc32(piece, total)
    return total


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new array on the disk, all of whose space is reserved.

    Writing into a map for which the disk has no space left would end the program by a signal.
    """
    values: np.memmap[Any, Any] = np.lib.format.open_memmap(
        path, mode="w+", dtype=dtype, shape=shape
    )
    with path.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return values


def _numbers(values: Tensor | None) -> list[float] | None:
    return None if values is None else values.tolist()


def _vector(values: list[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32)
