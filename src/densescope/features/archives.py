"""Files of ``torch.save`` and safetensors, of which only those pieces are read that are used."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.inert import Inert, InertTensor
from densescope.features.stored import StoredTensor, TensorFile, span

_HEADER = 30  # bytes of a zip member's own header before its name
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}


class TorchArchive:
    """A zip file that ``torch.save`` wrote.

    Attributes:
        program: the pickle in it, which :meth:`unpickle` reads.

    Raises:
        CheckpointError: it is a TorchScript archive, or another zip file.
        BadZipFile: it is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.file = TensorFile(path)
        self._archive = zipfile.ZipFile(self.file.stream)
        members = self._archive.namelist()
        programs = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
        if any(name.endswith("/constants.pkl") for name in members):
            raise CheckpointError(
                f"{path} is a TorchScript archive, which holds code; save the model's state_dict"
            )
        if not programs:
            raise CheckpointError(f"{path} is a zip file, but not one that torch.save wrote")
        self.program = self._archive.read(programs[0])
        self._root = programs[0].removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        written = self._archive.read(order).decode() if order in members else "little"
        self._swapped = written != sys.byteorder
        self._storages: dict[str, Any] = {}
        self._keys: dict[int, str] = {}

    def unpickle(self) -> Any:
        """The content, with stored tensors; torch's allow-list says which names are answered."""
        from torch._weights_only_unpickler import Unpickler

        unpickler = Unpickler(io.BytesIO(self.program), encoding="utf-8")
        unpickler.persistent_load = self._storage  # type: ignore[method-assign]
        return self._restored(unpickler.load(), {})  # type: ignore[no-untyped-call]

    def _storage(self, saved: Any) -> Any:
        """A storage without values, as torch's functions that rebuild tensors expect one."""
        _, kind, key, _, numel = saved
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        if key not in self._storages:
            untyped = torch.UntypedStorage(numel * dtype.itemsize, device="meta")  # type: ignore[no-untyped-call]
            self._storages[key] = torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
                wrap_storage=untyped, dtype=dtype, _internal=True
            )
            self._keys[untyped._cdata] = str(key)
        return self._storages[key]

    def _restored(self, thing: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
        """Stored tensors in place of those that torch made of storages without values."""
        if id(thing) in seen:
            return seen[id(thing)][1]
        found = thing
        if isinstance(thing, Tensor) and not isinstance(thing, InertTensor):
            found = self._stored(thing)
        elif isinstance(thing, tuple):
            found = tuple(self._restored(item, seen) for item in thing)
        seen[id(thing)] = (thing, found)  # a thing that lives keeps its id
        if isinstance(thing, dict | list):
            for key, value in list(thing.items() if isinstance(thing, dict) else enumerate(thing)):
                thing[key] = self._restored(value, seen)
        elif isinstance(thing, Inert):
            thing.arguments = self._restored(thing.arguments, seen)
        if isinstance(thing, Inert | InertTensor):
            thing.state = self._restored(thing.state, seen)
        return found

    def _stored(self, tensor: Tensor) -> Tensor:
        key = self._keys.get(tensor.untyped_storage()._cdata) if tensor.is_meta else None
        if key is None:
            return tensor
        size, stride, held = tensor.shape, tensor.stride(), int(tensor.untyped_storage().nbytes())
        first = int(tensor.storage_offset()) * tensor.dtype.itemsize
        if tensor.numel() and first + span(size, stride) * tensor.dtype.itemsize > held:
            raise ValueError(f"a tensor reaches beyond its storage {key}")

        def start() -> int:
            return self._first_byte(f"{self._root}data/{key}", held) + first

        return self.file.tensor_at(start, tensor.dtype, size, stride, swapped=self._swapped)

    def _first_byte(self, member: str, expected: int) -> int:
        found = self._archive.getinfo(member)
        if found.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"{self.file.path} was compressed after it was saved: unpack it and zip it without "
                "compression, or save it again"
            )
        if found.file_size < expected:
            raise CheckpointError(f"{self.file.path} is cut off or damaged: copy it again")
        header = self.file.bytes_at(found.header_offset, _HEADER)
        name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        return found.header_offset + _HEADER + name + extra


def read_safetensors(path: Path) -> dict[str, Any]:
    """Stored tensors of a safetensors file, by name.

    Raises:
        CheckpointError: it is cut off or damaged.
    """
    file = TensorFile(path)
    try:
        length = int.from_bytes(file.bytes_at(0, 8), "little")
        size = file.stream.seek(0, 2)
        described = json.loads(file.bytes_at(8, length)) if length < size else {}
        if not described:
            raise ValueError("its header does not end" if length >= size else "it is empty")
        tensors = {
            name: _described(file, 8 + length, name, about, size)
            for name, about in described.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, CheckpointError) as cause:
        raise CheckpointError(
            f"{path} is a cut off or damaged safetensors file ({cause}): copy it again"
        ) from cause
    return tensors


def _described(file: TensorFile, data: int, name: str, about: Any, size: int) -> StoredTensor:
    dtype, shape = _DTYPES.get(about["dtype"]), [int(side) for side in about["shape"]]
    if dtype is None:
        raise NotImplementedError(f"{name} has the type {about['dtype']}: save it as F32 or BF16")
    first, end = about["data_offsets"]
    if end - first != torch.Size(shape).numel() * dtype.itemsize or first < 0:
        raise ValueError("sizes in its header do not agree")
    if data + end > size:
        raise ValueError(f"it has {size:,} bytes, its header speaks of {data + end:,}")
    return file.tensor_at(lambda: data + first, dtype, shape, swapped=sys.byteorder == "big")
