"""What the names of torch in a checkpoint stand for: tensors that stay in the file.

The functions by which torch rebuilds tensors are answered by functions of ours, which note where
the values lie. Quantized and sparse tensors are read as the plain tensors that they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.inert import InertTensor
from densescope.features.pickle_steps import damaged
from densescope.features.stored import (
    StoredTensor,
    in_memory,
    refuse_expansion,
    span,
    stored_tensor,
)
from densescope.features.unpickling import TENSOR, Answer
from densescope.text import named

_META = "a tensor of the meta device, which has no values: fill the model before it is saved"
_NESTED = "a nested tensor, whose parts have different shapes: save the parts"
_WRAPPER = "a tensor of a class of its own, whose values only its code can tell: save plain tensors"
_QUANTIZED = {torch.qint8: torch.int8, torch.quint8: torch.uint8, torch.qint32: torch.int32}
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
    "Untyped": torch.uint8,
}


@dataclass(frozen=True)
class StorageKind:
    """The name of a storage class: what its values are."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Storage:
    """Values in a row that lie in a file, of which tensors are parts.

    Attributes:
        dtype: of the values.
        length: bytes.
        bytes_at: (first byte, bytes) -> that piece of it.
        swapped: whether the file has the other order of bytes.
    """

    dtype: torch.dtype
    length: int
    bytes_at: Callable[[int, int], bytearray]
    swapped: bool = False


def _whole(values: Any) -> tuple[int, ...]:
    """A size or strides as a file gives them."""
    found = tuple(values)
    if not all(type(value) is int and 0 <= value < 2**62 for value in found) or len(found) > 64:
        raise damaged("a shape that no tensor has")
    return found


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    dtype: torch.dtype | None = None,
    metadata: Any = None,
) -> Tensor:
    if not isinstance(storage, Storage):
        raise damaged("a tensor without a storage")
    size, stride, (offset,) = _whole(size), _whole(stride), _whole((offset,))
    if len(size) != len(stride):
        raise damaged("a tensor with too few strides")
    kind = dtype or storage.dtype
    kind = _QUANTIZED.get(kind, kind)
    first, length = offset * kind.itemsize, span(size, stride) * kind.itemsize
    if 0 not in size and first + length > storage.length:
        raise damaged("a tensor that reaches beyond its storage")
    return stored_tensor(
        lambda: storage.bytes_at(first, length),
        kind,
        size,
        stride,
        swapped=storage.swapped,
        turned=_turned(metadata),
    )


def _turned(metadata: Any) -> Callable[[Tensor], Tensor] | None:
    """What is to be done to the values: torch saves views of negatives and conjugates as marks."""
    marks = metadata if isinstance(metadata, Mapping) else {}
    if marks.get("neg"):
        return torch.neg
    return torch.conj_physical if marks.get("conj") else None


def _tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, _: Any = 0, __: Any = 0, marks: Any = None
) -> Tensor:
    return _tensor(storage, offset, size, stride, None, marks)


def _tensor_v3(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    _: Any,
    __: Any,
    dtype: Any,
    marks: Any = None,
) -> Tensor:
    if not isinstance(dtype, torch.dtype):
        raise damaged("a tensor without a type")
    return _tensor(storage, offset, size, stride, dtype, marks)


def _quantized(
    storage: Any, offset: Any, size: Any, stride: Any, quantizer: Any, *_: Any
) -> Tensor:
    """The values that whole numbers, a scale and a zero point stand for."""
    whole = _tensor(storage, offset, size, stride)
    shape: list[int] = []
    if quantizer[0] is torch.per_tensor_affine:
        scales, zeros = (torch.tensor(float(each)) for each in quantizer[1:3])
    else:
        _, scales, zeros, axis = quantizer
        shape = [-1 if place == axis else 1 for place in range(whole.ndim)]
        if not all(isinstance(each, Tensor) for each in (scales, zeros)) or -1 not in shape:
            raise damaged("a quantized tensor without scales")
        if not scales.shape == zeros.shape == whole.shape[axis : axis + 1]:
            raise damaged("a quantized tensor with too few scales")

    def values() -> Tensor:
        scale, zero = (in_memory(each).double().view(shape) for each in (scales, zeros))
        made: Tensor = (in_memory(whole).double() - zero) * scale
        return made.float()

    return StoredTensor(values, whole.shape, torch.float32)


def _sparse(layout: Any, data: Any) -> Tensor:
    """The plain tensor that a sparse one stands for."""
    if layout is torch.sparse_coo:
        indices, values, size = data[:3]
        parts = (indices, values)

        def made() -> Tensor:
            return torch.sparse_coo_tensor(*in_memory(parts), size, check_invariants=True)
    else:
        *parts, size = data

        def made() -> Tensor:
            compressed, plain, values = in_memory(parts)
            return torch.sparse_compressed_tensor(
                compressed, plain, values, size, layout=layout, check_invariants=True
            )

    size, values = _whole(size), parts[-1]
    if not isinstance(layout, torch.layout) or not all(isinstance(part, Tensor) for part in parts):
        raise damaged("a sparse tensor without indices or values")
    refuse_expansion(size, sum(part.numel() for part in parts))

    def read() -> Tensor:
        try:
            return made().to_dense()
        except (RuntimeError, TypeError, ValueError) as cause:
            raise CheckpointError(f"a sparse tensor cannot be read ({named(cause)})") from cause

    return StoredTensor(read, size, values.dtype)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _of_a_class(function: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """A tensor of another class: of parameters, buffers and the like the values are plain."""
    if isinstance(kind, type) and issubclass(kind, InertTensor):
        made = kind()
        made.state = state
        return made
    if not isinstance(function, Answer):
        return InertTensor.without_values(_WRAPPER)
    return function.function(*arguments)


def _layout(name: Any) -> Any:
    found = getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(found, torch.layout):
        raise damaged("an unknown layout")
    return found


def _without(reason: str) -> Answer:
    return Answer(lambda *_: InertTensor.without_values(reason), cost=TENSOR)


def _made(function: Callable[..., Any]) -> Answer:
    return Answer(function, cost=TENSOR)


def _plain_values() -> dict[str, Any]:
    """Types, layouts and the like, which have names of torch and cannot be called."""
    kinds = (torch.dtype, torch.layout, torch.qscheme, torch.memory_format)
    found = {f"torch.{name}": value for name, value in vars(torch).items()}
    return {name: value for name, value in found.items() if isinstance(value, kinds)}


TORCH_ANSWERS: dict[str, Any] = {
    **_plain_values(),
    **{f"torch.{name}Storage": StorageKind(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch.cuda.{name}Storage": StorageKind(dtype) for name, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": StorageKind(torch.uint8),
    "torch.Size": Answer(lambda values=(): _whole(values), copies=True),
    "torch.Tensor": "torch.Tensor",
    "torch.device": Answer(lambda *parts: ("device", *parts)),
    "torch.nn.parameter.Parameter": Answer(_parameter),
    "torch.serialization._get_layout": Answer(_layout),
    "torch._tensor._rebuild_from_type_v2": _made(_of_a_class),
    "torch._utils._rebuild_tensor": _made(_tensor_v2),
    "torch._utils._rebuild_tensor_v2": _made(_tensor_v2),
    "torch._utils._rebuild_tensor_v3": _made(_tensor_v3),
    "torch._utils._rebuild_parameter": Answer(_parameter),
    "torch._utils._rebuild_parameter_with_state": Answer(_parameter),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": Answer(_parameter),
    "torch._utils._rebuild_qtensor": _made(_quantized),
    "torch._utils._rebuild_sparse_tensor": _made(_sparse),
    "torch._utils._rebuild_meta_tensor_no_storage": _without(_META),
    "torch._utils._rebuild_nested_tensor": _without(_NESTED),
    "torch._utils._rebuild_wrapper_subclass": _without(_WRAPPER),
    "torch.nested._internal.nested_tensor._rebuild_njt": _without(_NESTED),
}


def storage_of(saved: Any, make: Callable[[str, torch.dtype, int], Storage]) -> Any:
    """What a persistent id of ``torch.save`` stands for.

    Args:
        saved: the id.
        make: (key, type, values) -> the storage; called once for each id in the file.
    """
    if not isinstance(saved, tuple) or len(saved) < 2:
        raise damaged("a persistent id of another kind")
    if saved[0] == "module":  # files of before 0.4 keep the source of a module beside it
        return saved[1]
    _, kind, key, _, numel, *view = saved
    if saved[0] != "storage" or not isinstance(kind, StorageKind):
        raise damaged("a persistent id of another kind")
    (numel,) = _whole((numel,))
    storage = make(str(key), kind.dtype, numel)
    if view and view[0] is not None:
        _, offset, count = view[0]
        return _part(storage, *_whole((offset, count)))
    return storage


def _part(storage: Storage, offset: int, count: int) -> Storage:
    width = storage.dtype.itemsize
    start, length = offset * width, count * width
    if start + length > storage.length:
        raise damaged("a view that reaches beyond its storage")

    def bytes_at(first: int, wanted: int) -> bytearray:
        return storage.bytes_at(start + first, wanted)

    return Storage(storage.dtype, length, bytes_at, storage.swapped)
