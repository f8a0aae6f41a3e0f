"""Fixed positions that tell whose network a file holds, where names and shapes do not."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

_HEADS = {384: 12, 768: 12, 1024: 16, 1280: 16}  # by width, in MoCo v3's code
_TOLERANCE = 2e-3  # files in half precision


def mocov3_heads(tensors: Mapping[str, Tensor]) -> int | None:
    """Heads of the network, where its positions are the fixed ones of MoCo v3's code.

    They are sines and cosines like those of MAE and I-JEPA, but with the two directions swapped. A
    file in which they were renamed or converted (``convert_to_deit.py``) keeps them.

    Returns:
        12 or 16; ``None`` for positions that were learned or are another code's, and for widths
        that MoCo v3 does not train.
    """
    held = tensors.get("pos_embed")
    if held is None or held.ndim != 3 or held.shape[-1] not in _HEADS:
        return None
    side = math.isqrt(held.shape[1] - 1)
    if side * side != held.shape[1] - 1:
        return None
    expected = torch.cat([torch.zeros(1, held.shape[-1]), _mocov3(side, held.shape[-1])])
    found = held[0].to(torch.float32)
    return _HEADS[held.shape[-1]] if torch.allclose(found, expected, atol=_TOLERANCE) else None


def _mocov3(side: int, width: int) -> Tensor:
    """``side ** 2`` positions row by row: of the row first, then of the column."""
    rows, columns = torch.arange(side**2) // side, torch.arange(side**2) % side
    omega = 10000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = [place[:, None] * omega for place in (rows, columns)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
