"""Procedural scenes: deterministic, varied, and with much to learn that color does not tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.scenes import (
    NETWORK,
    POOLED,
    RAW,
    Labelled,
    Pretraining,
    labelled_scenes,
    pretrained,
    train_with_labels,
    untrained,
)
from PIL import Image

from densescope.errors import InputError
from densescope.evaluation.scenes import TEXTURES, Scenes, make_scenes, save_scenes


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(128, size=64, seed=0)


def test_shapes_types_and_classes(scenes: Scenes) -> None:
    assert scenes.images.shape == (128, 3, 64, 64)
    assert scenes.labels.shape == (128, 64, 64)
    assert scenes.images.dtype == scenes.labels.dtype == torch.uint8
    assert len(scenes) == 128
    assert scenes.classes == tuple(texture.name for texture in TEXTURES)


def test_the_seed_decides_and_the_global_generator_is_left_alone(scenes: Scenes) -> None:
    before = torch.random.get_rng_state()
    again = make_scenes(128, size=64, seed=0)
    assert torch.equal(again.images, scenes.images)
    assert torch.equal(again.labels, scenes.labels)
    assert not torch.equal(make_scenes(2, size=64, seed=1).images, scenes.images[:2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_fewer_scenes_are_the_first_of_more(scenes: Scenes) -> None:
    fewer = make_scenes(70, size=64, seed=0)
    assert torch.equal(fewer.images, scenes.images[:70])


def test_every_class_occurs_often_and_none_everywhere(scenes: Scenes) -> None:
    for label, name in enumerate(scenes.classes):
        here = scenes.labels == label
        assert here.float().mean() > 0.02, name
        assert here.float().mean() < 0.5, name
        assert here.flatten(1).any(1).float().mean() > 0.25, name


def test_pictures_are_neither_dark_nor_burnt_out(scenes: Scenes) -> None:
    pixels = scenes.images.float()
    assert 80 < pixels.mean() < 175
    assert (pixels == 255).float().mean() < 0.1
    assert pixels.flatten(1).std(1).min() > 5


@pytest.fixture(scope="module")
def data() -> Labelled:
    return labelled_scenes(160, 80)


@pytest.mark.parametrize("name", RAW)
def test_colors_and_places_alone_tell_little(data: Labelled, name: str) -> None:
    assert data.miou(RAW[name](data.scenes.images)) < 40


def test_an_untrained_network_tells_little(data: Labelled) -> None:
    assert data.miou_of(untrained(NETWORK).model) < 35


@pytest.mark.slow
def test_much_can_be_learned_with_labels(data: Labelled) -> None:
    encoder = train_with_labels(make_scenes(1000, size=64, seed=1), steps=250)
    assert data.miou_of(encoder.model) > 70


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "gain"),
    [
        (Pretraining("mae", NETWORK, 150, ("learning_rate=2e-3",)), 8),
        (Pretraining("vicreg", POOLED, 60), 8),
        (Pretraining("mocov3", POOLED, 100), 3),
    ],
    ids=("mae", "vicreg", "mocov3"),
)
def test_a_few_seconds_without_labels_gain_much(
    data: Labelled, run: Pretraining, gain: float
) -> None:
    seen = pretrained(run, make_scenes(1000, size=64, seed=1), data).seen
    assert seen[-1][2] > seen[0][2] + gain


@pytest.mark.parametrize("size", [16, 40, 96])
def test_other_sizes(size: int) -> None:
    assert make_scenes(3, size=size, seed=0).images.shape == (3, 3, size, size)


def test_saved_scenes_come_back(scenes: Scenes, tmp_path: Path) -> None:
    first = Scenes(scenes.images[:3], scenes.labels[:3], scenes.classes)
    save_scenes(first, tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == 6
    image = np.array(Image.open(tmp_path / "images" / "00002.png"))
    mask = np.array(Image.open(tmp_path / "masks" / "00002.png"))
    assert torch.equal(torch.from_numpy(image).permute(2, 0, 1), scenes.images[2])
    assert torch.equal(torch.from_numpy(mask), scenes.labels[2])


@pytest.mark.parametrize(("count", "size"), [(0, 64), (1, 8)])
def test_too_few_or_too_small(count: int, size: int) -> None:
    with pytest.raises(InputError, match=f"cannot draw {count} scenes of {size} pixels"):
        make_scenes(count, size=size, seed=0)
