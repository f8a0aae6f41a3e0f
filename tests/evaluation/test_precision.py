"""What the precision of the forward pass and the layout of images in memory may change."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import Tensor

from densescope.features.extraction import extract
from densescope.features.spec import BackboneSpec
from densescope.features.timm_backbone import TimmBackbone
from densescope.metrics import METRICS, ScoreSettings
from densescope.runs.sweep import score_checkpoint
from tests.tiny_run import ARCHITECTURE, OPTIONS, SETTINGS, write_checkpoints

MOST_ERRORS = 1.0  # benchmarks/results/precision.md: by less than its standard error
NORMALIZATION = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


def backbone(name: str, seed: int = 0, **options: int) -> TimmBackbone:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        model = timm.create_model(name, num_classes=0, **options)
    return TimmBackbone(model.eval(), image_size=64, **NORMALIZATION)


def test_bfloat16_moves_every_number_by_less_than_its_standard_error(
    tiny_images: Path, tmp_path: Path
) -> None:
    run = write_checkpoints(tmp_path / "run", range(1))
    spec = BackboneSpec("dino", architecture=ARCHITECTURE, architecture_options=OPTIONS)
    exact, rough = (
        score_checkpoint(
            run / "checkpoint0000.pth",
            images=tiny_images,
            spec=spec,
            settings=ScoreSettings(**{**SETTINGS, "lidar_images": 16}, precision=precision),
        ).scores["-1"]
        for precision in ("float32", "bfloat16")
    )
    moved = 0
    for name in (metric.name for metric in METRICS.values() if metric.is_stored):
        error = exact[name].standard_error
        assert error is not None
        shift = abs(rough[name].value - exact[name].value)
        assert shift <= MOST_ERRORS * error, name
        moved += shift > 0
    assert moved >= len(exact) - 1  # the fraction of outliers may be 0 in both


def layout_of(backbone: TimmBackbone, pixels: Tensor) -> tuple[bool, Tensor]:
    """Whether images came with channels last, and the patches."""
    seen: list[Tensor] = []
    features = backbone.features

    def watching(images: Tensor, layers: tuple[int, ...] = (-1,)):  # type: ignore[no-untyped-def]
        seen.append(images)
        return features(images, layers)

    backbone.features = watching  # type: ignore[method-assign, assignment]
    found = extract(backbone, pixels, device="cpu").patches[0]
    return seen[0].is_contiguous(memory_format=torch.channels_last), found


def test_convolutions_see_channels_last_and_say_the_same(generator: torch.Generator) -> None:
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=generator)
    resnet = backbone("resnet18")
    last, found = layout_of(resnet, pixels)
    assert last
    resnet.memory_format = torch.contiguous_format
    plain, expected = layout_of(resnet, pixels)
    assert not plain
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not layout_of(backbone(ARCHITECTURE, **OPTIONS | {"img_size": 64}), pixels)[0]
