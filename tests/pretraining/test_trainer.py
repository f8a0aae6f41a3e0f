"""Pretraining: repeatable, learning, and leaving files as DINO's own code would."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.evaluation.scenes import make_scenes
from densescope.pretraining.learners.dino import SMALL_DINO, DinoRecipe
from densescope.pretraining.resume import KEY, write_checkpoint
from densescope.pretraining.settings import BackboneSettings, PretrainSettings
from densescope.pretraining.trainer import Progress, pretrain

pytest.importorskip("lightly")
pytest.importorskip("pytorch_lightning")

RECIPE = replace(
    SMALL_DINO,
    local_count=2,
    local_size=8,
    warmup=0.3,
    frozen_head=0.43,
    head_dim=32,
    head_bottleneck=16,
    head_batch_norm=False,
    prototypes=24,
)
VIT = BackboneSettings(
    options={"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}, image_size=16
)
TINY = PretrainSettings(
    recipe=RECIPE, steps=7, batch_size=8, checkpoint_every=3, backbone=VIT, device="cpu"
)


def with_recipe(settings: PretrainSettings = TINY, **changes: Any) -> PretrainSettings:
    assert isinstance(settings.recipe, DinoRecipe)
    return replace(settings, recipe=replace(settings.recipe, **changes))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return make_scenes(64, size=16, seed=0).images


def load(path: Path) -> dict[str, Any]:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def run(images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return pretrain(TINY, images, tmp_path_factory.mktemp("run"))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    run: tuple[Path, ...], images: Tensor, tmp_path: Path
) -> None:
    torch.rand(3)  # the caller's own chance must not matter
    again = pretrain(TINY, images, tmp_path / "again")
    other = pretrain(replace(TINY, seed=1), images, tmp_path / "other")
    for part in ("student", "teacher"):
        assert same(load(run[-1])[part], load(again[-1])[part])
        assert not same(load(run[-1])[part], load(other[-1])[part])


def test_global_random_states_are_left_as_they_were(images: Tensor, tmp_path: Path) -> None:
    def states() -> tuple[object, ...]:
        numpy_state = np.random.get_state()  # noqa: NPY002
        return torch.random.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist()

    before = states()
    levels = logging.getLogger("pytorch_lightning").level
    pretrain(replace(TINY, steps=3), images, tmp_path)
    assert states() == before
    assert logging.getLogger("pytorch_lightning").level == levels


def test_files_have_the_layout_of_dino(run: tuple[Path, ...]) -> None:
    assert [path.name for path in run] == [f"checkpoint{e:04d}.pth" for e in range(3)]
    content = load(run[1])
    assert set(content) == {"student", "teacher", "optimizer", "epoch", "args", "dino_loss", KEY}
    assert content["epoch"] == 2
    assert content["args"].arch == "vit_tiny_patch16_224"
    assert content["args"].patch_size == 8
    assert content["dino_loss"]["center"].shape == (1, 24)
    teacher = content["teacher"]
    assert set(content["student"]) == {f"module.{key}" for key in teacher}
    head = {key for key in teacher if not key.startswith("backbone.")}
    linear = {f"head.mlp.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")}
    assert head == linear | {"head.last_layer.weight_g", "head.last_layer.weight_v"}


def test_with_batch_norm_in_the_head_the_teacher_is_wrapped_too(
    images: Tensor, tmp_path: Path
) -> None:
    settings = with_recipe(replace(TINY, steps=3), head_batch_norm=True)
    content = load(pretrain(settings, images, tmp_path)[-1])
    assert set(content["student"]) == set(content["teacher"])
    assert all(key.startswith("module.") for key in content["teacher"])
    assert "module.head.mlp.1.running_mean" in content["teacher"]


def test_the_loss_falls(tmp_path: Path) -> None:
    shape = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    settings = PretrainSettings(
        steps=40,
        batch_size=16,
        checkpoint_every=10,
        backbone=BackboneSettings(options=shape, image_size=32),
        recipe=replace(
            SMALL_DINO, local_count=0, head_dim=64, head_bottleneck=32, prototypes=64, warmup=0.5
        ),
        device="cpu",
    )
    losses: list[float] = []
    scenes = make_scenes(128, size=32, seed=0).images
    pretrain(settings, scenes, tmp_path, lambda progress: losses.append(progress.loss))
    assert sum(losses[-5:]) / 5 < 0.9 * sum(losses[:5]) / 5


@pytest.mark.parametrize("part", ["teacher", "student"])
def test_the_backbone_loads_strictly_into_timm(run: tuple[Path, ...], part: str) -> None:
    import timm

    prefix = "backbone." if part == "teacher" else "module.backbone."
    state = {
        key.removeprefix(prefix): value
        for key, value in load(run[-1])[part].items()
        if key.startswith(prefix)
    }
    shape = TINY.backbone
    model = timm.create_model(shape.architecture, num_classes=0, **shape.loader_options)
    model.load_state_dict(state, strict=True)
    assert model.forward_features(torch.zeros(1, 3, 16, 16)).shape == (1, 5, 16)


def test_the_log_has_a_line_per_checkpoint(run: tuple[Path, ...]) -> None:
    lines = [json.loads(line) for line in (run[0].parent / "log.txt").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["step"] for line in lines] == [3, 6, 7]
    assert all(0 < line["train_loss"] < 10 for line in lines)
    assert not list(run[0].parent.glob(".*"))


def test_teacher_follows_and_the_last_layer_waits(
    run: tuple[Path, ...], images: Tensor, tmp_path: Path
) -> None:
    first, later = load(run[0]), load(run[1])
    last = "head.last_layer.weight_v"
    torch.testing.assert_close(first["student"][f"module.{last}"], first["teacher"][last])
    assert not torch.equal(later["student"][f"module.{last}"], first["student"][f"module.{last}"])
    key = "backbone.blocks.0.attn.qkv.weight"
    moved = {
        part: (later[part][name] - first[part][name]).norm()
        for part, name in (("teacher", key), ("student", f"module.{key}"))
    }
    assert 0 < moved["teacher"] < moved["student"]
    stays = pretrain(with_recipe(teacher_momentum=(1.0, 1.0)), images, tmp_path)
    assert same(load(stays[0])["teacher"], load(stays[-1])["teacher"])


def test_progress_is_told_after_every_step(images: Tensor, tmp_path: Path) -> None:
    reports: list[Progress] = []
    paths = pretrain(with_recipe(local_count=0), images, tmp_path, reports.append)
    assert [report.step for report in reports] == list(range(1, 8))
    assert tuple(report.checkpoint for report in reports if report.checkpoint) == paths
    assert all(report.images_per_second > 0 and report.steps == 7 for report in reports)


def test_a_loss_that_is_not_finite_is_a_sentence(images: Tensor, tmp_path: Path) -> None:
    settings = replace(TINY, std=(0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="the loss is nan at step 1: lower the learning rate"):
        pretrain(settings, images, tmp_path)


def test_nothing_is_warned_about(images: Tensor, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pretrain(replace(TINY, steps=3), images, tmp_path)
    assert [str(warning.message) for warning in seen] == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x.float(), r"of torch.float32: expected uint8 images x 3 x 16 x 16"),
        (lambda x: x[:, :, :8], r"images are \(64, 3, 8, 16\)"),
        (lambda x: x[:5], "5 images do not fill a batch of 8"),
    ],
)
def test_images_that_do_not_fit(images: Tensor, tmp_path: Path, change: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        pretrain(TINY, change(images), tmp_path)


def test_a_folder_with_checkpoints_is_left_alone(run: tuple[Path, ...], images: Tensor) -> None:
    before = run[0].read_bytes()
    with pytest.raises(InputError, match="already holds checkpoints: choose an empty folder"):
        pretrain(TINY, images, run[0].parent)
    assert run[0].read_bytes() == before


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint0000.pth"
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint({"a": lambda: None}, path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_sentence_names_it(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    monkeypatch.delitem(sys.modules, "densescope.pretraining.loop", raising=False)
    with pytest.raises(InputError, match="needs pytorch_lightning: pip install lightly pytorch-l"):
        pretrain(TINY, images, tmp_path)
