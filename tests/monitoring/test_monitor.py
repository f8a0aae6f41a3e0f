"""A monitor in a bare loop: what it sees, what it keeps, and what it never does."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densescope.errors import InputError, RecordError
from densescope.evaluation.backbone import ScoringImages, score_backbone
from densescope.features.images import decode_subset, draw_subset, open_images
from densescope.features.timm_backbone import TimmBackbone
from densescope.metrics import ScoreSettings
from densescope.monitoring.keeping import DenseCheckpoint
from densescope.monitoring.monitor import DenseMonitor
from densescope.monitoring.observation import Observation, TrainingStopped
from densescope.report.run import report_run
from densescope.runs.alarms import Command
from densescope.runs.store import RunStore
from densescope.selection import AlarmSettings, select_checkpoints
from tests.monitoring.scenes import NUMBERS, SETTINGS, features, pixels, seeded, shake, vit

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def watch(monitor: DenseMonitor, steps: range = range(4), seed: int = 0) -> list[Observation]:
    """A run of a small model."""
    model, seen = vit(), []
    for step in steps:
        shake(model, seed + step)
        seen.append(monitor.observe(model, step=step))
    return [look for look in seen if look is not None]


def only(look: Observation | None) -> Observation:
    assert look is not None
    return look


class Moving(nn.Module):
    """Patch features that can be made to collapse, to be NaN or to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = "fine"
        self.project = nn.Conv2d(3, 24, 8, 8)
        for parameter in self.parameters():
            parameter.data.zero_()
        shake(self, 0, 1.0)

    def forward(self, images: Tensor) -> Tensor:
        if self.mode == "memory":
            raise torch.OutOfMemoryError("no room on the device")
        grid: Tensor = self.project(images)
        if self.mode == "collapsed":
            return grid[:, :1].expand_as(grid) + 1e-4 * grid
        return grid / 0 if self.mode == "nan" else grid


def test_the_numbers_are_those_of_a_sweep() -> None:
    settings = ScoreSettings(global_clusters=6, lidar_images=0, layers=(0, -1))
    model = vit()
    look = only(DenseMonitor(pixels(), settings=settings, batch_size=8).observe(model, step=0))
    backbone = TimmBackbone(model.eval(), image_size=32, mean=MEAN, std=STD)
    images = ScoringImages(pixels())
    expected = score_backbone(backbone, images, settings, batch_size=8, device="cpu")
    assert look.values is not None
    assert look.values.scores == expected.scores


def test_a_look_prints_as_one_line() -> None:
    monitor = DenseMonitor(pixels(), settings=SETTINGS, device="cpu")
    look = only(monitor.observe(vit(), step=15))
    number = r"-?\d\.\d+ ± \d\.\d+"
    line = rf"step 15: separability {number}, effective rank {number}, DSE \(lambda = 1\) {number}"
    assert re.fullmatch(line, str(look))
    failed = only(monitor.observe(object(), step=16))
    assert str(failed) == f"step 16: {failed.problems[0]}"


def test_a_folder_is_drawn_from_as_a_sweep_does(tiny_images: Path) -> None:
    monitor = DenseMonitor(tiny_images, count=9, image_size=32, settings=SETTINGS)
    subset = draw_subset(open_images(tiny_images), 9, 0)
    assert monitor.held_out is not None
    assert torch.equal(monitor.held_out.pixels, decode_subset(subset, image_size=32))
    assert monitor.held_out.fingerprint == subset.fingerprint
    again = DenseMonitor(subset, image_size=32, settings=SETTINGS).held_out
    assert again is not None
    assert again.fingerprint == subset.fingerprint


def test_it_acts_on_its_steps_only() -> None:
    monitor = DenseMonitor(pixels(), settings=SETTINGS, every=3)
    assert [look.step for look in watch(monitor, range(8))] == [0, 3, 6]


def test_training_does_not_notice() -> None:
    monitor = DenseMonitor(pixels(), settings=SETTINGS)
    results = []
    for watched in (True, False):
        model = nn.Sequential(Moving(), nn.Dropout(0.5), nn.BatchNorm2d(24)).train()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        torch.default_generator.manual_seed(1)
        for step in range(3):
            optimizer.zero_grad()
            model(torch.rand(4, 3, 32, 32)).square().mean().backward()
            if watched:
                assert not only(monitor.observe(model, step=step)).problems
            optimizer.step()
        results.append([*model.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_it_writes_is_a_run(tmp_path: Path) -> None:
    monitor = DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path / "out")
    looks = watch(monitor)
    store = RunStore(tmp_path / "out")
    assert store.records() == monitor.records
    assert [record.scores for record in store.records()] == [
        look.values.scores for look in looks if look.values
    ]
    assert select_checkpoints(store.records()).last == "step 3"
    assert report_run(tmp_path / "out").stat().st_size > 10_000
    preview = store.preview("step 3")
    assert preview is not None
    assert preview["patches"].shape == (4, 24, 4, 4)
    record = store.records()[0]
    assert record.checkpoint["architecture"] == "VisionTransformer"
    assert record.provenance["grid"] == [4, 4]
    lines = (tmp_path / "out" / "monitor.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]
    assert set(json.loads(lines[0])) >= NUMBERS


def test_the_command_line_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from densescope.cli.app import app

    monitor = DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path / "out")
    watch(monitor)
    app(["select", str(tmp_path / "out")])
    assert select_checkpoints(monitor.records).verdict[:40] in capsys.readouterr().out


def test_a_restarted_job_goes_on_and_replaces_steps_that_come_again(tmp_path: Path) -> None:
    first = DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path)
    watch(first)
    second = DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path)
    watch(second, range(2, 6), seed=50)
    assert [record.step for record in second.records] == list(range(6))
    assert second.records[:2] == first.records[:2]
    assert second.records[2].scores != first.records[2].scores
    assert RunStore(tmp_path).records() == second.records


def test_a_restarted_job_without_a_folder_goes_on_from_a_state() -> None:
    first = DenseMonitor(pixels(), settings=SETTINGS)
    watch(first)
    second = DenseMonitor(pixels(), settings=SETTINGS)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.records == first.records
    with pytest.raises(RecordError, match="no records of a monitor"):
        second.load_state_dict({})


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"images": pixels(seed=1)}, "the images differ in name or content: fingerprint"),
        ({"settings": ScoreSettings()}, "global"),
    ],
)
def test_a_folder_of_another_run_is_refused_before_the_training(
    tmp_path: Path, more: dict[str, Any], text: str
) -> None:
    watch(DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path))
    given = {"images": pixels(), "settings": SETTINGS, "output": tmp_path} | more
    with pytest.raises(RecordError, match=f"other settings.*{text}"):
        DenseMonitor(**given)


def test_a_folder_of_images_of_another_size_is_refused_before_the_training(
    tiny_images: Path, tmp_path: Path
) -> None:
    def monitor(image_size: int) -> DenseMonitor:
        return DenseMonitor(
            tiny_images, count=16, image_size=image_size, settings=SETTINGS, output=tmp_path
        )

    watch(monitor(32), range(1))
    assert len(monitor(32).records) == 1
    with pytest.raises(RecordError, match="images of 32 pixels, and these have 24; .* output"):
        monitor(24)


def test_another_model_is_not_mixed_in(tmp_path: Path) -> None:
    monitor = DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path)
    watch(monitor)
    look = only(monitor.observe(Moving(), step=4))
    assert "the record was not kept" in look.problems[0]
    assert "differ in their architecture" in look.problems[0]
    assert len(monitor.records) == 4


def test_a_loop_may_bring_its_own_features(tmp_path: Path) -> None:
    monitor = DenseMonitor(settings=SETTINGS, output=tmp_path)
    for step in range(3):
        monitor.update(features(seed=step), range(32), features(seed=step)[:, 0])
        reading = monitor.compute()
        assert monitor.conclude(step).values == reading
    assert len(RunStore(tmp_path).records()) == 3
    monitor.update(features(24), range(24))
    assert "differ in their set of images" in monitor.conclude(3).problems[0]
    resumed = DenseMonitor(settings=SETTINGS, output=tmp_path)
    resumed.update(features(seed=3), range(32), features(seed=3)[:, 0])
    assert not resumed.conclude(3).problems
    assert len(resumed.records) == 4


class Own(nn.Module):
    """The interfaces of public vision transformers, whose forward gives no patch tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = vit()

    def get_intermediate_layers(self, images: Tensor) -> list[Tensor]:
        return [self.vit.forward_features(images)]

    def forward_encoder(self, images: Tensor, mask_ratio: float) -> tuple[Tensor, None, None]:
        assert mask_ratio == 0
        return self.vit.forward_features(images), None, None

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images)


@pytest.mark.parametrize(
    "tokens",
    [
        lambda vit, images: vit.get_intermediate_layers(images)[0][:, 1:],
        lambda mae, images: mae.forward_encoder(images, 0.0)[0][:, 1:],
    ],
    ids=["DINO", "MAE"],
)
def test_a_function_reads_the_tokens_of_any_other_model(tokens: Any) -> None:
    model = nn.Sequential(Own().train(), nn.Linear(24, 4))
    wrapped = DenseMonitor(
        pixels(),
        settings=SETTINGS,
        backbone="0",
        tokens=tokens,
    )
    look = only(wrapped.observe(model, step=0))
    expected = only(DenseMonitor(pixels(), settings=SETTINGS).observe(vit(), step=0))
    assert look.values is not None
    assert expected.values is not None
    assert look.values.estimate("released.dse_lambda_1") == expected.values.estimate(
        "released.dse_lambda_1"
    )
    assert wrapped.records[0].checkpoint["architecture"] == "Own"
    assert model.training
    assert model[0].vit.training


def broken_logger(step: int, numbers: Any) -> None:
    raise ConnectionError("the server is down")


FAILURES: dict[str, tuple[Any, str]] = {
    "nan": (None, "NaN or infinite"),
    "memory": (None, "8 images at once do not fit in memory"),
    "a model that cannot be read": (nn.Linear(2, 2), "RuntimeError"),
    "a wrong shape": (nn.Flatten(), r"shape \(8, 3072\), not images patches dim"),
    "no model": (None.__class__(), "cannot read patch tokens from a NoneType"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_is_a_sentence_and_the_training_goes_on(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, text = FAILURES[name]
    if name in ("nan", "memory"):
        model = Moving()
        model.mode = name
    monitor = DenseMonitor(pixels(), settings=SETTINGS, batch_size=8, output=tmp_path)
    look = only(monitor.observe(model, step=7))
    assert look.values is None
    assert look.numbers == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.text.rstrip().endswith("the training goes on")
    (problem,) = look.problems
    with pytest.raises(InputError, match=text):
        raise InputError(problem)
    (record,) = monitor.records
    assert (record.status, record.error) == ("failed", problem)
    assert not only(monitor.observe(vit(), step=8)).problems
    strict = DenseMonitor(pixels(), settings=SETTINGS, batch_size=8, on_error="raise")
    with pytest.raises(InputError, match=text):
        strict.observe(model, step=7)


def test_features_of_the_loop_that_are_bad_are_a_sentence_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = DenseMonitor(settings=SETTINGS)
    monitor.update(features() * math.nan, range(32))
    assert monitor.compute() is None
    assert "NaN or infinite" in caplog.text
    assert "NaN or infinite" in monitor.conclude(0).problems[0]
    monitor.update(features(), range(32))
    assert monitor.compute() is not None


def test_a_logger_that_is_down_stops_neither_the_training_nor_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines: list[tuple[int, dict[str, float]]] = []
    monitor = DenseMonitor(
        pixels(), settings=SETTINGS, loggers=[broken_logger, lambda *given: lines.append(given)]
    )
    (look,) = watch(monitor, range(1))
    assert look.problems == ("the logger function failed: ConnectionError: the server is down",)
    assert lines == [(0, look.numbers)]
    assert len(monitor.records) == 1
    assert "step 0: the logger function failed" in caplog.text


def test_a_full_disk_leaves_the_history_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunStore, "write", full)
    (look,) = watch(monitor, range(1))
    assert look.problems[0].startswith("the record was not kept: OSError")
    assert look.values is not None
    assert len(monitor.records) == 1


def test_the_best_states_are_kept(tmp_path: Path) -> None:
    state = {"step": -1}
    keeper = DenseCheckpoint(tmp_path, lambda path: torch.save(state, path), top=2)
    monitor = DenseMonitor(pixels(), settings=SETTINGS, checkpoint=keeper)
    model, values = vit(), []
    for step in range(5):
        shake(model, step)
        state["step"] = step
        look = only(monitor.observe(model, step=step))
        assert look.values is not None
        values.append(look.values.dse)
    best = sorted(range(5), key=lambda step: -values[step])[:2]
    assert [kept.step for kept in keeper.kept] == best
    for step in best:
        assert torch.load(tmp_path / f"step{step:08d}.pt", weights_only=True) == {"step": step}


def collapse(monitor: DenseMonitor) -> list[Observation]:
    model, looks = Moving(), []
    for step in range(12):
        shake(model, step, 0.001)
        model.mode = "fine" if step < 8 else "collapsed"
        looks.append(only(monitor.observe(model, step=step)))
    return looks


def test_a_collapse_raises_an_alarm_once(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    monitor = DenseMonitor(pixels(), settings=SETTINGS, on_alarm=[heard.append])
    looks = collapse(monitor)
    assert [look.alarm is not None for look in looks] == [False] * 9 + [True] * 3
    assert len(heard) == 1
    assert heard[0].kind == "collapse"
    assert heard[0].since == "step 8"
    assert caplog.text.count("The features have collapsed") == 1


def test_features_that_become_nan_raise_an_alarm() -> None:
    monitor, model = DenseMonitor(pixels(), settings=SETTINGS), Moving()
    for step in range(6):
        model.mode = "fine" if step < 4 else "nan"
        look = only(monitor.observe(model, step=step))
    assert look.alarm is not None
    assert look.alarm.kind == "not finite"


def test_an_alarm_stops_the_training_only_if_asked() -> None:
    with pytest.raises(TrainingStopped, match="The features have collapsed") as caught:
        collapse(DenseMonitor(pixels(), settings=SETTINGS, stop_on_alarm=True))
    assert caught.value.observation.step == 9
    assert all(look.alarm is None for look in collapse(DenseMonitor(pixels(), alarm=None)))


def test_a_listener_that_fails_is_named() -> None:
    def deaf(alarm: Any) -> None:
        raise TimeoutError("no answer")

    monitor = DenseMonitor(pixels(), settings=SETTINGS, on_alarm=[deaf])
    problems = [look.problems for look in collapse(monitor)]
    assert problems[9] == ("an alarm was not passed on: TimeoutError: no answer",)


def test_alarms_are_written_down_and_told_over_channels(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    channels = [Command(f"cat > {heard}"), Command("exit 3")]
    given = {"settings": SETTINGS, "output": tmp_path / "out", "on_alarm": channels}
    looks = collapse(DenseMonitor(pixels(), **given))
    assert json.loads(heard.read_text())["alarm"]["since"] == "step 8"
    assert [look.problems for look in looks if look.problems] == [
        ("--on-alarm 'exit 3' failed with exit code 3",)
    ]
    heard.unlink()
    model = Moving()
    model.mode = "collapsed"
    look = only(DenseMonitor(pixels(), **given).observe(model, step=12))
    assert look.alarm is not None
    assert not heard.exists(), "a restarted job does not tell of an alarm that stands"
    lines = (tmp_path / "out" / "alarms.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["begun"]


def test_a_lost_future_does_not_raise_alarms(tmp_path: Path) -> None:
    """A job that collapsed is restarted from before: its later records are not of this run."""
    collapse(DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path))
    resumed = DenseMonitor(pixels(), settings=SETTINGS, output=tmp_path)
    model = Moving()
    for step in range(9):
        shake(model, step, 0.001)
    assert only(resumed.observe(model, step=8)).alarm is None


def test_gaussian_noise_raises_no_alarm() -> None:
    monitor = DenseMonitor(settings=SETTINGS)
    for step in range(10):
        noise = features() + 0.05 * torch.randn(32, 16, 8, generator=seeded(step))
        monitor.update(noise, range(32))
        assert monitor.conclude(step).alarm is None


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"every": 0}, "every is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; it must be 'warn' or 'raise'"),
        ({"images": torch.rand(4, 3, 8, 8)}, "held-out images are torch.float32 of shape"),
        ({"images": pixels(1)}, "1 held-out image.s.: give at least 2"),
        ({"loggers": [3]}, "int is no logger: give an object with log"),
    ],
)
def test_wrong_arguments_are_refused_before_the_training(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        DenseMonitor(**{"images": pixels(), "settings": SETTINGS, **given})


def test_a_monitor_without_images_says_so() -> None:
    look = only(DenseMonitor(settings=SETTINGS).observe(vit(), step=0))
    assert look.problems == ("this monitor has no images to show a model: DenseMonitor(images)",)


def test_settings_of_the_alarm_are_used() -> None:
    monitor = DenseMonitor(pixels(), settings=SETTINGS, alarm=AlarmSettings(patience=3))
    assert [look.alarm is not None for look in collapse(monitor)] == [False] * 10 + [True] * 2


def test_images_of_another_size_than_the_model_takes_are_a_sentence_with_the_cure() -> None:
    other = torch.zeros(12, 3, 40, 40, dtype=torch.uint8)
    seen = only(DenseMonitor(other, settings=SETTINGS, device="cpu").observe(vit(), step=0))
    assert seen.problems == (
        "the model takes images of 32 pixels and the held-out ones have 40: give DenseMonitor "
        "image_size=32",
    )
