"""Released weights come through timm's own loaders, from a cache that the test lays out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor

from densescope.errors import CheckpointError
from densescope.features.backbones import BackboneSpec, load_backbone
from densescope.features.stored import tensors_sha256
from densescope.runs.sweep import score_checkpoint
from tests.tiny_run import SETTINGS, write_images

NAME = "test_vit.r160_in1k"
SPEC = BackboneSpec("released")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a machine without a connection."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def keep(cache: Path, repository: str, files: dict[str, Any]) -> None:
    """Files of a repository where huggingface_hub keeps them."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for name, content in files.items():
        if name.endswith(".json"):
            (snapshot / name).write_text(json.dumps(content))
        else:
            save_file(content, snapshot / name)


def weights() -> tuple[torch.nn.Module, dict[str, Tensor]]:
    torch.manual_seed(3)
    model = timm.create_model("test_vit", num_classes=1000)
    return model.eval(), model.state_dict()


def test_a_name_of_timm_is_loaded_from_its_cache(cache: Path) -> None:
    model, tensors = weights()
    keep(cache, f"timm/{NAME}", {"model.safetensors": tensors})
    loaded = load_backbone(f"timm:{NAME}", BackboneSpec())
    assert (loaded.backbone.image_size, loaded.backbone.mean) == (160, (0.5, 0.5, 0.5))
    assert (loaded.format, loaded.architecture) == ("released", NAME)
    backbone = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    assert loaded.sha256 == tensors_sha256(backbone)
    assert loaded.coverage.matched == len(backbone)
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        found, wanted = loaded.backbone.features(images), model.forward_features(images)  # type: ignore[operator]
    assert torch.equal(found.patches[0].flatten(2).transpose(1, 2), wanted[:, 1:])


def test_a_repository_brings_its_own_normalization(cache: Path) -> None:
    _, tensors = weights()
    about = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 160, 160]}
    about |= {"classifier": "head", "num_classes": 1000}
    config = {"architecture": "test_vit", "pretrained_cfg": about}
    keep(cache, "lab/model", {"config.json": config, "model.safetensors": tensors})
    loaded = load_backbone("hf-hub:lab/model", BackboneSpec("released", image_size=96))
    assert (loaded.backbone.mean, loaded.backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert loaded.coverage.positions == (160, 96)
    assert loaded.architecture == "test_vit"


def test_loading_leaves_the_global_generator_alone(cache: Path) -> None:
    keep(cache, f"timm/{NAME}", {"model.safetensors": weights()[1]})
    before = torch.get_rng_state()
    load_backbone(f"timm:{NAME}", SPEC)
    assert torch.equal(torch.get_rng_state(), before)


def test_pickled_weights_run_nothing(cache: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "marker",))

    config = {"architecture": "test_vit", "pretrained_cfg": {"hf_hub_filename": "w.bin"}}
    keep(cache, "lab/model", {"config.json": config})
    snapshot = next(cache.rglob("config.json")).parent
    torch.save({**weights()[1], "extra": Hostile()}, snapshot / "w.bin")
    with pytest.raises(CheckpointError, match="timm cannot load hf-hub:lab/model"):
        load_backbone("hf-hub:lab/model", SPEC)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("location", [f"timm:{NAME}", "hf-hub:lab/model"])
def test_without_cache_and_connection_the_cure_is_named(location: str, cache: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"is not in the cache .*hub.* pretrained=True.*set HF_HOME"
    ) as caught:
        load_backbone(location, SPEC)
    assert str(cache) in str(caught.value)


@pytest.mark.parametrize(
    ("location", "spec", "sentence"),
    [
        ("timm:vit_tny_patch16_224", SPEC, "has no model of .*did you mean .*timm:vit_tiny"),
        ("timm:coatnet_0_224", SPEC, "has no released weights of the name 'coatnet_0_224'"),
        (
            f"timm:{NAME}",
            BackboneSpec("dino"),
            "is a released model, not a file of format dino: leave --format out",
        ),
        ("file.pth", SPEC, "file.pth is not a released model: .*timm:NAME or hf-hub:ORG/NAME"),
        (f"timm:{NAME}", BackboneSpec("released", weights="teacher"), "takes neither"),
        (f"timm:{NAME}", BackboneSpec("released", architecture="resnet50"), "takes no architec"),
    ],
)
def test_a_wrong_request_is_one_sentence(location: str, spec: BackboneSpec, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        load_backbone(location, spec)


def test_a_released_model_is_scored(cache: Path, tmp_path: Path) -> None:
    from densescope.metrics import ScoreSettings

    keep(cache, f"timm/{NAME}", {"model.safetensors": weights()[1]})
    record = score_checkpoint(
        f"timm:{NAME}",
        SPEC,
        images=write_images(tmp_path / "images"),
        settings=ScoreSettings(**SETTINGS),
    )
    assert (record.name, record.status) == (f"timm:{NAME}", "scored")
    assert record.checkpoint["hashed"] == "tensors"
