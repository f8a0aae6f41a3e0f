"""Tensors that stay in their file until something is computed with them."""

from __future__ import annotations

import io
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.files import opened

Thing = TypeVar("Thing")
_MOST_REPEATED, _MOST_TIMES = 1 << 24, 16  # values of a tensor, and times those in the file


class StoredTensor(Tensor):
    """A tensor of known shape and dtype whose values are read when an operation asks for them.

    Every operation reads the values again, and none may change them: :func:`in_memory` makes
    ordinary tensors of what is used more than once or written to.
    """

    read: Callable[[], Tensor]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(
        cls,
        read: Callable[[], Tensor],
        size: Sequence[int],
        dtype: torch.dtype,
        stride: Sequence[int] | None = None,
    ) -> Self:
        """A tensor on the CPU whose values ``read`` returns."""
        made = Tensor._make_wrapper_subclass(cls, tuple(size), strides=stride, dtype=dtype)
        made.read = read
        return made

    def __init__(self, *_: Any) -> None: ...

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"StoredTensor(shape={tuple(self.shape)}, dtype={self.dtype})"

    def tolist(self) -> Any:
        """The values, read from the file."""
        return self.read().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """The values, read from the file."""
        return self.read().numpy(force=force)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.read()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.read().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            (stored,) = args
            return StoredTensor(stored.read, stored.shape, stored.dtype, stored.stride())
        written = [
            item.alias_info is not None and item.alias_info.is_write
            for item in func._schema.arguments
        ]
        if any(
            isinstance(value, cls) and write for value, write in zip(args, written, strict=False)
        ):
            raise TypeError("a tensor that is still in its file cannot be written to")
        return func(*in_memory(tuple(args)), **in_memory(dict(kwargs or {})))


def in_memory(thing: Thing) -> Thing:
    """The same with ordinary tensors in place of stored ones, in dictionaries, lists and tuples."""
    found: Any = thing
    if isinstance(found, StoredTensor):
        return found.read()  # type: ignore[return-value]
    if type(found) in (tuple, list):
        return type(found)(in_memory(item) for item in found)  # type: ignore[no-any-return]
    if isinstance(found, dict):
        return {key: in_memory(value) for key, value in found.items()}  # type: ignore[return-value]
    return thing


class TensorFile:
    """A file of which pieces are read while any tensor of it is in use; then it is closed.

    It stays open in between, so that all tensors are of one file also where training replaces it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = opened(path)
        self.size = self.stream.seek(0, 2)
        self._lock = threading.Lock()
        weakref.finalize(self, self.stream.close)

    def bytes_at(self, start: int, length: int) -> bytearray:
        """A piece of the file.

        Raises:
            CheckpointError: it ends before.
        """
        if start + length > self.size:
            raise self.cut_off()
        piece = bytearray(length)
        view, filled = memoryview(piece), 0
        with self._lock:
            self.stream.seek(start)
            while filled < length and (more := self.stream.readinto(view[filled:])):
                filled += more
        if filled < length:
            raise self.cut_off()
        return piece

    def cut_off(self) -> CheckpointError:
        """The error that it ends too early."""
        return CheckpointError(
            f"{self.path} is cut off or damaged: copy it again, or it is still being written"
        )


class Section(io.RawIOBase):
    """A part of a file, as a file of its own.

    Args:
        file: the whole.
        start, length: of the part, in bytes.
    """

    def __init__(self, file: TensorFile, start: int, length: int) -> None:
        super().__init__()
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place of the part."""
        self._at = max(offset + (0, self._at, self._length)[whence], 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the part goes."""
        wanted = max(min(len(buffer), self._length - self._at), 0)
        buffer[:wanted] = self._file.bytes_at(self._start + self._at, wanted)
        self._at += wanted
        return wanted


def section(file: TensorFile, start: int, length: int) -> io.BufferedReader:
    """A part of a file, to be read in small pieces."""
    return io.BufferedReader(Section(file, start, length), 1 << 16)


def stored_tensor(
    piece: Callable[[], bytearray],
    dtype: torch.dtype,
    size: Sequence[int],
    stride: Sequence[int] | None = None,
    *,
    swapped: bool = False,
    turned: Callable[[Tensor], Tensor] | None = None,
) -> StoredTensor:
    """A tensor whose values are the bytes of a piece of a file.

    Args:
        piece: reads those from the first to the last value.
        dtype, size, stride: of the tensor; without strides its values lie in a row.
        swapped: whether the file has the other order of bytes.
        turned: what is done to the values that are read.

    Raises:
        CheckpointError: it repeats the values in the file beyond reason.
    """
    steps = stride or torch.empty(tuple(size), device="meta").stride()
    refuse_expansion(size, span(size, steps))

    def read() -> Tensor:
        if prod(size) == 0:
            return torch.empty(tuple(size), dtype=dtype)
        held = piece()
        if swapped:
            width = dtype.itemsize // (2 if dtype.is_complex else 1)
            reversed_bytes = torch.frombuffer(held, dtype=torch.uint8).view(-1, width).flip(1)
            held = bytearray(reversed_bytes.numpy().tobytes())
        values = torch.frombuffer(held, dtype=dtype).as_strided(tuple(size), tuple(steps))
        return values if turned is None else turned(values)

    return StoredTensor(read, size, dtype, stride)


def refuse_expansion(size: Sequence[int], held: int) -> None:
    """Refuse a tensor that is so much larger than what the file holds that no weight is.

    Args:
        size: of the tensor.
        held: values in the file.

    Raises:
        CheckpointError: it is.
    """
    if prod(size) > max(_MOST_REPEATED, _MOST_TIMES * held):
        raise CheckpointError(
            f"it has a tensor of shape {tuple(size)}, of which it holds {held:,} values: no "
            "network has such a weight"
        )


def span(size: Sequence[int], stride: Sequence[int]) -> int:
    """Values from the first to the last of a tensor that is not empty, with those between."""
    return 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, dtypes, shapes and values of tensors, in the order of their names."""
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = in_memory(tensors[name]).detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
