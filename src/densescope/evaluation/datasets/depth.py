"""Photos with a depth map each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets.layout import PHOTO_SUFFIXES
from densescope.evaluation.datasets.pairs import Pair, match_files
from densescope.evaluation.datasets.pixels import read_file_bytes, read_indices, read_photo

if TYPE_CHECKING:
    from PIL.Image import Image

DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
UNITS_IN_METERS = {
    "meters": 1.0,
    "centimeters": 0.01,
    "millimeters": 0.001,
    "1/256 meters": 1 / 256,
}


@dataclass(frozen=True)
class DepthSet:
    """Images with a depth in meters for every pixel; nothing is decoded until it is asked for.

    Attributes:
        pairs: image and depth files, sorted by name.
        meters_per_unit: what one unit of an integer depth file is worth; ``None`` for ``.npy``.
    """

    pairs: tuple[Pair, ...]
    meters_per_unit: float | None

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names without suffix, relative to the folder of images."""
        return tuple(pair.name for pair in self.pairs)

    def image(self, index: int) -> Tensor:
        """The photo, uint8, ``3 rows columns``, RGB.

        Raises:
            DataError: the file is damaged, or its size is not its depth map's.
        """
        return torch.from_numpy(np.array(self.photo_and_depth(index)[0])).permute(2, 0, 1)

    def depth(self, index: int) -> Tensor:
        """Depth in meters, float32, ``rows columns``; 0 where nothing was measured.

        Raises:
            DataError: the file is damaged, negative, or a picture of depths and not depths.
        """
        return torch.from_numpy(self._meters(self.pairs[index].mask))

    def photo_and_depth(self, index: int) -> tuple[Image, np.ndarray[Any, Any]]:
        """Both of one pair, checked against each other: what preprocessing starts from."""
        pair = self.pairs[index]
        depth = self._meters(pair.mask)
        rows, columns = depth.shape
        return read_photo(pair.image, size=(columns, rows), label="depth map"), depth

    def image_bytes(self, index: int) -> bytes:
        """The encoded image file."""
        return read_file_bytes(self.pairs[index].image, "image")

    def subset(self, indices: Sequence[int]) -> DepthSet:
        """The same data set with only these images, in this order."""
        return replace(self, pairs=tuple(self.pairs[index] for index in indices))

    def _meters(self, path: Path) -> np.ndarray[Any, Any]:
        if path.suffix.lower() == ".npy":
            values = _load(path)
        else:
            assert self.meters_per_unit is not None
            values = _integers(path) * self.meters_per_unit
        meters = np.where(np.isfinite(values), values, 0.0).astype(np.float32)
        if (meters < 0).any():
            raise DataError(f"depth map {path} has negative depths: write 0 where there is none")
        return meters


def check_unit(unit: str) -> None:
    """Refuse the name of a unit that depth maps cannot be in.

    Raises:
        InputError: there is no such unit.
    """
    if unit not in UNITS_IN_METERS:
        raise InputError(f"there is no unit {unit!r}; there are: {', '.join(UNITS_IN_METERS)}")


def open_depth(
    images: str | os.PathLike[str], depths: str | os.PathLike[str], *, unit: str | None = None
) -> DepthSet:
    """Open a folder of photos and a folder of depth maps with the same names.

    Args:
        images: folder of photos, searched to any depth.
        depths: folder with a ``.png`` or ``.tif`` (16-bit integers in ``unit``) or a ``.npy``
            file (floating-point meters) for every photo. 0, NaN and infinity mean "not measured".
        unit: ``"millimeters"``, ``"centimeters"``, ``"meters"`` or ``"1/256 meters"`` (KITTI).
            Required for integer files, refused for ``.npy``: a guess would scale every error.

    Returns:
        The pairs. All files have been found; none has been decoded.

    Raises:
        InputError: the unit is unknown, missing, or given where files are in meters already.
        DataError: a folder is missing or empty, or an image has no depth map.
    """
    if unit is not None:
        check_unit(unit)
    pairs = match_files(
        Path(images),
        Path(depths),
        image_suffixes=PHOTO_SUFFIXES,
        mask_suffixes=DEPTH_SUFFIXES,
        label="depth map",
    )
    integers = [pair for pair in pairs if pair.mask.suffix.lower() != ".npy"]
    if integers and unit is None:
        raise InputError(
            f"{integers[0].mask} holds integers of an unknown unit: give unit="
            f"{' or '.join(repr(name) for name in UNITS_IN_METERS)}"
        )
    if unit is not None and len(integers) < len(pairs):
        raise InputError("a .npy depth map is in meters already: leave unit out")
    return DepthSet(pairs, None if unit is None else UNITS_IN_METERS[unit])


def _load(path: Path) -> np.ndarray[Any, Any]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise DataError(f"depth map {path} cannot be read ({cause}): write it again") from cause
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind != "f":
        raise DataError(
            f"depth map {path} is not a floating-point array of rows and columns: write meters"
        )
    return values


def _integers(path: Path) -> np.ndarray[Any, Any]:
    values = read_indices(path, label="depth map")
    if values.dtype == np.uint8:
        raise DataError(
            f"depth map {path} has 8 bits, as pictures of depths have: give 16-bit integers or .npy"
        )
    return values
