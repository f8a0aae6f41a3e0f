"""What a linear probe sees in a few images."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from densescope.errors import InputError
from densescope.evaluation.probes.patch_head import PatchHead
from densescope.features.backbones import Backbone
from densescope.features.extraction import extract


def predict_masks(
    head: Any,
    backbone: Backbone,
    pixels: Tensor,
    *,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Tensor:
    """Class of every pixel of a few images.

    Args:
        head: ``outcome.head`` of the protocol ``linear`` or ``linear-sgd``.
        backbone: the one it was trained on.
        pixels: ``images 3 rows columns`` as the protocol decodes them, uint8 or in [0, 1].
        batch_size: images per forward pass; found out by default.
        device: of the forward pass.
        precision: of the forward pass.

    Returns:
        ``images rows columns``, int64, at the resolution of ``pixels``.

    Raises:
        InputError: the head is of another protocol, or of a backbone of another width.
    """
    if not isinstance(head, PatchHead):
        raise InputError(
            "only a head of the protocol linear or linear-sgd draws masks: probe with one of them"
        )
    found = extract(backbone, pixels, batch_size=batch_size, device=device, precision=precision)
    dim = found.patches[-1].shape[2]
    if dim != len(head.weight) - 1:
        raise InputError(
            f"this head reads {len(head.weight) - 1} dimensions, the backbone has {dim}: use the "
            "backbone it was trained on"
        )
    size = (int(pixels.shape[2]), int(pixels.shape[3]))
    return head.label_maps(found.patches[-1], grid=found.grid, size=size)
