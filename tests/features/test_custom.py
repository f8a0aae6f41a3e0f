"""A user's own model is run because the user named it, and checked before it is trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densescope.errors import CheckpointError
from densescope.features.backbones import load_backbone
from densescope.features.spec import BackboneSpec

GOOD = """
import torch
from densescope.features.backbones import Features

class Mine(torch.nn.Module):
    patch_size, mean, std, image_size = 4, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 16
    def __init__(self, path, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.load(path, weights_only=True)["w"])
        self.width = width
    def features(self, images, layers=(-1,)):
        grid = torch.nn.functional.avg_pool2d(images, 4) * self.weight
        return Features(tuple(grid for _ in layers), grid.mean((2, 3)))

def load_backbone(path, width=1, **options):
    return Mine(path, width)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"w": torch.tensor(2.0)}, tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def loader(tmp_path: Path, text: str) -> Path:
    (tmp_path / "loader.py").write_text(text)
    return tmp_path / "loader.py"


def test_a_good_loader(tmp_path: Path, checkpoint: Path) -> None:
    loaded = load_backbone(
        checkpoint,
        BackboneSpec(
            format="custom",
            loader=loader(tmp_path, GOOD),
            architecture_options={"width": 3},
            weights="teacher",
        ),
    )
    backbone = loaded.backbone
    assert isinstance(backbone, torch.nn.Module)
    assert not backbone.training
    assert not backbone.weight.requires_grad
    assert torch.equal(backbone.features(torch.ones(1, 3, 16, 16)).image, torch.full((1, 3), 2.0))
    assert loaded.options == {"width": 3, "weights": "teacher"}
    assert loaded.architecture.startswith("loader.py sha256 ")
    assert loaded.coverage.matched == 1


BAD = {
    "no function": ("x = 1", r"has no function load_backbone\(path, \*\*options\)"),
    "cannot be imported": ("import nothing_like_this", "cannot be imported: ModuleNotFoundError"),
    "syntax": ("def (", "cannot be imported: SyntaxError"),
    "fails": (
        "def load_backbone(path, **options):\n    raise ValueError('no such layer')",
        r"failed on .*mine\.pth: ValueError: no such layer \(loader\.py, line 2\)",
    ),
    "returns nothing": (
        "def load_backbone(path, **options):\n    return None",
        "returned a NoneType without features, patch_size, mean, std, image_size",
    ),
    "no features": (GOOD.replace("def features", "def other"), "returned a Mine without features"),
    "mean and std": (GOOD.replace("(0.2, 0.2, 0.2)", "(0.2,)"), "mean and std of the same length"),
    "patch size": (GOOD.replace("image_size = 4,", "image_size = 2,"), r"\(2, dim, 8, 8\) was exp"),
    "tokens": (
        GOOD.replace("tuple(grid for _ in layers)", "(grid.flatten(2),)"),
        r"gave patches \[\(2, 3, 16\)\]",
    ),
    "image": (GOOD.replace("grid.mean((2, 3))", "grid"), r"image vector \(2, 3, 4, 4\)"),
    "not features": (GOOD.replace("return Features(", "return ("), "must return Features"),
    "crashes": (GOOD.replace("avg_pool2d(images, 4)", "nothing(images)"), "AttributeError"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_loader_is_one_sentence(name: str, tmp_path: Path, checkpoint: Path) -> None:
    text, sentence = BAD[name]
    with pytest.raises(CheckpointError, match=sentence):
        load_backbone(checkpoint, BackboneSpec(format="custom", loader=loader(tmp_path, text)))


def test_the_loader_and_the_checkpoint_must_exist(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="format=custom needs a loader"):
        load_backbone(checkpoint, BackboneSpec(format="custom"))
    for name in ("absent.py", "a" * 300 + ".py"):
        with pytest.raises(CheckpointError, match="there is no loader file .*check the path") as no:
            load_backbone(checkpoint, BackboneSpec(format="custom", loader=tmp_path / name))
        assert no.value.is_of_option
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        load_backbone(
            tmp_path / "absent", BackboneSpec(format="custom", loader=loader(tmp_path, GOOD))
        )
