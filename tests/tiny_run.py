"""A run small enough for a test: DINO files of a two-block ViT and a folder of small images."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from densescope.features.spec import BackboneSpec

OPTIONS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
ARCHITECTURE = "vit_small_patch16_224"
SPEC = BackboneSpec("dino", ARCHITECTURE, OPTIONS)
IMAGES = 32
SETTINGS = {"global_clusters": 6, "lidar_images": 8, "lidar_views": 3}


def write_images(folder: Path, count: int = IMAGES, seed: int = 0) -> Path:
    from PIL import Image

    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        small = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((40, 36)).save(folder / f"{index:03d}.png")
    return folder


def write_checkpoints(folder: Path, epochs: range = range(3), width: int = 24) -> Path:
    """Files in DINO's training layout; each epoch has weights of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in epochs:
        torch.save(checkpoint(epoch, width), folder / f"checkpoint{epoch:04d}.pth")
    return folder


def checkpoint(epoch: int, width: int = 24) -> dict[str, object]:
    import timm

    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(epoch)
        model = timm.create_model(
            ARCHITECTURE, num_classes=0, **{**OPTIONS, "embed_dim": width}
        ).state_dict()
    teacher = {f"backbone.{key}": value for key, value in model.items()}
    teacher["head.last_layer.weight_v"] = torch.zeros(4, width)
    student = {f"module.{key}": value + 1 for key, value in teacher.items()}
    return {
        "student": student,
        "teacher": teacher,
        "epoch": epoch + 1,
        "args": argparse.Namespace(arch="vit_small", output_dir=Path("out")),
    }
