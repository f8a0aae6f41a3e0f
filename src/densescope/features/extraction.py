"""Images go through a backbone here: the one place for device, autocast and no_grad."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from densescope.errors import NOT_FINITE, InputError
from densescope.features.batching import Batching
from densescope.features.prefetched import Images
from densescope.layers import Layers, resolve_layers

if TYPE_CHECKING:
    from densescope.features.backbones import Backbone, Features

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
KEPT_SHARE = 0.3  # of an accelerator's free memory that features may take


@dataclass(frozen=True)
class ExtractedFeatures:
    """Features of all images, float32 on the CPU unless they were asked to stay on the device.

    Attributes:
        patches: per layer asked for ``images patches dim``; patches row by row.
        image: ``images dim``, the class token or what the backbone has in its place; always on
            the CPU.
        grids: per layer the rows and columns its patches form.
        layers: the layers; ``"all"`` has become numbers.
    """

    patches: tuple[Tensor, ...]
    image: Tensor
    grids: tuple[tuple[int, int], ...]
    layers: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last layer asked for."""
        return self.grids[-1]


def extract(
    backbone: Backbone,
    pixels: Images,
    *,
    layers: Layers = (-1,),
    batch_size: int | Batching | None = None,
    device: str = "auto",
    precision: str = "float32",
    stay: bool = False,
) -> ExtractedFeatures:
    """Features of images, batch by batch into memory laid out beforehand.

    Pixels are scaled to [0, 1] and normalized with the backbone's mean and standard deviation on
    the device. Constant features pass: whether they are of use is for the metrics to say.

    Args:
        backbone: anything with ``features``; where it has ``to`` it is moved to the device,
            where it has ``eval`` it is set to evaluation, and where it has ``memory_format`` it is
            given images laid out like that.
        pixels: ``images 3 rows columns``, uint8 or floating point in [0, 1]; those of a
            :class:`~densescope.features.prefetched.PrefetchedTensor` are waited for batch by batch.
        layers: blocks to read in one forward pass, ``-1`` is the last; ``"all"`` reads every
            block.
        batch_size: images at once; found out where it is left out, and kept from call to call by
            a :class:`~densescope.features.batching.Batching`. Does not change the result beyond
            rounding.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        precision: ``"float32"`` or ``"bfloat16"`` (autocast).
        stay: leave patches on the device where they take at most three tenths of its free
            memory.

    Returns:
        Detached float32 tensors, on the CPU unless they were to ``stay``.

    Raises:
        InputError: an argument is impossible, a feature is NaN or infinite (the text names the
            image), the features do not have the promised shape, or memory ran out.
        OptionError: a layer does not exist.
    """
    _check(pixels, precision)
    images, wanted = len(pixels), resolve_layers(layers, getattr(backbone, "depth", None))
    patches: list[Tensor] = []
    vectors: list[Tensor] = []
    grids: tuple[tuple[int, int], ...] = ()
    for rows, features in _batches(backbone, pixels, wanted, batch_size, device, precision):
        if not patches:
            grids = tuple((grid.shape[2], grid.shape[3]) for grid in features.patches)
            patches = _allocate(images, features.patches, stay)
        for layer, grid in zip(patches, features.patches, strict=True):
            layer[rows] = grid.flatten(2).transpose(1, 2)
        vectors.append(features.image.float())
    return ExtractedFeatures(tuple(patches), torch.cat(vectors).cpu(), grids, wanted)


def extract_image_vectors(
    backbone: Backbone,
    pixels: Images,
    *,
    batch_size: int | Batching | None = None,
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
    _check(pixels, precision)
    batches = _batches(backbone, pixels, (-1,), batch_size, device, precision)
    return torch.cat([features.image.float() for _, features in batches]).cpu()


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


def _check(pixels: Images, precision: str) -> None:
    if len(pixels.shape) != 4 or pixels.shape[1] != 3 or len(pixels) == 0:
        raise InputError(
            f"pixels have shape {tuple(pixels.shape)}: expected images x 3 x rows x columns"
        )
    if pixels.dtype != torch.uint8 and not pixels.dtype.is_floating_point:
        raise InputError(f"pixels are {pixels.dtype}: expected uint8, or floats in [0, 1]")
    if precision not in PRECISIONS:
        raise InputError(f"no precision {precision!r}: use {' or '.join(PRECISIONS)}")


def _batches(
    backbone: Backbone,
    pixels: Images,
    layers: tuple[int, ...],
    batch_size: int | Batching | None,
    device: str,
    precision: str,
) -> Iterator[tuple[slice, Features]]:
    target, batching = resolve_device(device), Batching.of(batch_size)
    _prepare(backbone, target)
    mean, deviation = (
        torch.tensor(values, device=target).view(1, 3, 1, 1)
        for values in (backbone.mean, backbone.std)
    )
    layout = getattr(backbone, "memory_format", torch.contiguous_format)

    def forward(rows: slice) -> Features:
        with torch.no_grad(), _autocast(target, precision):
            batch = _moved(pixels[rows], target)
            batch = batch / 255 if batch.dtype == torch.uint8 else batch.float()
            batch = (batch - mean).div_(deviation).contiguous(memory_format=layout)
            return backbone.features(batch, layers=layers)

    finite = FiniteCheck(waits=target.type == "cpu")
    size = math.prod(pixels.shape[2:])
    for rows, features in batching.each(len(pixels), size, target, forward, pixels.__getitem__):
        _check_shapes(features, rows.stop - rows.start, len(layers))
        finite.add(rows.start, features)
        yield rows, features
    finite.check()


class FiniteCheck:
    """Names the first image with a feature that is NaN or infinite.

    To look at a number is to wait for the device. So the first batch is looked at when it is done,
    as most runs that diverged show there, and the others together at the end; on the CPU each one
    at once.

    Args:
        waits: look at every batch at once.
    """

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        self._begun = False
        self._left: list[tuple[int, Tensor]] = []

    @torch.no_grad()
    def add(self, start: int, features: Features) -> None:
        """The features of the next batch, whose first image has this number.

        Raises:
            InputError: a feature that was looked at is not finite.
        """
        finite = features.image.isfinite().flatten(1).all(1)
        for grid in features.patches:
            finite &= grid.isfinite().flatten(1).all(1)
        self._left.append((start, finite))
        if self.waits or not self._begun:
            self.check()
        self._begun = True

    def check(self) -> None:
        """Look at what has not been looked at.

        Raises:
            InputError: a feature is not finite; the text names the first image.
        """
        left, self._left = self._left, []
        if not left:
            return
        found = torch.cat([finite for _, finite in left]).cpu()
        parts = torch.split(found, [len(finite) for _, finite in left])
        for (start, _), finite in zip(left, parts, strict=True):
            bad = (~finite).nonzero().flatten().tolist()
            if bad:
                others = f" and {len(bad) - 1} more of its batch" if len(bad) > 1 else ""
                raise InputError(
                    f"the features of image {start + bad[0]}{others} are {NOT_FINITE}: training "
                    "diverged, the file is damaged, or a lower precision than float32 "
                    "overflowed"
                )


def _moved(batch: Tensor, device: torch.device) -> Tensor:
    """To the device; the host does not wait where memory that cannot be paged allows that."""
    if device.type == "cuda" and batch.device.type == "cpu":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


def _prepare(backbone: Backbone, device: torch.device) -> None:
    for name, arguments in (("to", (device,)), ("eval", ())):
        method = getattr(backbone, name, None)
        if callable(method):
            method(*arguments)


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _check_shapes(features: Features, images: int, layers: int) -> None:
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


def _allocate(images: int, grids: Sequence[Tensor], stay: bool) -> list[Tensor]:
    """Memory for the patches of every layer: on the device where they are to stay and fit."""
    shapes = [(images, grid.shape[2] * grid.shape[3], grid.shape[1]) for grid in grids]
    device = grids[0].device
    needed = 4 * sum(math.prod(shape) for shape in shapes)
    there = stay and needed <= KEPT_SHARE * free_bytes(device)
    if not there:
        _check_memory(needed, images, len(shapes))
    return [torch.empty(shape, device=device if there else "cpu") for shape in shapes]


def _check_memory(needed: int, images: int, layers: int) -> None:
    """Refuse what would end the process: Linux hands out memory that it does not have."""
    available = available_bytes()
    if available is not None and needed > available:
        raise InputError(
            f"the patch features of {layers} layer{'s' * (layers != 1)} of {images:,} images take "
            f"{needed / 1e9:.1f} GB and {available / 1e9:.1f} GB of memory are free: name fewer "
            "layers (--layers) or take fewer images (--images-count)"
        )


def available_bytes() -> int | None:
    """Memory that a process can still use without swapping; ``None`` where it is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in sizes else None


def free_bytes(device: torch.device) -> int:
    """Memory of a CUDA device that this process could still use; 0 for other devices."""
    if device.type != "cuda":
        return 0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused
