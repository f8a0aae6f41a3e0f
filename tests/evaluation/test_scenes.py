"""Procedural scenes: deterministic, varied, and not to be solved by color."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densescope.errors import InputError
from densescope.evaluation.scenes import PARTS, Scenes, make_scenes, save_scenes


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(128, size=64, seed=0)


def test_shapes_types_and_classes(scenes: Scenes) -> None:
    assert scenes.images.shape == (128, 3, 64, 64)
    assert scenes.labels.shape == (128, 64, 64)
    assert scenes.images.dtype == scenes.labels.dtype == torch.uint8
    assert len(scenes) == 128
    assert scenes.classes == tuple(part.name for part in PARTS)


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


def test_color_alone_tells_little() -> None:
    """The nearest of 1,500 colored pixels of other scenes, against the most frequent class."""
    scenes = make_scenes(384, size=32, seed=1)
    colors = scenes.images.permute(0, 2, 3, 1).reshape(-1, 3).float()
    labels = scenes.labels.flatten().long()
    chosen = torch.randperm(len(colors), generator=torch.Generator().manual_seed(0))
    known, asked = chosen[:1500], chosen[1500:4500]
    nearest = torch.cdist(colors[asked], colors[known]).topk(15, largest=False).indices
    voted = labels[known][nearest].mode(1).values
    balanced = torch.stack([(voted == c)[labels[asked] == c].float().mean() for c in range(8)])
    assert balanced.mean() < 0.3


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
    with pytest.raises(InputError, match=f"cannot paint {count} scenes of {size} pixels"):
        make_scenes(count, size=size, seed=0)
