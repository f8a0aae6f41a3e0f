"""Weights of odd types and layouts: read as the numbers they stand for, or refused by name."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.hostile.row import Row, read, refused
from tests.hostile.written import changed, good, saved

NAME = "checkpoint0000.pth"
SAME = read("the same weights")
Odd = Callable[[Tensor], Any]


def each(odd: Odd, **options: Any) -> Callable[[Path], Path]:
    """A good checkpoint in which every weight of the teacher is odd."""

    def change(content: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content["teacher"] = {name: odd(value) for name, value in content["teacher"].items()}

    return changed(change, **options)


def one(odd: Odd, name: str = "backbone.norm.weight") -> Callable[[Path], Path]:
    def change(content: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content["teacher"][name] = odd(content["teacher"][name])

    return changed(change)


def same(tolerance: float) -> Callable[[Path], str]:
    """Loads a file and compares its network with the one that was saved."""

    def run(given: Path) -> str:
        from densescope.features.backbones import load_backbone
        from tests.tiny_run import SPEC

        found = load_backbone(given, SPEC).backbone.model.state_dict()  # type: ignore[attr-defined]
        for name, wanted in good()["teacher"].items():
            if name.startswith("backbone."):
                values = found[name.removeprefix("backbone.")]
                torch.testing.assert_close(values, wanted.float(), rtol=tolerance, atol=tolerance)
        return "the same weights"

    return run


def quantized(value: Tensor) -> Tensor:
    scale = float(value.abs().max()) / 100 + 1e-8
    return torch.quantize_per_tensor(value, scale, 3, torch.qint8)


def quantized_by_row(value: Tensor) -> Tensor:
    if value.ndim < 2:
        return quantized(value)
    rows = value.flatten(1).abs().amax(1) / 100 + 1e-8
    return torch.quantize_per_channel(value, rows, torch.zeros(len(rows)), 0, torch.qint8)


def compressed(value: Tensor) -> Tensor:
    return value.to_sparse_csr() if value.ndim == 2 else value


def negative(value: Tensor) -> Tensor:
    return torch._neg_view(-value)  # type: ignore[attr-defined,no-any-return]


class Labelled(Tensor):
    """A tensor class with an attribute, as image libraries have them."""


def labelled(value: Tensor) -> Tensor:
    found = value.as_subclass(Labelled)
    found.source = "here"  # type: ignore[attr-defined]
    return found


def strided(value: Tensor) -> Tensor:
    """Every second value of a storage that is twice as long."""
    wide = torch.zeros(*value.shape, 2)
    wide[..., 0] = value
    return wide[..., 0]


def shared(value: Tensor) -> Tensor:
    """A part of a storage that holds more."""
    return torch.cat([torch.zeros(7), value.flatten(), torch.ones(9)])[7:-9].view(value.shape)


READ: dict[str, tuple[Odd, float]] = {
    "float16": (lambda value: value.half(), 1e-2),
    "bfloat16": (lambda value: value.bfloat16(), 1e-2),
    "float64": (lambda value: value.double(), 1e-6),
    "float8_e4m3fn": (lambda value: value.to(torch.float8_e4m3fn), 0.1),
    "float8_e5m2": (lambda value: value.to(torch.float8_e5m2), 0.2),
    "float8_e4m3fnuz": (lambda value: value.to(torch.float8_e4m3fnuz), 0.1),
    "quantized": (quantized, 0.05),
    "quantized by row": (quantized_by_row, 0.05),
    "sparse": (lambda value: value.to_sparse(), 0.0),
    "sparse rows": (compressed, 0.0),
    "sparse columns": (lambda v: v.to_sparse_csc() if v.ndim == 2 else v, 0.0),
    "negative view": (negative, 0.0),
    "parameter": (nn.Parameter, 0.0),
    "buffer": (lambda value: nn.Buffer(value), 0.0),
    "tensor class": (labelled, 0.0),
    "transposed": (lambda value: value.t().contiguous().t() if value.ndim == 2 else value, 0.0),
    "with strides": (strided, 0.0),
    "part of a storage": (shared, 0.0),
    "gradients": (lambda value: value.clone().requires_grad_(), 0.0),
}
REFUSED: dict[str, tuple[Odd, str]] = {
    "complex64": (lambda v: v.to(torch.complex64), r"norm.weight \(complex64\)"),
    "complex128": (lambda v: v.to(torch.complex128), r"\(complex128\)"),
    "conjugated": (lambda v: (v + 1j).conj(), r"\(complex64\)"),
    "bool": (lambda v: v > 0, r"\(bool\)"),
    "int8": (lambda v: v.to(torch.int8), r"\(int8\)"),
    "uint8": (lambda v: v.to(torch.uint8), r"\(uint8\)"),
    "uint16": (lambda v: v.to(torch.uint16), r"\(uint16\)"),
    "int64": (lambda v: v.to(torch.int64), r"\(int64\); save them as float32"),
    "meta": (lambda v: v.to("meta"), "as a tensor of the meta device, which has no values"),
    "nested": (lambda v: torch.nested.nested_tensor([v, v]), "as a nested tensor"),
    "NaN": (lambda v: v * float("nan"), "holds NaN or infinite weights"),
    "infinite": (lambda v: v / 0, "holds NaN or infinite weights"),
    "a list": (lambda v: v.tolist(), "norm.weight"),
    "an array": (lambda v: v.numpy(), "norm.weight"),
    "None": (lambda v: None, "norm.weight"),
    "no values": (lambda v: v[:0], "have another shape"),
    "another shape": (lambda v: v[None], "have another shape"),
}


def pickled(folder: Path) -> Path:
    """What ``pickle.dump`` makes of a checkpoint."""
    path = folder / NAME
    path.write_bytes(pickle.dumps(good()))
    return path


def protocols() -> list[Row]:
    return [
        Row(
            f"pickle protocol {protocol}{kind}",
            changed(
                lambda content: content.update(args={"bytes": b"x" * 300, "set": {1, 2}}),
                pickle_protocol=protocol,
                _use_new_zipfile_serialization=not kind,
            ),
            SAME,
            same(0.0),
        )
        for protocol in (2, 3, 4, 5)
        for kind in ("", ", legacy")
    ]


LEGACY = {"_use_new_zipfile_serialization": False}
ROWS = (
    *protocols(),
    *(Row(f"read: {name}", each(odd), SAME, same(t)) for name, (odd, t) in READ.items()),
    *(
        Row(f"read, legacy: {name}", each(READ[name][0], **LEGACY), SAME, same(READ[name][1]))
        for name in ("bfloat16", "quantized", "sparse", "with strides", "part of a storage")
    ),
    *(Row(f"refused: {name}", one(odd), refused(says)) for name, (odd, says) in REFUSED.items()),
    *(
        Row(f"refused, all of them: {name}", each(REFUSED[name][0]), refused("no real|no values"))
        for name in ("complex64", "int8", "meta")
    ),
    Row(
        "odd, but not of the backbone",
        one(lambda value: value.to("meta"), "head.last_layer.weight_v"),
        SAME,
        same(0.0),
    ),
    Row("a pickled dictionary of tensors", pickled, refused("not one that torch.save")),
    Row(
        "a module as a whole",
        lambda folder: saved(folder / NAME, nn.Linear(2, 2)),
        refused("no 'teacher'|does not fit"),
    ),
)
