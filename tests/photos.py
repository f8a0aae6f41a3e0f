"""Features of real photos, for tests of parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor


def photo_features(shared: Path, images: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Patches and class tokens of photos: a small ViT with random weights and patches of 16.

    Args:
        shared: where the photos lie.
        images: how many.
        size: rows and columns of pixels.
    """
    torch.default_generator.manual_seed(0)
    shape = {"img_size": size, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **shape).eval()
    files = sorted((shared / "data" / "natural_images").rglob("*.jpg"))[:images]
    photos = [np.asarray(Image.open(one).convert("RGB").resize(size[::-1])) for one in files]
    pixels = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        tokens = model.forward_features(pixels)
    return tokens[:, 1:].contiguous(), tokens[:, 0].contiguous()
