"""What the loggers wrote, read back by the libraries themselves."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from densescope.errors import InputError
from densescope.monitoring import loggers
from densescope.monitoring.loggers import JsonLines, MLflow, TensorBoard, WeightsAndBiases
from densescope.monitoring.monitor import DenseMonitor
from tests.monitoring.scenes import NUMBERS, SETTINGS, pixels, shake, vit

GIVEN = {
    "densescope/dse": 1.5,
    "densescope/paper.effective_rank": 20.0,
    "densescope/layer_-4/effective_rank": 0.25,
}


def log_twice(logger: Any) -> None:
    logger.log(10, GIVEN)
    logger.log(20, {**GIVEN, "densescope/dse": math.nan})


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.jsonl"
    log_twice(JsonLines(path))
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first.pop("time") > 1e9
    assert first == {"step": 10, **GIVEN}
    assert second["densescope/dse"] is None


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_event_files(tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path)
    log_twice(logger)
    read = read_events(tmp_path)
    logger.close()
    assert set(read) == set(GIVEN)
    assert read["densescope/paper.effective_rank"] == [(10, 20.0), (20, 20.0)]
    assert math.isnan(read["densescope/dse"][1][1])


@pytest.mark.filterwarnings("ignore")
def test_mlflow_store(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/runs.db"
    logger = MLflow(uri, experiment="watched")
    log_twice(logger)
    client = MlflowClient(uri)
    history = client.get_metric_history(logger.run_id, "densescope/layer_-4/effective_rank")
    assert [(metric.step, metric.value) for metric in history] == [(10, 0.25), (20, 0.25)]
    assert [m.step for m in client.get_metric_history(logger.run_id, "densescope/dse")] == [10]
    again = MLflow(uri, experiment="watched", run_id=logger.run_id)
    again.log(30, GIVEN)
    assert len(client.get_metric_history(logger.run_id, "densescope/dse")) == 2
    experiment = client.get_experiment_by_name("watched")
    assert experiment is not None
    assert client.get_run(logger.run_id).info.experiment_id == experiment.experiment_id


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WeightsAndBiases(project="watched", mode="offline", dir=str(tmp_path))
    try:
        log_twice(logger)
        assert logger.run.summary["densescope/paper.effective_rank"] == 20.0
        assert logger.run.summary["densescope/step"] == 20
    finally:
        logger.run.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (data,) = folder.glob("*.wandb")
    until = time.monotonic() + 60  # its own process writes, and is not always done by now
    while not all(name.encode() in data.read_bytes() for name in GIVEN):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_all_loggers_get_the_same_names_from_a_monitor(tmp_path: Path) -> None:
    lines: dict[str, float] = {}
    board = TensorBoard(tmp_path / "board")
    monitor = DenseMonitor(
        pixels(),
        settings=SETTINGS,
        output=tmp_path / "out",
        loggers=[board, lambda step, numbers: lines.update(numbers)],
    )
    model = vit()
    shake(model, 0)
    look = monitor.observe(model, step=5)
    board.close()
    assert look is not None
    written = json.loads((tmp_path / "out" / "monitor.jsonl").read_text())
    assert set(lines) == set(read_events(tmp_path / "board")) == set(written) - {"step", "time"}
    assert set(lines) >= NUMBERS
    assert lines == look.numbers


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("TensorBoard", "torch.utils.tensorboard", "tensorboard"),
        ("MLflow", "mlflow", "mlflow"),
        ("WeightsAndBiases", "wandb", "wandb"),
    ],
)
def test_a_library_that_is_missing_is_named(
    name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    arguments = [tmp_path] if name == "TensorBoard" else []
    with pytest.raises(InputError, match=rf"pip install 'densescope\[{extra}\]'"):
        getattr(loggers, name)(*arguments)
