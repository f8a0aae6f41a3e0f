"""A few images and their patch features at a few checkpoints, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from densescope.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Previews:
    """What the maps of the report are made of.

    Attributes:
        images: ``images 3 height width``, ``uint8``, as the backbone saw them.
        patches: checkpoint name -> ``images dim rows columns``, any floating dtype; grids of
            different checkpoints may differ in ``dim`` but not in rows and columns.

    Raises:
        InputError: shapes or dtypes are others than these, or do not fit each other.
    """

    images: Tensor
    patches: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        import torch

        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or 0 in shape:
            raise InputError(
                f"preview images are {self.images.dtype} of shape {shape}: "
                "give uint8 of shape (images, 3, height, width)"
            )
        for name, grid in self.patches.items():
            _check_grid(name, grid, images=shape[0])
        grids = {tuple(grid.shape[2:]) for grid in self.patches.values()}
        if len(grids) > 1:
            raise InputError(
                f"preview grids have {len(grids)} sizes, {sorted(grids)}: "
                "extract all checkpoints of a run at one image size"
            )


def _check_grid(name: str, grid: Tensor, *, images: int) -> None:
    shape = tuple(grid.shape)
    if not grid.is_floating_point() or len(shape) != 4 or shape[0] != images or 0 in shape:
        raise InputError(
            f"preview patches of {name} are {grid.dtype} of shape {shape}: "
            f"give floating numbers of shape ({images}, dim, rows, columns)"
        )
