"""One rule chooses mean and standard deviation; identical tensors give identical features."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.errors import CheckpointError
from densescope.features.backbones import load_backbone
from densescope.features.formats import FORMATS
from densescope.features.normalization import IMAGENET, Normalization, parse_normalization
from densescope.features.spec import BackboneSpec
from tests.features.plain_models import vit_weights
from tests.features.written_layouts import SMALL_VIT, prefixed

VIT = {"architecture": "vit_small_patch16_224", "architecture_options": SMALL_VIT}
RED_228 = Normalization((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))


@pytest.fixture
def files(tmp_path: Path, generator: torch.Generator) -> dict[str, Path]:
    """The same tensors in the layouts of three formats."""
    weights = vit_weights(generator)
    contents: dict[str, Any] = {
        "timm": weights,
        "lightning": {"state_dict": prefixed("backbone.", weights)},
        "dino": {"teacher": prefixed("backbone.", weights)},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pth")
    return {name: tmp_path / f"{name}.pth" for name in contents}


def loaded(path: Path, format: str, **asked: Any) -> Any:
    return load_backbone(path, BackboneSpec(format, **VIT, **asked))


def seen(backbone: Any) -> torch.Tensor:
    """Features of the same pixels, normalized as the backbone wants them."""
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    mean, std = (torch.tensor(part)[:, None, None] for part in (backbone.mean, backbone.std))
    return backbone.features((pixels - mean) / std).patches[0]


def test_the_same_tensors_give_the_same_features_in_any_format(files: dict[str, Path]) -> None:
    features = [seen(loaded(path, name).backbone) for name, path in files.items()]
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[0], features[2])
    other = seen(loaded(files["dino"], "dino", normalization="architecture").backbone)
    assert not torch.allclose(features[0], other, atol=1e-2)


def test_what_is_asked_for_comes_first(files: dict[str, Path]) -> None:
    for name, path in files.items():
        for asked, found in (
            (None, IMAGENET),
            ("imagenet", IMAGENET),
            ("architecture", Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
            ("0.1,0.2,0.3/0.4,0.5,0.6", Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
        ):
            result = loaded(path, name, normalization=asked)
            assert Normalization(result.backbone.mean, result.backbone.std) == found
            assert result.to_json()["normalization"] == found.to_json()


def test_every_row_of_a_training_code_says_how_it_normalizes() -> None:
    other = {name for name, row in FORMATS.items() if row.normalization == RED_228}
    assert other == {"swav", "swav-release", "vicregl", "vicregl-release"}
    own = {name for name, row in FORMATS.items() if row.normalization is None}
    assert own == {name for name, row in FORMATS.items() if row.reader != "weights"}


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("123.675,116.28,103.53/58.395,57.12,57.375", "give 0.485,0.456,0.406/0.229,0.224,0.225"),
        ("0.5,0.5,0.5/1,1,2", "at most 1$"),
        ("300,0,0/1,1,1", "at most 1$"),
        ("-0.1,0,0/1,1,1", "at most 1$"),
    ],
)
def test_numbers_for_pixels_up_to_255_are_refused(text: str, cure: str) -> None:
    with pytest.raises(CheckpointError, match="is not for pixels from 0 to 1") as refused:
        BackboneSpec("timm", normalization=text).check()
    assert re.search(cure, str(refused.value))
    advice = re.search(r"give (\S+)$", str(refused.value))
    if advice is not None:
        assert parse_normalization(advice[1]) == Normalization(
            (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        )


@pytest.mark.parametrize("text", ["0.5", "0.5/0.5", "0.5,0.5,0.5/0.5,0.5,0", "image-net", "a/b"])
def test_a_normalization_of_no_form_is_refused(text: str, files: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"is none of: imagenet, architecture .*or MEAN/STD"):
        loaded(files["dino"], "dino", normalization=text)


def test_a_loader_has_its_own_normalization(tmp_path: Path) -> None:
    spec = BackboneSpec("custom", loader=tmp_path / "x.py", normalization="imagenet")
    with pytest.raises(CheckpointError, match="format=custom takes no normalization"):
        spec.check()


def test_a_normalization_survives_its_own_words() -> None:
    assert parse_normalization(str(RED_228)) == RED_228
    assert parse_normalization("architecture") is None


def test_the_settings_in_a_file_of_pretrain_say_how_it_was_trained(
    tmp_path: Path, generator: torch.Generator
) -> None:
    weights = {"teacher": prefixed("backbone.", vit_weights(generator))}
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    torch.save({**weights, "densescope": {"settings": json.dumps(settings)}}, tmp_path / "a.pth")
    assert loaded(tmp_path / "a.pth", "dino").backbone.mean == (0.1, 0.2, 0.3)
    asked = loaded(tmp_path / "a.pth", "dino", normalization="imagenet").backbone
    assert (asked.mean, asked.std) == (IMAGENET.mean, IMAGENET.std)
