"""The monitor beside this package's own training runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from densescope.evaluation.backbone import ScoringImages, score_backbone
from densescope.features.backbones import load_backbone
from densescope.features.spec import BackboneSpec
from densescope.metrics import ScoreSettings
from densescope.monitoring import DenseMonitor, Observation, TrainingStopped
from densescope.monitoring.pretraining import PretrainingMonitor
from densescope.pretraining.learner import Learner
from densescope.pretraining.methods import METHODS, find_method
from densescope.pretraining.trainer import Start, check_folder, pretrain
from densescope.runs.store import RunStore
from tests.monitoring.scenes import pixels
from tests.pretraining.tiny import SIZE, content, images, same, tiny

SETTINGS = ScoreSettings(global_clusters=6, group_size=4, lidar_images=0, local_clusters=2)
HELD_OUT = pixels(12)[:, :, :SIZE, :SIZE].contiguous()


def watched(folder: Path, method: str, **more: object) -> PretrainingMonitor:
    monitor = DenseMonitor(HELD_OUT, settings=SETTINGS, output=folder / "monitor", device="cpu")
    return PretrainingMonitor(monitor, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_seen_is_what_a_sweep_of_the_checkpoint_finds(method: str, tmp_path: Path) -> None:
    settings = tiny(method)
    callback = watched(tmp_path, method)
    files = pretrain(settings, images(), tmp_path / "run", callbacks=[callback])
    records = RunStore(tmp_path / "monitor").records()
    assert [(record.step, record.name) for record in records] == [
        (0, "step 0"),
        *((step, file.name) for step, file in zip((2, 4, 5), files, strict=True)),
    ]
    shape = settings.backbone
    loaded = load_backbone(
        files[-1],
        BackboneSpec(
            format=method,
            architecture=shape.architecture,
            architecture_options=shape.loader_options,
        ),
    )
    expected = score_backbone(loaded.backbone, ScoringImages(HELD_OUT), SETTINGS, device="cpu")
    found = records[-1].scores["-1"]
    for name, estimate in expected.scores["-1"].items():
        assert found[name].value == pytest.approx(estimate.value, rel=1e-4), name


def test_watching_changes_no_bit_of_the_run(tmp_path: Path) -> None:
    callback = watched(tmp_path, "byol", every=1)
    seen = pretrain(tiny("byol"), images(), tmp_path / "seen", callbacks=[callback])
    alone = pretrain(tiny("byol"), images(), tmp_path / "alone")
    assert same(content(seen[-1])["model"], content(alone[-1])["model"])
    assert callback.observation is not None
    assert callback.observation.step == 5
    assert [r.step for r in RunStore(tmp_path / "monitor").records()] == [0, 1, 2, 3, 4, 5]


def test_a_resumed_run_goes_on_with_its_records(tmp_path: Path) -> None:
    files = pretrain(
        tiny("dino"), images(), tmp_path / "run", callbacks=[watched(tmp_path, "dino")]
    )
    files[-1].unlink()
    start = Start(resume=True)
    callback = watched(tmp_path, "dino")
    pretrain(tiny("dino"), images(), tmp_path / "run", start=start, callbacks=[callback])
    assert [r.step for r in RunStore(tmp_path / "monitor").records()] == [0, 2, 4, 5]


def test_a_look_that_a_kill_left_out_bears_the_name_of_its_checkpoint(tmp_path: Path) -> None:
    files = pretrain(tiny("dino"), images(), tmp_path / "run")
    files[-1].unlink()
    start, method = Start(resume=True), find_method("dino")
    callback = watched(tmp_path, "dino", resumed=check_folder(tmp_path / "run", method, start))
    pretrain(tiny("dino"), images(), tmp_path / "run", start=start, callbacks=[callback])
    records = RunStore(tmp_path / "monitor").records()
    assert [(r.step, r.name) for r in records] == [(4, files[1].name), (5, files[2].name)]


def test_a_look_at_a_step_that_has_a_checkpoint_now_takes_its_name(tmp_path: Path) -> None:
    monitor = watched(tmp_path, "mae").monitor
    model = nn.Conv2d(3, 8, 4, 4)

    def tokens(backbone: nn.Module, pixels: Tensor) -> Tensor:
        return backbone(pixels).flatten(2).mT  # type: ignore[no-any-return]

    monitor.model_reader = replace(monitor.model_reader, tokens=tokens)
    for checkpoint in (None, tmp_path / "checkpoint-7.pth"):
        seen = monitor.observe(model, step=4, checkpoint=checkpoint)
        assert seen is not None
        assert not seen.problems
    assert [record.name for record in RunStore(tmp_path / "monitor").records()] == [
        "checkpoint-7.pth"
    ]


def test_every_look_is_told_also_the_one_that_stops_the_run(tmp_path: Path) -> None:
    told: list[Observation] = []
    monitor = DenseMonitor(HELD_OUT, settings=SETTINGS, device="cpu", stop_on_alarm=True)
    callback = Dying(monitor, every=1, on_observation=told.append)
    with pytest.raises(TrainingStopped):
        pretrain(tiny("simsiam", "vit"), images(), tmp_path, callbacks=[callback])
    files = [path.name for path in sorted(tmp_path.iterdir()) if path.suffix == ".tar"]
    assert [seen.name for seen in told] == [
        *("step 0", "step 1", files[0], "step 3", files[1], files[2])
    ]
    assert [seen.alarm is not None for seen in told] == [False] * 5 + [True]


class Dying(PretrainingMonitor):
    """Looks at a network that has become all zeros at step 4."""

    def _observe(self, learner: Learner[Any], step: int, checkpoint: Path | None = None) -> None:
        if step == 4:
            for parameter in next(iter(learner.backbones().values())).parameters():
                parameter.data.zero_()
        super()._observe(learner, step, checkpoint)


def test_an_alarm_stops_the_run_only_if_asked(tmp_path: Path) -> None:
    for stop in (False, True):
        monitor = DenseMonitor(HELD_OUT, settings=SETTINGS, device="cpu", stop_on_alarm=stop)
        callback, folder = Dying(monitor), tmp_path / str(stop)
        if stop:
            with pytest.raises(TrainingStopped):
                pretrain(tiny("simsiam", "vit"), images(), folder, callbacks=[callback])
        else:
            assert (
                len(pretrain(tiny("simsiam", "vit"), images(), folder, callbacks=[callback])) == 3
            )
