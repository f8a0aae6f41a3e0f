"""The loop around a method: parts of a batch, precision, callbacks, several devices."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.errors import CheckpointError, InputError
from densescope.features.backbones import load_backbone
from densescope.features.spec import BackboneSpec
from densescope.pretraining.learner import Learner
from densescope.pretraining.recipe import AugmentationSettings
from densescope.pretraining.recorder import Progress
from densescope.pretraining.resume import KEY
from densescope.pretraining.settings import PretrainSettings
from densescope.pretraining.trainer import Start, pretrain
from tests.cli.running import ENVIRONMENT
from tests.pretraining.tiny import content, images, same, tiny

pytest.importorskip("lightly")
pytest.importorskip("pytorch_lightning")

STILL = AugmentationSettings(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0
)


def still_mae(**changes: Any) -> PretrainSettings:
    """MAE without chance in views, and with so little hidden that masks hardly matter."""
    settings = tiny("mae", **changes)
    assert settings.recipe is not None
    recipe = replace(settings.recipe, first=STILL, optimizer="sgd", learning_rate=0.1)
    return replace(settings, recipe=recipe)


def test_parts_of_a_batch_are_one_step(tmp_path: Path) -> None:
    reports: list[Progress] = []
    settings = still_mae(accumulate=4)
    files = pretrain(settings, images(), tmp_path, reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5]
    assert len(files) == 3
    assert content(files[-1])[KEY]["step"] == 5
    # The loss that is told is the mean over the parts, not their sum: gray paint costs about 1.
    assert all(0.3 < report.loss < 3 for report in reports)


def test_rate_and_decay_follow_their_schedules(tmp_path: Path) -> None:
    settings = tiny("simsiam", checkpoint_every=1)
    assert settings.recipe is not None
    recipe = replace(settings.recipe, warmup=0.4, weight_decay=(0.1, 0.3))
    files = pretrain(replace(settings, recipe=recipe), images(), tmp_path)
    groups = [content(file)[KEY]["optimizer"]["param_groups"] for file in files]
    highest, last = recipe.learning_rate, recipe.final_learning_rate
    rates = [highest / 2, highest, highest, (highest + last) / 2, last]
    assert [group[0]["lr"] for group in groups] == pytest.approx(rates)
    assert [group[0]["weight_decay"] for group in groups][::2] == pytest.approx([0.1, 0.2, 0.3])
    assert {group[1]["weight_decay"] for group in groups} == {0.0}
    # SimSiam's predictor keeps the highest rate.
    assert {group[2]["lr"] for group in groups} == {highest}


def test_a_run_of_parts_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    settings = still_mae(accumulate=2)
    whole = pretrain(settings, images(), tmp_path / "whole")

    def kill(progress: Progress) -> None:
        if progress.step == 3:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        pretrain(settings, images(), tmp_path / "killed", kill)
    files = pretrain(settings, images(), tmp_path / "killed", start=Start(resume=True))
    assert same(content(files[-1])[KEY]["learner"], content(whole[-1])[KEY]["learner"])


@pytest.mark.parametrize("half", ['{"step": 3, "los', '{"step": 3, "loss": 1.0}', "\ufffd"])
def test_a_resumed_run_forgets_what_a_killed_one_half_wrote(half: str, tmp_path: Path) -> None:
    settings = still_mae()
    pretrain(settings, images(), tmp_path / "whole")

    def kill(progress: Progress) -> None:
        if progress.step == 3:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        pretrain(settings, images(), tmp_path / "killed", kill)
    with (tmp_path / "killed" / "log.txt").open("a", encoding="utf-8") as log:
        log.write(half)  # without the end of the line
    pretrain(settings, images(), tmp_path / "killed", start=Start(resume=True))
    logs = [(tmp_path / run / "log.txt").read_text().splitlines() for run in ("whole", "killed")]
    steps = [[json.loads(line)["step"] for line in lines] for lines in logs]
    assert steps[0] == steps[1]


def test_bfloat16_trains_and_stores_float32(tmp_path: Path) -> None:
    files = pretrain(tiny("mocov3", precision="bfloat16"), images(), tmp_path)
    weights = content(files[-1])[KEY]["learner"].values()
    assert {value.dtype for value in weights if value.is_floating_point()} == {torch.float32}
    exact = pretrain(tiny("mocov3"), images(), tmp_path / "exact")
    assert not same(content(files[-1])[KEY]["learner"], content(exact[-1])[KEY]["learner"])


class Watching:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def on_start(self, learner: Learner[Any], step: int) -> None:
        self.seen.append(("start", step))

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        learner.trained.eval()
        torch.rand(5)
        learner.trained.train()
        self.seen.append(("step", progress.step))

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        assert progress.checkpoint is not None
        assert progress.checkpoint.is_file()
        self.seen.append(("checkpoint", progress.step))


def test_watchers_see_every_step_and_change_nothing(tmp_path: Path) -> None:
    watching = Watching()
    settings = tiny("simsiam", steps=3)
    files = pretrain(settings, images(), tmp_path / "watched", callbacks=[watching])
    alone = pretrain(settings, images(), tmp_path / "alone")
    assert watching.seen == [
        ("start", 0),
        ("step", 1),
        ("checkpoint", 2),
        ("step", 2),
        ("checkpoint", 3),
        ("step", 3),
    ]
    assert same(content(files[-1]), content(alone[-1]))


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    files = pretrain(tiny("mae"), images(), tmp_path)
    before = files[-1].read_bytes()
    assert pretrain(tiny("mae"), images(), tmp_path, start=Start(resume=True)) == files
    assert files[-1].read_bytes() == before


def test_other_images_are_another_run(tmp_path: Path) -> None:
    pretrain(tiny("mae", steps=3), images(), tmp_path)
    digits = r"\(their fingerprint was [0-9a-f]{12} and is [0-9a-f]{12}\)"
    with pytest.raises(InputError, match=rf"other settings: the images differ {digits}\."):
        pretrain(tiny("mae", steps=3), images().flip(3), tmp_path, start=Start(resume=True))


def as_its_own_code_wrote_it(path: Path, to: Path) -> Path:
    with torch.serialization.safe_globals([argparse.Namespace]):
        found = torch.load(path, weights_only=True)
    del found[KEY]
    torch.save(found, to)
    return to


def test_a_checkpoint_of_the_methods_own_code_begins_a_run_but_cannot_be_resumed(
    tmp_path: Path,
) -> None:
    first = pretrain(tiny("dino", steps=2), images(), tmp_path / "first")[0]
    (tmp_path / "own").mkdir()
    own = as_its_own_code_wrote_it(first, tmp_path / "own" / "checkpoint0000.pth")
    with pytest.raises(CheckpointError, match="does not hold the state of its run"):
        pretrain(tiny("dino", steps=2), images(), own.parent, start=Start(resume=True))
    settings = tiny("dino", steps=1)
    assert settings.recipe is not None
    frozen = replace(settings, recipe=replace(settings.recipe, learning_rate=0.0))
    begun = pretrain(frozen, images(), tmp_path / "begun", start=Start(weights=own))[0]
    ours, theirs = content(begun), content(own)
    backbone = [name for name in theirs["student"] if ".backbone." in name]
    head = [name for name in theirs["student"] if name.endswith("head.last_layer.weight_v")]
    assert same(*({n: part["student"][n] for n in backbone} for part in (ours, theirs)))
    assert not same(*({n: part["student"][n] for n in head} for part in (ours, theirs)))
    assert "backbones of checkpoint0000.pth" in ours[KEY]["settings"]


def test_a_backbone_of_another_method_begins_a_run(tmp_path: Path) -> None:
    first = pretrain(tiny("mae", steps=2), images(), tmp_path / "first")[0]
    settings = tiny("dino", steps=1)
    assert settings.recipe is not None
    frozen = replace(settings, recipe=replace(settings.recipe, learning_rate=0.0))
    start = Start(weights=first, weights_format="mae")
    begun = pretrain(frozen, images(), tmp_path / "begun", start=start)[0]
    ours = load_backbone(begun, BackboneSpec("dino", weights="student")).backbone.model
    theirs = load_backbone(first, BackboneSpec("mae")).backbone.model
    assert same(ours.state_dict(), theirs.state_dict())
    assert "backbone of checkpoint-0.pth (mae)" in content(begun)[KEY]["settings"]
    with pytest.raises(InputError, match="--start-format mae names the format of a checkpoint"):
        Start(weights_format="mae")


def test_a_checkpoint_of_another_network_does_not_fit(tmp_path: Path) -> None:
    first = pretrain(tiny("mae", steps=1), images(), tmp_path / "first")[0]
    wider = tiny("mae", steps=1)
    options = {**wider.backbone.options, "embed_dim": 32}
    wider = replace(wider, backbone=replace(wider.backbone, options=options))
    with pytest.raises(CheckpointError, match="does not fit these settings"):
        pretrain(wider, images(), tmp_path / "second", start=Start(weights=first))


@pytest.mark.slow
def test_two_processes_share_a_batch_end_with_the_same_weights_and_one_of_them_writes(
    tiny_images: Path, tmp_path: Path
) -> None:
    words = [
        *("pretrain", "--method", "dino", "--images", tiny_images, "--output", tmp_path / "run"),
        *("--architecture", "vit_tiny_patch16_224", "--image-size", 16, "--device", "cpu"),
        *("--architecture-option", "patch_size=4,embed_dim=16,depth=2,num_heads=2"),
        *("--steps", 5, "--batch-size", 8, "--checkpoint-every", 2, "--devices", 2),
        *("--set", "head_dim=32", "--set", "prototypes=32", "--set", "local_count=0"),
    ]
    script = Path(__file__).with_name("two_processes.py")
    environment = {**ENVIRONMENT, "LEFT": str(tmp_path)}
    command = [sys.executable, str(script), *map(str, words)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    for line in ("training on 32 images", "3 checkpoints in", "next: densescope sweep"):
        assert run.stdout.count(line) == 1
    names = [path.name for path in sorted((tmp_path / "run").glob("*.pth"))]
    assert names == [f"checkpoint000{number}.pth" for number in range(3)]
    assert len((tmp_path / "run" / "log.txt").read_text().splitlines()) == 3
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first["written"] == names
    assert second["written"] == []
    assert len(first["losses"]) == 5
    # each has images of its own, and both take the same steps
    assert all(a != b for a, b in zip(first["losses"], second["losses"], strict=True))
    # batch norms of a CPU each keep statistics of their own images; nothing else may differ
    shared = [name for name in first["weights"] if ".running_" not in name]
    assert same(*({name: at["weights"][name] for name in shared} for at in (first, second)))
    assert any("criterion.center" in name for name in shared)
    trained = [name for name in first["start"] if name.startswith("student")]
    assert trained
    assert not same(*({name: first[at][name] for name in trained} for at in ("start", "weights")))
    last = tmp_path / "run" / "checkpoint0002.pth"
    assert same(dict(content(last)[KEY]["learner"]), first["weights"])
