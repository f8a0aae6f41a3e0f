"""Every block in one forward pass, without class and register tokens at any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densescope.errors import InputError, OptionError
from densescope.features import extraction
from densescope.features.backbones import load_backbone
from densescope.features.extraction import extract
from densescope.features.protocol import Features
from densescope.features.spec import BackboneSpec
from densescope.layers import block_of, resolve_layers, sorted_layers
from tests.features.plain_models import DEPTH, random_images, vit_features, vit_weights
from tests.features.written_layouts import SMALL_VIT, dinov2_weights, prefixed


class Blocks:
    """Block ``k`` gives ``k`` everywhere; it counts its forward passes."""

    patch_size, image_size, mean, std = 8, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, depth: int | None) -> None:
        self.calls = 0
        if depth is not None:
            self.depth = depth

    def features(self, images: Tensor, layers: Any = (-1,)) -> Features:
        self.calls += 1
        grids = [torch.full((len(images), 5, 2, 2), layer % 4) for layer in layers]
        return Features(tuple(grid.float() for grid in grids), torch.zeros(len(images), 5))


PIXELS = torch.zeros(6, 3, 16, 16)


def test_all_layers_come_from_one_forward_pass() -> None:
    backbone = Blocks(4)
    found = extract(backbone, PIXELS, layers="all", device="cpu")
    assert found.layers == (-4, -3, -2, -1)
    assert [float(patches.unique()) for patches in found.patches] == [0, 1, 2, 3]
    assert backbone.calls == 1


@pytest.mark.parametrize(
    ("layers", "depth", "sentence"),
    [
        ("all", None, "layers all is not possible: this backbone does not say how many blocks"),
        ((-1, 4), 4, r"layer 4 does not exist: this backbone has 4 \(0 to 3, or -1 to -4\)"),
        ((-5,), 4, "layer -5 does not exist"),
        ((-1, 3), 4, "layers -1 and 3 are the same block: this backbone has 4; name it once"),
    ],
)
def test_layers_that_cannot_be_are_refused_before_the_forward_pass(
    layers: Any, depth: int | None, sentence: str
) -> None:
    backbone = Blocks(depth)
    with pytest.raises(OptionError, match=sentence):
        extract(backbone, PIXELS, layers=layers, device="cpu")
    assert backbone.calls == 0


def test_layers_are_numbers_of_blocks() -> None:
    assert [block_of(layer, 4) for layer in (0, 3, -1, -4)] == [0, 3, 3, 0]
    assert resolve_layers((5,), None) == (5,)
    assert sorted_layers([-1, 0, -3], 4) == (0, -3, -1)


def test_features_that_do_not_fit_in_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "available_bytes", lambda: 1000)
    sentence = (
        r"the patch features of 4 layers of 6 images take 0\.0 GB and 0\.0 GB of memory are free: "
        r"name fewer layers \(--layers\) or take fewer images \(--images-count\)"
    )
    with pytest.raises(InputError, match=sentence):
        extract(Blocks(4), PIXELS, layers="all", device="cpu")
    extract(Blocks(4), PIXELS, layers=(-1,), device="cpu")  # 480 bytes


def test_memory_that_is_free_is_known_on_linux() -> None:
    free = extraction.available_bytes()
    assert free is None or 1 << 24 < free < 1 << 50


@pytest.mark.parametrize("registers", [0, 4])
def test_a_row_strips_class_token_and_registers_at_every_block(
    registers: int, tmp_path: Path, generator: torch.Generator
) -> None:
    weights = dinov2_weights(generator, registers=registers, swiglu=False)
    torch.save(weights, tmp_path / "dinov2.pth")
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    spec = BackboneSpec("dinov2-release", name, dict(SMALL_VIT))
    backbone = load_backbone(tmp_path / "dinov2.pth", spec).backbone
    images = random_images(generator)
    found = backbone.features(images, resolve_layers("all", DEPTH))
    expected = vit_features(weights, images, layers=range(DEPTH))
    assert len(found.patches) == DEPTH == len(expected.patches)
    for ours, theirs in zip(found.patches, expected.patches, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.image, expected.image, rtol=1e-4, atol=1e-4)


def test_every_block_of_a_dino_file(tmp_path: Path, generator: torch.Generator) -> None:
    weights = vit_weights(generator)
    torch.save({"teacher": prefixed("backbone.", weights)}, tmp_path / "checkpoint0001.pth")
    spec = BackboneSpec("dino", architecture_options=SMALL_VIT)
    backbone = load_backbone(tmp_path / "checkpoint0001.pth", spec).backbone
    images = random_images(generator)
    found = backbone.features(images, (0, 1))
    expected = vit_features(weights, images, layers=(0, 1))
    for ours, theirs in zip(found.patches, expected.patches, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_transformers_registers_are_stripped_at_every_block(generator: torch.Generator) -> None:
    transformers = pytest.importorskip("transformers")
    from densescope.features.transformers_backbone import TransformersBackbone

    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        num_register_tokens=3,
    )
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = transformers.Dinov2WithRegistersModel(config).eval()
    nn.init.normal_(model.embeddings.register_tokens, std=5.0, generator=generator)
    backbone = TransformersBackbone(model, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = random_images(generator)
    with torch.no_grad():
        found = backbone.features(images, resolve_layers("all", backbone.depth))
        states = model(images, output_hidden_states=True).hidden_states[1:]
        expected = [model.layernorm(state)[:, 1 + 3 :] for state in states]
    assert len(found.patches) == 3
    for grid, tokens in zip(found.patches, expected, strict=True):
        torch.testing.assert_close(grid.flatten(2).mT, tokens)
