"""Safetensors files, of which only those tensors are read that are used."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from densescope.errors import CheckpointError
from densescope.features.stored import StoredTensor, TensorFile, stored_tensor
from densescope.text import named

_LONGEST_HEADER = 1 << 24  # bytes; that of a model of 1,000 tensors has about 2**17
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


class UnknownTypeError(CheckpointError):
    """A tensor has a type that torch lacks; the file is whole."""


def read_safetensors(path: Path) -> dict[str, Any]:
    """Stored tensors of a safetensors file, by name.

    Raises:
        CheckpointError: it is cut off or damaged, or a tensor has a type that torch lacks
            (:class:`UnknownTypeError`).
    """
    file = TensorFile(path)
    try:
        length = int.from_bytes(file.bytes_at(0, 8), "little")
        if length >= file.size:
            raise ValueError("its header does not end")
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header has {length:,} bytes, those of models have thousands")
        described = json.loads(file.bytes_at(8, length))
        if not described:
            raise ValueError("it is empty")
        tensors = {
            name: _described(file, 8 + length, name, about)
            for name, about in described.items()
            if name != "__metadata__"
        }
    except UnknownTypeError:
        raise
    except (
        *(ValueError, KeyError, TypeError, AttributeError, RecursionError, CheckpointError),
        *(OverflowError, RuntimeError),
    ) as cause:
        raise CheckpointError(
            f"{path} is a cut off or damaged safetensors file ({named(cause)}): copy it again"
        ) from cause
    return tensors


def _described(file: TensorFile, data: int, name: str, about: Any) -> StoredTensor:
    dtype, shape = _DTYPES.get(about["dtype"]), [int(side) for side in about["shape"]]
    if dtype is None:
        raise UnknownTypeError(
            f"{named(name)} has the type {named(about['dtype'])}: save it as F32 or BF16"
        )
    first, end = (int(place) for place in about["data_offsets"])
    if first < 0 or any(side < 0 for side in shape):
        raise ValueError("a negative size in its header")
    if end - first != torch.Size(shape).numel() * dtype.itemsize:
        raise ValueError("sizes in its header do not agree")
    if data + end > file.size:
        raise ValueError(f"it has {file.size:,} bytes, its header speaks of {data + end:,}")
    return stored_tensor(
        lambda: file.bytes_at(data + first, end - first),
        dtype,
        shape,
        swapped=sys.byteorder == "big",
    )
