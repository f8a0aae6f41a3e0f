"""Refuse input that would give a wrong or meaningless number, with a sentence that says why."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from densescope.errors import InputError

HALF = (torch.float16, torch.bfloat16)
Scaling = Literal["none", "whole", "vectors"]
SMALL, LARGE = 2.0**-20, 2.0**40  # within them squares and their sums are safe in float32
LIMITS = {torch.float32: 1e15, torch.float64: 1e120}  # of values that are squared as they are


def check_floating(tensor: Tensor, name: str, *, scaling: Scaling = "none") -> Tensor:
    """The tensor in float32 or float64: half precision is upcast, other types are refused.

    Args:
        tensor: to check.
        name: of it, for errors.
        scaling: what the result does not depend on: the scale of the whole tensor (``"whole"``),
            that of each vector (``"vectors"``), or neither. Where the squares of its values would
            leave the range of its type, such a tensor is brought to values about 1, by a power of
            two, and any other is refused.

    Raises:
        InputError: not a tensor, not floating point, NaN or infinite somewhere, or too large or too
            small to be squared.
    """
    if not isinstance(tensor, Tensor):
        raise InputError(
            f"{name} is a {type(tensor).__name__}; numerics take torch tensors: "
            "convert it with torch.as_tensor"
        )
    if not tensor.is_floating_point():
        raise InputError(f"{name} holds {tensor.dtype}; features are floating point")
    if not tensor.numel():
        return tensor.float() if tensor.dtype in HALF else tensor
    low, high = (float(end) for end in torch.aminmax(tensor.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(tensor)).sum())
        raise InputError(
            f"{name} has {bad} NaN or infinite values of {tensor.numel()}; "
            "the checkpoint is broken or overflowed in half precision: extract in float32"
        )
    tensor = tensor.float() if tensor.dtype in HALF else tensor
    largest = max(-low, high)
    if not largest:
        return tensor
    if scaling != "none":
        return tensor if SMALL <= largest <= LARGE else _about_one(tensor, scaling)
    limit = LIMITS[tensor.dtype]
    if not 1 / limit <= largest <= limit:
        raise InputError(
            f"{name} has values of {largest:.1e}, whose squares are outside the range of "
            f"{str(tensor.dtype).removeprefix('torch.')}: divide the features by a number, or "
            "check whether the run diverged"
        )
    return tensor


def _about_one(tensor: Tensor, scaling: Scaling) -> Tensor:
    """The tensor, or each vector, times the power of two that makes its largest value 1/2 to 1.

    In two steps, as one power may itself be outside the range.
    """
    sizes = tensor.detach().abs()
    largest = sizes.amax(-1, keepdim=True) if scaling == "vectors" else sizes.amax()
    _, exponent = torch.frexp(largest)
    half = exponent.div(2, rounding_mode="floor")
    for part in (half, exponent - half):
        tensor = tensor * torch.ldexp(torch.ones_like(largest), -part)
    return tensor


def check_shape(tensor: Tensor, axes: str, name: str) -> None:
    """Hold a tensor to its named axes, e.g. ``"images patches dim"``; none may be empty.

    Raises:
        InputError: another number of axes, or an empty one.
    """
    expected = axes.split()
    if tensor.ndim != len(expected):
        raise InputError(
            f"{name} has shape {tuple(tensor.shape)}; it must have {len(expected)} axes: {axes}"
        )
    for axis, size in zip(expected, tensor.shape, strict=True):
        if size == 0:
            raise InputError(f"{name} has no {axis}: its shape {tuple(tensor.shape)} is {axes}")


def cpu_generator(generator: torch.Generator) -> torch.Generator:
    """The generator; numbers are drawn on the CPU, the same for every device of the features.

    Raises:
        InputError: not a generator, or one of another device.
    """
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        found = f"on {generator.device}" if hasattr(generator, "device") else repr(generator)
        raise InputError(
            f"generator is {found}: give one of the CPU, such as torch.Generator().manual_seed(0)"
        )
    return generator


def check_at_least(value: int, least: int, name: str) -> None:
    """Hold a count to its lower bound.

    Raises:
        InputError: the value is smaller.
    """
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}")


def check_enough_rows(rows: int, clusters: int, what: str) -> None:
    """Refuse to make more clusters than there are rows.

    Raises:
        InputError: fewer rows than clusters.
    """
    if rows == 1:
        raise InputError(
            f"{what} has 1 patch, of which no clusters can be made; give larger images "
            "(--image-size), or layers with more than one patch"
        )
    if rows < clusters:
        raise InputError(
            f"{what} has {rows} patches for {clusters} clusters; "
            "ask for fewer clusters or give larger images"
        )


def check_labels(labels: Tensor, shape: tuple[int, ...], clusters: int, name: str) -> Tensor:
    """Labels as int64 in ``[0, clusters)``, reshaped from a flat list where need be.

    Raises:
        InputError: wrong count, floating point, or a label outside the range.
    """
    if labels.is_floating_point():
        raise InputError(f"{name} holds {labels.dtype}; labels are integers")
    size = 1
    for axis in shape:
        size *= axis
    if labels.numel() != size:
        raise InputError(f"{name} has shape {tuple(labels.shape)}; expected {shape}")
    labels = labels.reshape(shape).long()
    low, high = torch.aminmax(labels)
    if int(low) < 0 or int(high) >= clusters:
        raise InputError(
            f"{name} runs from {int(low)} to {int(high)}; expected 0 to {clusters - 1}"
        )
    return labels


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast is off on the device of a tensor."""
    return torch.autocast(tensor.device.type, enabled=False)
