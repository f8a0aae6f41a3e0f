"""Advice names an architecture, heads and all: who follows it has the features of the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.checking import check_checkpoint
from densescope.features.formats import FORMATS
from densescope.features.shapes import architectures_of
from densescope.features.spec import BackboneSpec
from tests.features.plain_models import random_images, vit_features, vit_weights
from tests.features.written_layouts import prefixed
from tests.foreign.hints import follow
from tests.foreign.loading import load

Weights = dict[str, Tensor]


def mocov3_positions(side: int, width: int) -> Tensor:
    """Written from the description of its code: sine and cosine of the row, then of the column."""
    table = torch.zeros(1, side * side + 1, width)
    quarter = width // 4
    for row in range(side):
        for column in range(side):
            for k in range(quarter):
                rate = 10000.0 ** (-k / quarter)
                place = table[0, 1 + row * side + column]
                place[k], place[quarter + k] = (
                    torch.tensor([row * rate]).sin(),
                    torch.tensor([row * rate]).cos(),
                )
                place[2 * quarter + k] = torch.tensor([column * rate]).sin()
                place[3 * quarter + k] = torch.tensor([column * rate]).cos()
    return table


def assert_heads(backbone: Any, weights: Weights, generator: torch.Generator, heads: int) -> None:
    """The features are those of the network with these heads, and of no other."""
    images = random_images(generator)
    found = backbone.features(images).patches[0]
    expected = vit_features(weights, images, heads=heads).patches[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    other = vit_features(weights, images, heads=6 if heads == 12 else 12).patches[0]
    assert not torch.allclose(found, other, atol=1e-2)


def dino(weights: Weights) -> Any:
    return {"teacher": prefixed("backbone.", weights), "epoch": 3}


def mae(weights: Weights) -> Any:
    return {"model": {**weights, "mask_token": torch.ones(1), "decoder_pred.bias": torch.ones(2)}}


@pytest.mark.parametrize(
    ("format", "content", "width", "patch", "heads", "name"),
    [
        ("dino", dino, 768, 16, 12, "vit_base_patch16_224"),
        ("dino", dino, 192, 16, 3, "vit_tiny_patch16_224"),
        ("dino", dino, 384, 8, 6, "vit_small_patch8_224"),
        ("mae", mae, 384, 16, 6, "vit_small_patch16_224"),
    ],
)
def test_the_advice_is_an_architecture_with_the_heads_of_its_size(
    format: str,
    content: Callable[[Weights], Any],
    width: int,
    patch: int,
    heads: int,
    name: str,
    tmp_path: Path,
    generator: torch.Generator,
) -> None:
    weights = vit_weights(generator, dim=width, patch=patch)
    torch.save(content(weights), tmp_path / "checkpoint0003.pth")
    followed = follow(tmp_path / "checkpoint0003.pth", {"format": format})
    assert f"give --architecture {name}" in followed.sentences[0]
    assert len(followed.sentences) == 1
    assert_heads(followed.loaded.backbone, weights, generator, heads)
    facts = {"heads": heads, "depth": 2, "width": width, "patch_size": patch, "norm_eps": 1e-6}
    assert followed.loaded.to_json()["network"] == facts


@pytest.fixture
def deit(tmp_path: Path, generator: torch.Generator) -> tuple[Path, Weights]:
    """What MoCo v3's ``convert_to_deit.py`` writes of a ViT-S, which has 12 heads there."""
    weights = vit_weights(generator, dim=384, patch=16)
    weights["pos_embed"] = mocov3_positions(2, 384)
    torch.save({"model": weights}, tmp_path / "deit.pth")
    return tmp_path / "deit.pth", weights


@pytest.mark.parametrize("format", ["mae", "mae-release", "mocov3-release"])
def test_a_converted_mocov3_is_never_given_six_heads(
    format: str, deit: tuple[Path, Weights], generator: torch.Generator
) -> None:
    path, weights = deit
    followed = follow(path, {"format": format})
    assert_heads(followed.loaded.backbone, weights, generator, 12)


def test_heads_that_nobody_gave_are_refused_where_the_positions_speak_for_others(
    deit: tuple[Path, Weights], generator: torch.Generator
) -> None:
    path, weights = deit
    named: dict[str, Any] = {"format": "timm", "architecture": "vit_small_patch16_224"}
    options = {"img_size": 32, "depth": 2}
    with pytest.raises(CheckpointError, match=r"MoCo v3's code, .* has 12 heads, and .* has 6: "):
        load(path, **named, architecture_options=options)
    followed = follow(path, {**named, "architecture_options": options})
    assert_heads(followed.loaded.backbone, weights, generator, 12)
    asked = load(path, **named, architecture_options={**options, "num_heads": 6})
    assert_heads(asked.backbone, weights, generator, 6)


def test_positions_of_mae_are_not_taken_for_those_of_mocov3(
    tmp_path: Path, generator: torch.Generator
) -> None:
    weights = vit_weights(generator, dim=384, patch=16)
    half = mocov3_positions(2, 384).chunk(2, -1)
    weights["pos_embed"] = torch.cat(half[::-1], -1)
    torch.save({"model": weights}, tmp_path / "vit.pth")
    followed = follow(tmp_path / "vit.pth", {"format": "mae-release"})
    assert_heads(followed.loaded.backbone, weights, generator, 6)


def test_a_width_without_heads_is_refused(tmp_path: Path, generator: torch.Generator) -> None:
    weights = vit_weights(generator, dim=768, patch=16)
    torch.save(dino(weights), tmp_path / "a.pth")
    options = {"embed_dim": 768, "depth": 2, "img_size": 32}
    with pytest.raises(CheckpointError, match="embed_dim=768 without num_heads: timm would take 6"):
        load(tmp_path / "a.pth", format="dino", architecture_options=options)
    given = {**options, "num_heads": 12}
    loaded = load(tmp_path / "a.pth", format="dino", architecture_options=given)
    assert_heads(loaded.backbone, weights, generator, 12)


def test_swin_shows_its_heads_and_needs_no_more(generator: torch.Generator) -> None:
    from densescope.features.architectures import build_architecture

    build_architecture("swin_tiny_patch4_window7_224", {"embed_dim": 48})


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("deit_tiny_patch16_224", {}, ["vit_tiny_patch16_224"]),
        ("vit_base_patch16_384", {}, ["vit_base_patch16_224"]),
        ("vit_small_patch14_dinov2", {}, ["vit_small_patch14_dinov2"]),
        ("vit_small_patch14_reg4_dinov2", {}, ["vit_small_patch14_reg4_dinov2"]),
        ("deit3_small_patch16_224", {}, ["deit3_small_patch16_224"]),
        ("vit_small_patch16_dinov3_qkvb", {}, ["vit_small_patch16_dinov3_qkvb"]),
        (
            "vit_base_patch16_clip_224",
            {},
            ["vit_base_patch16_clip_224", "vit_base_patch16_clip_quickgelu_224"],
        ),
        ("swin_tiny_patch4_window7_224", {"window_size": 14}, ["swin_tiny_patch4_window7_224"]),
        ("resnet50", {}, ["resnet50"]),
        ("wide_resnet50_2", {}, ["wide_resnet50_2"]),
        ("resnet18", {}, ["resnet18"]),
        ("convnext_tiny", {}, ["convnext_tiny"]),
        ("convnextv2_tiny", {}, ["convnextv2_tiny"]),
        ("efficientnet_b0", {}, []),
    ],
)
def test_shapes_of_timm_models_lead_back_to_their_network(
    name: str, options: dict[str, Any], found: list[str]
) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, **options)
    shaped = architectures_of(model.state_dict(), FORMATS["timm"])
    assert [one.name for one in shaped] == found
    for one in shaped[:1]:
        same = timm.create_model(one.name, num_classes=0, **one.options).state_dict()
        assert {k: v.shape for k, v in same.items()} == {
            k: v.shape for k, v in model.state_dict().items()
        }


def test_rows_with_heads_of_their_own_are_not_advised_for_anyones_names(
    deit: tuple[Path, Weights], tmp_path: Path, generator: torch.Generator
) -> None:
    path, _ = deit
    assert "mocov3-release" in check_checkpoint(path, BackboneSpec("dino")).fitting
    torch.save({"model": vit_weights(generator, dim=384, patch=16)}, tmp_path / "own.pth")
    fitting = check_checkpoint(tmp_path / "own.pth", BackboneSpec("dino")).fitting
    assert "timm" in fitting
    assert "mocov3-release" not in fitting
