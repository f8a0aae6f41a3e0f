"""``--format auto``: the features that come out are those of the network, or the user is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.architectures import parse_architecture_options
from densescope.features.backbones import load_backbone
from densescope.features.checking import check_checkpoint
from densescope.features.detection import resolve_spec
from densescope.features.formats import FORMATS
from densescope.features.spec import BackboneSpec
from tests.features.plain_models import (
    RESNET_OPTIONS,
    perturb,
    random_images,
    resnet_weights,
    vit_features,
    vit_weights,
)
from tests.features.test_shapes import mocov3_positions
from tests.features.written_layouts import LAYOUTS, prefixed
from tests.foreign.hints import advised, follow

Weights = dict[str, Tensor]
VIT_S = {"vit_small_patch16_224"}
DEEPER = {"decoder_pred.bias": torch.ones(2), "mask_token": torch.ones(1, 1, 384)}


def other(weights: Weights) -> Weights:
    return {name: value + 1 for name, value in weights.items()}


# name of the file, what it holds of the network that is meant, what it is read as
FILES: dict[str, tuple[Callable[[Weights], Any], str]] = {
    "step_1000.pt": (lambda w: {"model": w, "step": 1000}, "timm"),
    "last.pt": (lambda w: {"state_dict": w}, "timm"),
    "weights.bin": (lambda w: w, "timm"),
    "ddp.pt": (lambda w: {"model": prefixed("module._orig_mod.", w)}, "timm"),
    "checkpoint0003.pth": (
        lambda w: {
            "teacher": prefixed("backbone.", w),
            "student": prefixed("module.backbone.", other(w)),
            "epoch": 4,
        },
        "dino",
    ),
    "dino_deitsmall16_pretrain.pth": (lambda w: w, "dino-release"),
    "checkpoint-40.pth": (lambda w: {"model": {**w, **DEEPER}, "epoch": 40}, "mae"),
    "epoch=3-step=400.ckpt": (lambda w: {"state_dict": prefixed("backbone.", w)}, "lightning"),
    "last.ckpt": (lambda w: {"state_dict": prefixed("model.encoder.", w)}, "lightning"),
    "checkpoint_0003.pth.tar": (
        lambda w: {
            "state_dict": {
                **prefixed("module.base_encoder.", other(w)),
                **prefixed("module.momentum_encoder.", w),
            }
        },
        "mocov3",
    ),
}


@pytest.fixture
def weights(generator: torch.Generator) -> Weights:
    """Of a ViT-S of two blocks."""
    return vit_weights(generator, dim=384, patch=16)


def written(folder: Path, name: str, weights: Weights) -> Path:
    torch.save(FILES[name][0](weights), folder / name)
    return folder / name


def assert_features(backbone: Any, weights: Weights, heads: int) -> None:
    images = random_images(torch.Generator().manual_seed(5))
    found = backbone.features(images).patches[0]
    expected = vit_features(weights, images, heads=heads).patches[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_users_own_works_at_the_first_try(
    name: str, tmp_path: Path, weights: Weights
) -> None:
    path = written(tmp_path, name, weights)
    loaded = load_backbone(path, BackboneSpec())
    assert loaded.format == FILES[name][1]
    assert_features(loaded.backbone, weights, 12 if loaded.format == "mocov3" else 6)
    report = check_checkpoint(path, BackboneSpec())
    assert f"format auto: read as {loaded.format}" in report.message
    assert "architecture vit_small_patch16_224" in report.message


def test_a_safetensors_file_works_at_the_first_try(tmp_path: Path, weights: Weights) -> None:
    save_file(weights, tmp_path / "model.safetensors")
    assert_features(
        load_backbone(tmp_path / "model.safetensors", BackboneSpec()).backbone, weights, 6
    )


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_layout_is_read_as_with_its_own_format(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    """With the options of a small network given, the format alone is left open."""
    made = LAYOUTS[name](tmp_path, generator)
    architecture = made.architecture or FORMATS[name].architecture
    spec = BackboneSpec(architecture=architecture, architecture_options=made.options or {})
    own = load_backbone(made.path, replace(spec, format=name)).backbone
    found = load_backbone(made.path, spec).backbone
    images = random_images(generator, own.image_size)
    assert torch.equal(found.features(images).patches[0], own.features(images).patches[0])
    assert (found.mean, found.std) == (own.mean, own.std)


def test_rows_that_differ_in_heads_are_named_and_each_way_does_what_it_says(
    tmp_path: Path, weights: Weights
) -> None:
    weights["pos_embed"] = mocov3_positions(2, 384)
    torch.save({"model": weights}, tmp_path / "deit.pth")
    with pytest.raises(CheckpointError, match="2 ways that give different features") as caught:
        load_backbone(tmp_path / "deit.pth", BackboneSpec())
    ways = str(caught.value).split("say which it is: ")[1].split("; ")
    for way, format, heads in zip(ways, ("mocov3-release", "timm"), (12, 6), strict=True):
        assert f"heads {heads}," in way
        (settings,) = advised(way)
        assert settings["format"] == format
        assert_features(
            load_backbone(tmp_path / "deit.pth", BackboneSpec(**settings)).backbone, weights, heads
        )


def test_a_base_model_converted_from_mocov3_has_the_same_heads_everywhere(
    tmp_path: Path, generator: torch.Generator
) -> None:
    weights = vit_weights(generator, dim=768, patch=16)
    weights["pos_embed"] = mocov3_positions(2, 768)
    torch.save({"model": weights}, tmp_path / "deit.pth")
    assert_features(load_backbone(tmp_path / "deit.pth", BackboneSpec()).backbone, weights, 12)


def test_several_networks_of_one_file_are_named(tmp_path: Path, weights: Weights) -> None:
    both = {**prefixed("student.vit.", other(weights)), **prefixed("teacher.vit.", weights)}
    torch.save({"state_dict": both}, tmp_path / "two.ckpt")
    with pytest.raises(CheckpointError, match=r"teacher\.vit\..*--weights student\.vit\."):
        load_backbone(tmp_path / "two.ckpt", BackboneSpec())
    asked = load_backbone(tmp_path / "two.ckpt", BackboneSpec(weights="teacher.vit."))
    assert_features(asked.backbone, weights, 6)


def test_a_part_that_only_one_code_writes_tells_its_normalization(
    tmp_path: Path, generator: torch.Generator
) -> None:
    model = prefixed("module.backbone.", resnet_weights(generator))
    spec = BackboneSpec(architecture="resnet18", architecture_options=RESNET_OPTIONS)
    torch.save({"model": model}, tmp_path / "model.pth")
    assert resolve_spec(tmp_path / "model.pth", spec).spec.format == "vicreg"
    classifier = {"module.classifier.weight": torch.ones(2, 2)}
    torch.save({"model": {**model, **classifier}}, tmp_path / "model.pth")
    assert resolve_spec(tmp_path / "model.pth", spec).spec.format == "vicregl"


def test_a_width_of_ones_own_is_told_what_is_missing(
    tmp_path: Path, generator: torch.Generator
) -> None:
    weights = vit_weights(generator)
    torch.save({"model": weights}, tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match="num_heads=N, N being the heads") as caught:
        load_backbone(tmp_path / "small.pth", BackboneSpec())
    given = str(caught.value).split("--architecture-option ")[1].split(", N being")[0]
    options = parse_architecture_options([given.replace("=N", "=4")])
    spec = BackboneSpec("timm", "vit_small_patch16_224", options)
    assert_features(load_backbone(tmp_path / "small.pth", spec).backbone, weights, 4)


@pytest.mark.parametrize("named", [None, "vit_tiny_patch16_224", "resnet18"])
def test_a_width_of_ones_own_behind_a_prefix_is_told_the_whole_command(
    named: str | None, tmp_path: Path, generator: torch.Generator
) -> None:
    weights = vit_weights(generator)
    torch.save({"net": prefixed("encoder.", weights), "opt": {}, "it": 3}, tmp_path / "own.pt")
    with pytest.raises(CheckpointError, match=r"num_heads=N, N being") as caught:
        load_backbone(tmp_path / "own.pt", BackboneSpec(architecture=named))
    assert "NAME" not in str(caught.value)
    (way,) = advised(str(caught.value))
    assert way["weights"] == "net.encoder."
    assert way["architecture"] == (
        named if named == "vit_tiny_patch16_224" else "vit_small_patch16_224"
    )
    way["architecture_options"]["num_heads"] = 4
    assert_features(load_backbone(tmp_path / "own.pt", BackboneSpec(**way)).backbone, weights, 4)


def test_a_wrong_architecture_behind_a_prefix_is_told_the_right_one(
    tmp_path: Path, weights: Weights
) -> None:
    torch.save({"net": prefixed("encoder.", weights)}, tmp_path / "own.pt")
    spec = BackboneSpec(architecture="vit_tiny_patch16_224")
    with pytest.raises(CheckpointError, match="does not fill vit_tiny_patch16_224. By its") as seen:
        load_backbone(tmp_path / "own.pt", spec)
    (way,) = advised(str(seen.value))
    assert_features(load_backbone(tmp_path / "own.pt", BackboneSpec(**way)).backbone, weights, 6)


OWN: dict[str, dict[str, Any]] = {
    "timm's test_vit": {"mlp_ratio": 3},
    "a hidden width that is no multiple": {"mlp_ratio": 2.7},
    "no bias of queries": {"qkv_bias": False},
    "no class token": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "layer scale": {"init_values": 0.1},
    "registers": {"reg_tokens": 4},
    "positions of patches alone": {"reg_tokens": 3, "no_embed_class": True},
    "normalized queries, a norm in front": {"qk_norm": True, "pre_norm": True},
}


@pytest.mark.parametrize("name", OWN)
def test_all_that_shapes_show_is_in_the_advice(
    name: str, tmp_path: Path, generator: torch.Generator
) -> None:
    size = {"embed_dim": 64, "depth": 2, "patch_size": 8, "img_size": 32, "num_heads": 4}
    model = timm.create_model("vit_small_patch16_224", num_classes=0, **size, **OWN[name]).eval()
    perturb(model, generator)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    with pytest.raises(CheckpointError, match="num_heads=N") as caught:
        load_backbone(tmp_path / "own.pt", BackboneSpec())
    (way,) = advised(str(caught.value))
    extra = {key for key in way["architecture_options"] if key not in size}
    assert extra == set(OWN[name]), "no more than what differs from the architecture"
    way["architecture_options"]["num_heads"] = 4
    found = load_backbone(tmp_path / "own.pt", BackboneSpec(**way)).backbone
    images = random_images(generator)
    with torch.no_grad():
        tokens = model.forward_features(images)[:, -16:]
    torch.testing.assert_close(found.features(images).patches[0].flatten(2).mT, tokens)
    incomplete = replace(BackboneSpec(**way), architecture_options=size)
    with pytest.raises(CheckpointError, match="does not fill vit_small_patch16_224") as again:
        load_backbone(tmp_path / "own.pt", incomplete)
    (way,) = advised(str(again.value))
    completed = replace(incomplete, architecture_options=way["architecture_options"])
    found = load_backbone(tmp_path / "own.pt", completed).backbone
    torch.testing.assert_close(found.features(images).patches[0].flatten(2).mT, tokens)


def test_formats_that_would_fit_give_the_features_that_auto_gives(
    tmp_path: Path, weights: Weights
) -> None:
    torch.save({"model": weights}, tmp_path / "step_1000.pt")
    with pytest.raises(CheckpointError) as caught:
        load_backbone(tmp_path / "step_1000.pt", BackboneSpec("dino"))
    assert str(caught.value).endswith(
        "--format auto reads it as timm with vit_small_patch16_224. "
        "Formats that would fit: timm, mae, mae-release"
    )
    ways = advised(str(caught.value))
    assert [way["format"] for way in ways] == ["auto", "timm", "mae", "mae-release"]
    options = {"img_size": 32, "depth": 2}
    for way in range(len(ways)):
        followed = follow(tmp_path / "step_1000.pt", {"format": "dino"}, way=way)
        assert_features(followed.loaded.backbone, weights, 6)
    asked = BackboneSpec("mocov3-release", architecture_options=options)
    assert check_checkpoint(tmp_path / "step_1000.pt", asked).text.endswith(
        "--format auto reads it as timm with vit_small_patch16_224. Formats whose layout fits this "
        "file: timm, mae, mae-release; mocov3-release would read it with heads 12: only for a file "
        f"of {FORMATS['mocov3-release'].title}"
    )


def test_formats_of_which_auto_takes_none_are_told_apart(tmp_path: Path, weights: Weights) -> None:
    weights["pos_embed"] = mocov3_positions(2, 384)
    torch.save({"model": weights}, tmp_path / "deit.pth")
    text = check_checkpoint(tmp_path / "deit.pth", BackboneSpec("dino")).text
    assert "auto reads" not in text
    assert "fit: timm, mae, mae-release; mocov3-release would read it with heads 12: only" in text


def test_a_format_with_images_of_its_own_is_told_apart(
    tmp_path: Path, generator: torch.Generator
) -> None:
    options = RESNET_OPTIONS
    torch.save(resnet_weights(generator), tmp_path / "own.pth")
    spec = BackboneSpec("dino", "resnet18", options)
    text = check_checkpoint(tmp_path / "own.pth", spec).text
    alike, *apart = text.split("would fit: ")[1].split("; ")
    auto = load_backbone(tmp_path / "own.pth", replace(spec, format="auto")).backbone
    for name in alike.split(", "):
        found = load_backbone(tmp_path / "own.pth", replace(spec, format=name)).backbone
        assert (found.mean, found.std) == (auto.mean, auto.std)
    (other,) = apart
    assert other.startswith("vicregl-release would read it with images by 0.485,0.456,0.406/0.228,")


def test_timm_without_an_architecture_finds_it(tmp_path: Path, weights: Weights) -> None:
    torch.save(weights, tmp_path / "a.pth")
    assert_features(load_backbone(tmp_path / "a.pth", BackboneSpec("timm")).backbone, weights, 6)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"net": {"a": torch.ones(2)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="has the layout of no format"):
        load_backbone(tmp_path / "a.pth", BackboneSpec())
    with pytest.raises(CheckpointError, match="there is no"):
        load_backbone(tmp_path / "absent.pth", BackboneSpec())


def test_what_is_no_file_of_tensors_is_told_by_what_it_is(tmp_path: Path) -> None:
    config = {"model_type": "vit"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert resolve_spec(tmp_path, BackboneSpec()).spec.format == "huggingface"
    assert resolve_spec("timm:vit_small_patch16_224.dino", BackboneSpec()).spec.format == "released"
    assert resolve_spec("hf-hub:timm/some", BackboneSpec()).spec.format == "released"
    spec = BackboneSpec(loader=tmp_path / "loader.py")
    assert resolve_spec(tmp_path / "a.pth", spec).spec.format == "custom"


def test_a_folder_of_timm_is_read_as_the_model_it_names(tmp_path: Path, weights: Weights) -> None:
    save_file(weights, tmp_path / "model.safetensors")
    arguments = {"depth": 2, "img_size": 32, "num_heads": 12}
    config = {"architecture": "vit_small_patch16_224", "model_args": arguments}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_features(load_backbone(tmp_path, BackboneSpec()).backbone, weights, 12)
