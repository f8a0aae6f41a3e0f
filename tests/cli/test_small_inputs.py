"""What is too small or not there, as the command says it."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from tests.cli.running import BACKBONE, SCORING, densescope, refused
from tests.tiny_run import ARCHITECTURE, OPTIONS, write_checkpoints, write_images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoints(tmp_path_factory.mktemp("small") / "run", range(1))


def test_one_image_and_two(run: Path, tmp_path: Path) -> None:
    words = ["sweep", run, "--output", tmp_path / "scores", *BACKBONE, *SCORING, "--images"]
    one, two = write_images(tmp_path / "one", 1), write_images(tmp_path / "two", 2)
    assert "holds 1 image: at least 2 are needed" in refused(densescope(*words, one))
    asked = refused(densescope(*words, two, "--images-count", 2), 2)
    assert "--images-count. It must be at least 3." in asked
    said = densescope(*words, two)
    assert "the number of images is 2; it must be at least 3" in said.stdout + said.stderr


def write_one_patch(folder: Path) -> list[object]:
    options = {**OPTIONS, "img_size": 8}
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = timm.create_model(ARCHITECTURE, num_classes=0, **options)
    torch.save(model.state_dict(), folder / "one.pth")
    given = [f"--architecture-option={key}={value}" for key, value in options.items()]
    return [folder / "one.pth", "--format", "timm", "--architecture", ARCHITECTURE, *given]


def test_one_patch(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 16)
    given = write_one_patch(tmp_path)
    said = refused(densescope("score", *given, *SCORING, "--images", images))
    assert "an image has 1 patch, of which no clusters can be made; give larger images" in said


def test_a_class_token_that_the_file_does_not_hold(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 8)
    options = {**OPTIONS, "class_token": False, "global_pool": "avg", "fc_norm": False}
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = timm.create_model(ARCHITECTURE, num_classes=0, **options)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    given = [f"--architecture-option={key}={value}" for key, value in OPTIONS.items()]
    file = ["score", tmp_path / "bare.pth", "--format", "timm", "--architecture", ARCHITECTURE]
    said = refused(densescope(*file, *given, *SCORING, "--images", images))
    assert "are missing (cls_token)" in said
    assert "class_token=False" in said  # the cure


def test_layers_that_do_not_exist(run: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 8)
    words = [run, "--output", tmp_path / "s", *BACKBONE, *SCORING, "--images", images]
    said = refused(densescope("sweep", *words, "--layers", "-1,1"), 2)
    assert "layers -1 and 1 are the same block: this backbone has 2; name it once" in said
    said = refused(densescope("sweep", *words, "--layers", "every"), 2)
    assert "is not a list of whole numbers such as -1 or 0,1; all means every block" in said
    said = refused(densescope("watch", *words, "--layers", "all", "--layer", "1", "--once"), 2)
    assert "--layer 1 is not among --layers all, whose numbers count from the last, -1" in said
