"""Images go through a backbone here: the one place for device, autocast and no_grad."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from densescope.errors import NOT_FINITE, InputError

if TYPE_CHECKING:
    from densescope.features.backbones import Backbone, Features

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ExtractedFeatures:
    """Features of all images, float32 on the CPU.

    Attributes:
        patches: per layer asked for ``images patches dim``; patches row by row.
        image: ``images dim``, the class token or what the backbone has in its place.
        grids: per layer the rows and columns its patches form.
    """

    patches: tuple[Tensor, ...]
    image: Tensor
    grids: tuple[tuple[int, int], ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last layer asked for."""
        return self.grids[-1]


def extract(
    backbone: Backbone,
    pixels: Tensor,
    *,
    layers: tuple[int, ...] = (-1,),
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "float32",
) -> ExtractedFeatures:
    """Features of images, batch by batch into memory laid out beforehand.

    Pixels are scaled to [0, 1] and normalized with the backbone's mean and standard deviation on
    the device. Constant features pass: whether they are of use is for the metrics to say.

    Args:
        backbone: anything with ``features``; where it has ``to`` it is moved to the device,
            where it has ``eval`` it is set to evaluation.
        pixels: ``images 3 rows columns``, uint8 or floating point in [0, 1].
        layers: blocks to read, ``-1`` is the last.
        batch_size: images at once; does not change the result beyond rounding.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        precision: ``"float32"`` or ``"bfloat16"`` (autocast).

    Returns:
        Detached float32 tensors on the CPU.

    Raises:
        InputError: an argument is impossible, a feature is NaN or infinite (the text names the
            image), the features do not have the promised shape, or memory ran out.
    """
    _check(pixels, batch_size, precision)
    images = len(pixels)
    patches: list[Tensor] = []
    vectors = pixels.new_empty(0)
    grids: tuple[tuple[int, int], ...] = ()
    for start, features in _batches(backbone, pixels, layers, batch_size, device, precision):
        if not patches:
            grids = tuple((grid.shape[2], grid.shape[3]) for grid in features.patches)
            patches = [_room(images, grid) for grid in features.patches]
            vectors = torch.empty(images, features.image.shape[1])
        rows = slice(start, start + len(features.image))
        for layer, grid in zip(patches, features.patches, strict=True):
            layer[rows] = grid.flatten(2).transpose(1, 2)
        vectors[rows] = features.image
    return ExtractedFeatures(tuple(patches), vectors, grids)


def extract_image_vectors(
    backbone: Backbone,
    pixels: Tensor,
    *,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "float32",
) -> Tensor:
    """Image vectors alone, for metrics that see many views of an image; patches are not kept.

    Args:
        backbone: as in :func:`extract`.
        pixels: as in :func:`extract`.
        batch_size: as in :func:`extract`.
        device: as in :func:`extract`.
        precision: as in :func:`extract`.

    Returns:
        ``images dim``, float32 on the CPU, equal to ``extract(...).image``.

    Raises:
        InputError: as in :func:`extract`.
    """
    _check(pixels, batch_size, precision)
    batches = _batches(backbone, pixels, (-1,), batch_size, device, precision)
    return torch.cat([features.image.float().cpu() for _, features in batches])


def resolve_device(device: str) -> torch.device:
    """The device that a name means on this machine.

    Raises:
        InputError: no such device here.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as cause:
        raise InputError(f"{device!r} is no device: use auto, cpu or cuda") from cause
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise InputError(f"this machine has no device {device}: use --device auto or cpu")
    return resolved


def _check(pixels: Tensor, batch_size: int, precision: str) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != 3 or len(pixels) == 0:
        raise InputError(
            f"pixels have shape {tuple(pixels.shape)}: expected images x 3 x rows x columns"
        )
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise InputError(f"pixels are {pixels.dtype}: expected uint8, or floats in [0, 1]")
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} is impossible: use at least 1")
    if precision not in PRECISIONS:
        raise InputError(f"no precision {precision!r}: use {' or '.join(PRECISIONS)}")


def _batches(
    backbone: Backbone,
    pixels: Tensor,
    layers: tuple[int, ...],
    batch_size: int,
    device: str,
    precision: str,
) -> Iterator[tuple[int, Features]]:
    target = resolve_device(device)
    _prepare(backbone, target)
    mean, deviation = (
        torch.tensor(values, device=target).view(1, 3, 1, 1)
        for values in (backbone.mean, backbone.std)
    )
    for start in range(0, len(pixels), batch_size):
        with torch.no_grad(), _memory_sentence(batch_size), _autocast(target, precision):
            batch = pixels[start : start + batch_size].to(target)
            batch = batch / 255 if batch.dtype == torch.uint8 else batch.float()
            features = backbone.features((batch - mean) / deviation, layers=layers)
        _check_features(features, len(batch), len(layers), start)
        yield start, features


def _prepare(backbone: Backbone, device: torch.device) -> None:
    for name, arguments in (("to", (device,)), ("eval", ())):
        method = getattr(backbone, name, None)
        if callable(method):
            method(*arguments)


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def _memory_sentence(batch_size: int) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as cause:
        on_cpu = "allocate memory" in str(cause)
        if not (isinstance(cause, torch.OutOfMemoryError) or on_cpu):
            raise
        smaller = f"--batch-size {max(batch_size // 4, 1)}"
        raise InputError(f"{batch_size} images at once do not fit in memory: try {smaller}") from (
            cause
        )


def _check_features(features: Features, images: int, layers: int, start: int) -> None:
    shapes = [tuple(grid.shape) for grid in features.patches]
    if len(shapes) != layers or any(len(shape) != 4 or shape[0] != images for shape in shapes):
        raise InputError(
            f"the backbone returned patches {shapes} for {images} images and {layers} layer(s): "
            "expected one images x dim x rows x columns grid per layer"
        )
    if features.image.ndim != 2 or len(features.image) != images:
        raise InputError(
            f"the backbone returned image vectors {tuple(features.image.shape)} for {images} "
            "images: expected images x dim"
        )
    finite = features.image.isfinite().flatten(1).all(1)
    for grid in features.patches:
        finite &= grid.isfinite().flatten(1).all(1)
    bad = (~finite).nonzero().flatten().tolist()
    if bad:
        others = f" and {len(bad) - 1} more of its batch" if len(bad) > 1 else ""
        raise InputError(
            f"the features of image {start + bad[0]}{others} are {NOT_FINITE}: training "
            "diverged, the file is damaged, or bfloat16 overflowed (try --precision float32)"
        )


def _room(images: int, grid: Tensor) -> Tensor:
    return torch.empty(images, grid.shape[2] * grid.shape[3], grid.shape[1])
