"""Loading is strict, resizing is reported, and one forward pass gives patches and image vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densescope.errors import CheckpointError, InputError
from densescope.features.architectures import parse_architecture_options
from densescope.features.backbones import Backbone, load_backbone
from densescope.features.loaded import LoadedBackbone
from densescope.features.spec import BackboneSpec
from densescope.features.stored import tensors_sha256
from tests.features.plain_models import (
    DIM,
    RESNET_OPTIONS,
    SWIN_OPTIONS,
    random_images,
    resnet_weights,
    swin_features,
    swin_weights,
    vit_features,
    vit_weights,
)
from tests.features.written_layouts import SMALL_VIT, prefixed
from tests.foreign.hints import advised


@pytest.fixture
def weights(generator: torch.Generator) -> dict[str, Tensor]:
    return vit_weights(generator)


@pytest.fixture
def file(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    path = tmp_path / "checkpoint0003.pth"
    torch.save({"teacher": prefixed("backbone.", weights), "epoch": 4}, path)
    return path


def load(path: Path, **changes: Any) -> LoadedBackbone:
    arguments = {"format": "dino", "architecture_options": SMALL_VIT, **changes}
    return load_backbone(path, BackboneSpec(**arguments))


def test_a_loaded_backbone_is_frozen_and_in_evaluation_mode(file: Path) -> None:
    loaded = load(file)
    backbone = loaded.backbone
    assert isinstance(backbone, Backbone)
    assert isinstance(backbone, nn.Module)
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_ssl_rows_normalize_as_they_were_trained_not_as_timm_says(file: Path) -> None:
    backbone = load(file).backbone
    assert backbone.mean == (0.485, 0.456, 0.406)
    assert backbone.std == (0.229, 0.224, 0.225)
    assert (backbone.patch_size, backbone.image_size) == (8, 32)


def test_the_timm_row_asks_for_an_architecture(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match="its shapes: give --format timm --architecture vit_"
    ) as caught:
        load(tmp_path / "a.pth", format="timm")
    (way,) = advised(str(caught.value))
    images = random_images(torch.Generator().manual_seed(5))
    found = load(tmp_path / "a.pth", **way).backbone.features(images)
    expected = vit_features(weights, images, heads=4)
    torch.testing.assert_close(found.patches[0], expected.patches[0], rtol=1e-3, atol=1e-3)


def test_provenance_is_plain(file: Path) -> None:
    import json

    document = load(file).to_json()
    assert json.loads(json.dumps(document)) is not None
    state = load(file).backbone.model.state_dict()  # type: ignore[attr-defined]
    assert (document["sha256"], document["hashed"]) == (tensors_sha256(state), "tensors")
    assert document["bytes"] == file.stat().st_size
    assert document["options"]["num_heads"] == 4
    assert document["coverage"]["prefix"] == "backbone."


def test_layers_come_back_in_the_order_asked(
    file: Path, weights: dict[str, Tensor], generator: torch.Generator
) -> None:
    images = random_images(generator)
    backbone = load(file).backbone
    last, first, again = backbone.features(images, (-1, 0, 1)).patches
    assert torch.equal(last, again)
    assert not torch.allclose(last, first)
    torch.testing.assert_close(last, vit_features(weights, images).patches[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(backbone.features(images, (-2,)).patches[0], first)
    assert torch.equal(backbone.features(images, (0,)).image, backbone.features(images).image)


@pytest.mark.parametrize("layer", [2, -3])
def test_a_layer_that_does_not_exist_is_refused(
    layer: int, file: Path, generator: torch.Generator
) -> None:
    with pytest.raises(InputError, match=rf"layer {layer} does not exist: this backbone has 2"):
        load(file).backbone.features(random_images(generator), (layer,))


def test_one_forward_pass_serves_all(file: Path, generator: torch.Generator) -> None:
    backbone: Any = load(file).backbone
    calls = []
    backbone.model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    backbone.features(random_images(generator), (0, -1))
    assert calls == [1]


def test_positions_are_resampled_and_reported(
    file: Path, weights: dict[str, Tensor], generator: torch.Generator
) -> None:
    loaded = load(file, image_size=48)
    assert loaded.coverage.positions == (32, 48)
    assert loaded.backbone.image_size == 48
    grid = weights["pos_embed"][:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    larger = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True).flatten(2)
    resized = {**weights, "pos_embed": torch.cat([weights["pos_embed"][:, :1], larger.mT], 1)}
    images = random_images(generator, 48)
    found, expected = loaded.backbone.features(images), vit_features(resized, images)
    torch.testing.assert_close(found.patches[0], expected.patches[0], rtol=1e-4, atol=1e-4)


def test_the_training_size_needs_no_resampling(file: Path) -> None:
    assert load(file, image_size=32).coverage.positions is None


def test_a_size_the_patches_do_not_divide_is_refused(file: Path) -> None:
    with pytest.raises(CheckpointError, match="its cells have 8 pixels, take 24 or 32"):
        load(file, image_size=30)


def test_swin_is_evaluated_at_another_size(tmp_path: Path, generator: torch.Generator) -> None:
    path = tmp_path / "a.pth"
    weights = swin_weights(generator)
    torch.save({"teacher": weights}, path)
    options = dict(SWIN_OPTIONS)
    loaded = load_backbone(
        path, BackboneSpec(format="esvit", architecture_options=options, image_size=128)
    )
    assert loaded.coverage.positions is None
    assert loaded.backbone.patch_size == 8
    images = random_images(generator, 128)
    found, expected = loaded.backbone.features(images), swin_features(weights, images)
    assert found.patches[0].shape == (2, 48, 16, 16)
    torch.testing.assert_close(found.patches[0], expected.patches[0], rtol=2e-4, atol=2e-4)


def test_a_resnet_takes_any_size(tmp_path: Path, generator: torch.Generator) -> None:
    path = tmp_path / "a.pth"
    torch.save(resnet_weights(generator), path)
    options = {**RESNET_OPTIONS, "img_size": 96}
    loaded = load_backbone(
        path,
        BackboneSpec(
            format="resnet-release", architecture="resnet18", architecture_options=options
        ),
    )
    assert (loaded.backbone.image_size, loaded.backbone.patch_size) == (96, 32)
    assert loaded.coverage.positions is None
    features = loaded.backbone.features(random_images(generator, 96), (0, -1))
    assert [tuple(grid.shape[2:]) for grid in features.patches] == [(48, 48), (3, 3)]
    torch.testing.assert_close(features.image, features.patches[1].mean((2, 3)))


def broken_file(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    path = tmp_path / "broken.pth"
    torch.save({"teacher": prefixed("backbone.", weights)}, path)
    return path


def test_a_missing_tensor_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    del weights["blocks.1.mlp.fc2.bias"]
    with pytest.raises(CheckpointError, match=r"1 are missing \(blocks\.1\.mlp\.fc2\.bias\)"):
        load(broken_file(tmp_path, weights))


def test_an_unexpected_tensor_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    weights["blocks.1.extra"] = torch.ones(1)
    with pytest.raises(CheckpointError, match=r"1 have no place in it \(blocks\.1\.extra\)"):
        load(broken_file(tmp_path, weights))


def test_a_misshapen_tensor_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    weights["norm.bias"] = torch.ones(3)
    with pytest.raises(CheckpointError, match=r"norm\.bias \(3,\) instead of \(48,\)"):
        load(broken_file(tmp_path, weights))


def test_other_options_are_read_off_the_shapes(file: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(file, architecture_options={})
    assert str(caught.value).endswith(
        "By its shapes the file has embed_dim=48, depth=2, patch_size=8, img_size=32, which no "
        "architecture known here has: give --architecture-option embed_dim=48,depth=2,patch_size=8,"
        "img_size=32,num_heads=N, N being the heads it was trained with, which leave no trace in a "
        "file"
    )
    with pytest.raises(CheckpointError, match="has depth=2, img_size=32,.*=2,num_heads=4$"):
        load(file, architecture_options={**SMALL_VIT, "depth": 3, "img_size": 64})


def test_a_diverged_run_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    weights["norm.bias"][0] = float("nan")
    with pytest.raises(CheckpointError, match=r"NaN or infinite weights \(norm\.bias\): the run"):
        load(broken_file(tmp_path, weights))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "vit_smal_patch16_224"}, "no architecture 'vit_smal_patch16_224'; did"),
        ({"architecture": "zzzz"}, r"timm has no architecture 'zzzz'$"),
        ({"architecture_options": {"oops": 1}}, "has no option 'oops'"),
        ({"architecture_options": {"embed_dim": 50}}, "embed_dim=50: .*divisible"),
        ({"architecture_options": {"pretrained": True}}, "option pretrained is not allowed"),
        ({"architecture_options": {"checkpoint_path": "x"}}, "checkpoint_path is not allowed"),
        ({"format": "timm"}, "there are no tensors at the top of the file, which holds teacher"),
        ({"format": "huggingface"}, "takes neither architecture options nor weights"),
        ({"format": "custom", "architecture": "vit"}, "format=custom takes no architecture"),
        ({"loader": "mine.py"}, "a loader file goes with format=custom, not with format=dino"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    changes: dict[str, Any], sentence: str, file: Path
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        load(file, **changes)


def test_the_counter_inside_is_compared_with_the_name(file: Path) -> None:
    assert load(file).note is None
    assert load(file).epoch_inside == 4
    renamed = file.rename(file.with_name("checkpoint0009.pth"))
    note = load(renamed).note
    assert note is not None
    assert note.startswith("checkpoint0009.pth says epoch 4 inside, its name leads to expect 10")


def test_half_precision_weights_are_computed_in_float32(
    tmp_path: Path, weights: dict[str, Tensor], generator: torch.Generator
) -> None:
    halves = {name: value.half() for name, value in weights.items()}
    backbone = load(broken_file(tmp_path, halves)).backbone
    assert backbone.features(random_images(generator)).patches[0].dtype == torch.float32


def test_lightning_names_its_sub_module(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": prefixed("model.vit.", weights)}, path)
    for name in ("model.vit", "model.vit."):
        loaded = load(path, format="lightning", architecture="vit_small_patch16_224", weights=name)
        assert loaded.coverage.prefix == "model.vit."
    with pytest.raises(CheckpointError, match=r"begins with 'backbone\.'; there are model\.vit\."):
        load(path, format="lightning", architecture="vit_small_patch16_224")


def test_the_demo_architecture_can_be_built_from_text() -> None:
    options = parse_architecture_options(
        ["img_size=64,patch_size=8,embed_dim=128", "depths=(2, 2)", "qkv_bias=false", "act=gelu"]
    )
    assert options == {
        "img_size": 64,
        "patch_size": 8,
        "embed_dim": 128,
        "depths": (2, 2),
        "qkv_bias": False,
        "act": "gelu",
    }
    with pytest.raises(CheckpointError, match="'depth' is not key=value"):
        parse_architecture_options(["depth"])


def test_loading_draws_nothing_from_the_global_generator(file: Path) -> None:
    before = torch.get_rng_state()
    load(file)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_width_is_what_the_options_say(file: Path, generator: torch.Generator) -> None:
    assert load(file).backbone.features(random_images(generator)).image.shape == (2, DIM)


def test_a_prefix_counts_only_at_the_start_of_a_name(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = tmp_path / "a.pth"
    teacher = prefixed("backbone.", weights) | {"ema.backbone.norm.weight": torch.ones(1)}
    torch.save({"teacher": teacher}, path)
    assert load(path).coverage.outside == 1
    torch.save({"teacher": teacher | {"backbone.extra.backbone.w": torch.ones(1)}}, path)
    with pytest.raises(CheckpointError, match=r"no place in it \(extra\.backbone\.w\)"):
        load(path)
