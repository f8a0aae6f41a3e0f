"""Every vision family of Transformers: the grid of its own forward pass, or a sentence."""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densescope.errors import CheckpointError, InputError
from tests.features.plain_models import random_images
from tests.foreign.loading import load

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
HEADS = {**STAGES, "num_attention_heads": [1, 2, 4, 8]}
RESNET = {**STAGES, "embedding_size": 8}
SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 24,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 99,
}
PAIR = {"vision_config": VIT, "text_config": TEXT}

# class of the configuration -> its options
TOKENS: dict[str, dict[str, Any]] = {
    "Aimv2VisionConfig": VIT,
    "BeitConfig": {**VIT, "use_relative_position_bias": True},
    "CLIPVisionConfig": VIT,
    "DPTConfig": {**VIT, "backbone_out_indices": [0, 1, 1, 1]},
    "Data2VecVisionConfig": VIT,
    "DeiTConfig": VIT,
    "Dinov2Config": VIT,
    "Dinov2WithRegistersConfig": VIT,
    "DINOv3ViTConfig": {**VIT, "num_register_tokens": 4},
    "IJepaConfig": VIT,
    "MLCDVisionConfig": VIT,
    "PixioConfig": {**VIT, "n_cls_tokens": 3},
    "SiglipVisionConfig": VIT,
    "ViTConfig": VIT,
    "ViTMAEConfig": VIT,
    "ViTMSNConfig": VIT,
    "YolosConfig": {**VIT, "image_size": [32, 32], "num_detection_tokens": 5},
}
NORM_OF_THE_CLASS_TOKEN = {"CLIPVisionConfig", "MLCDVisionConfig"}
PYRAMIDS: dict[str, dict[str, Any]] = {
    "BitConfig": {**RESNET, "num_groups": 4},
    "ConvNextConfig": STAGES,
    "ConvNextV2Config": STAGES,
    "DINOv3ConvNextConfig": STAGES,
    "DonutSwinConfig": SWIN,
    "FocalNetConfig": {
        "image_size": 64,
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [16, 32, 64, 128],
    },
    "GLPNConfig": HEADS,
    "HieraConfig": {
        "embed_dim": 16,
        "image_size": [64, 64],
        "num_heads": [1, 2, 4, 8],
        "depths": [1, 1, 1, 1],
    },
    "MobileNetV1Config": {"depth_multiplier": 0.25},
    "MobileNetV2Config": {"depth_multiplier": 0.35},
    "MobileViTConfig": {
        "image_size": 64,
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64],
    },
    "MobileViTV2Config": {"image_size": 64, "width_multiplier": 0.25},
    "PoolFormerConfig": STAGES,
    "PvtConfig": {**HEADS, "image_size": 64},
    "PvtV2Config": {**HEADS, "image_size": 64},
    "RegNetConfig": {**RESNET, "groups_width": 8},
    "ResNetConfig": {**RESNET, "layer_type": "basic"},
    "SegformerConfig": HEADS,
    "SwiftFormerConfig": {"depths": [1, 1, 1, 1], "embed_dims": [8, 16, 24, 32]},
    "SwinConfig": SWIN,
    "Swinv2Config": SWIN,
    "VitDetConfig": {**VIT, "pretrain_image_size": 32},
}
REFUSED: dict[str, dict[str, Any]] = {
    "ImageGPTConfig": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "Siglip2VisionConfig": VIT,
    "TimesformerConfig": VIT,
    "VideoMAEConfig": VIT,
    "VJEPA2Config": {**VIT, "crop_size": 32},
}


def written(name: str, options: dict[str, Any], folder: Path) -> Any:
    """A random model, saved; the random state of its weights is the same each time."""
    kind = getattr(transformers, name, None)
    is_known = kind in transformers.MODEL_MAPPING and kind.model_type in transformers.CONFIG_MAPPING
    if not is_known:
        pytest.skip(f"this Transformers has no {name}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(kind(**options)).eval()
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if weight.ndim == 1 or "position" in key or "token" in key:
                    weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return model


def read(folder: Path, size: int) -> Any:
    return load(folder, format="huggingface", image_size=size, normalization="imagenet").backbone


def grid(tokens: Tensor, side: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize("name", TOKENS)
def test_a_transformer_gives_the_patches_of_its_own_forward(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    model = written(name, TOKENS[name], tmp_path)
    images = random_images(generator)
    extra = {}
    if name == "ViTMAEConfig":  # its own way to see every patch in order
        model.config.mask_ratio = 0.0
        extra["noise"] = torch.arange(16.0).expand(2, -1)
    with torch.no_grad():
        tokens = model(images, **extra).last_hidden_state
    if name in NORM_OF_THE_CLASS_TOKEN:
        tokens = getattr(model, "vision_model", model).post_layernorm(tokens)
    behind = 5 if name == "YolosConfig" else 0
    before = tokens.shape[1] - 16 - behind
    summaries = 3 if name == "PixioConfig" else 1
    backbone = read(tmp_path, 32)
    assert backbone.prefix == before
    found = backbone.features(images, (0, -1))
    torch.testing.assert_close(found.patches[1], grid(tokens[:, before : before + 16], 4))
    expected = tokens[:, :summaries].mean(1) if before else tokens.mean(1)
    torch.testing.assert_close(found.image, expected)
    assert not torch.allclose(found.patches[0], found.patches[1])


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_pyramid_gives_the_grid_of_its_own_forward(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    model = written(name, PYRAMIDS[name], tmp_path)
    size = 32 if name == "VitDetConfig" else 64
    images = random_images(generator, size)
    with torch.no_grad():
        out = model(images, output_hidden_states=True)
    expected = out.last_hidden_state
    if expected.ndim == 3:
        side = isqrt(expected.shape[1])
        expected = grid(expected[:, expected.shape[1] - side * side :], side)
    backbone = read(tmp_path, size)
    found = backbone.features(images)
    torch.testing.assert_close(found.patches[0], expected)
    torch.testing.assert_close(found.image, expected.mean((2, 3)))
    assert found.patches[0].shape[-1] * backbone.patch_size == size
    if name == "HieraConfig":  # its last grid is in reading order
        torch.testing.assert_close(expected, out.reshaped_hidden_states[-1].movedim(3, 1))


def test_the_stages_of_a_pyramid_halve_the_grid(tmp_path: Path, generator: torch.Generator) -> None:
    images = random_images(generator, 64)
    for name in ("HieraConfig", "DINOv3ConvNextConfig", "PoolFormerConfig", "SegformerConfig"):
        folder = tmp_path / name
        written(name, PYRAMIDS[name], folder)
        grids = read(folder, 64).features(images, range(4)).patches
        assert [grid.shape[-1] for grid in grids] == [16, 8, 4, 2], name


def test_stages_that_cannot_be_told_apart_are_not_given(
    tmp_path: Path, generator: torch.Generator
) -> None:
    for name in ("SwiftFormerConfig", "PvtConfig"):
        written(name, PYRAMIDS[name], tmp_path / name)
        with pytest.raises(InputError, match="does not say which grid is whose stage's: ask for"):
            read(tmp_path / name, 64).features(random_images(generator, 64), (0,))


@pytest.mark.parametrize("name", ["CLIPConfig", "SiglipConfig", "MetaClip2Config"])
def test_the_vision_tower_of_a_pair_is_taken(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    model = written(name, PAIR, tmp_path)
    images = random_images(generator)
    with torch.no_grad():
        tokens = model.vision_model(images).last_hidden_state
        tokens = tokens if name == "SiglipConfig" else model.vision_model.post_layernorm(tokens)
    found = read(tmp_path, 32).features(images)
    torch.testing.assert_close(found.patches[0], grid(tokens[:, -16:], 4))


def test_a_masked_autoencoder_sees_the_same_each_time(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """Its own forward drops 75 % of the patches and shuffles the rest."""
    written("ViTMAEConfig", VIT, tmp_path)
    images = random_images(generator)
    backbone = read(tmp_path, 32)
    first, second = (backbone.features(images).patches[0] for _ in range(2))
    assert torch.equal(first, second)
    assert read(tmp_path, 48).features(random_images(generator, 48)).patches[0].shape[-1] == 6


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_grid_of_an_image_is_refused_with_a_cure(name: str, tmp_path: Path) -> None:
    written(name, REFUSED[name], tmp_path)
    with pytest.raises(CheckpointError, match=r"whose patch features cannot .* --loader LOADER"):
        read(tmp_path, 32)
