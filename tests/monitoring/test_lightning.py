"""The callback in real Lightning trainers, of both packages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densescope.errors import InputError
from densescope.metrics import ScoreSettings
from densescope.monitoring.lightning import DenseCallback
from densescope.monitoring.monitor import DenseMonitor
from densescope.monitoring.stable_pretraining import DenseStructureCallback
from tests.monitoring.scenes import NUMBERS, SETTINGS, pixels, vit
from tests.tiny_run import SETTINGS as PLAIN

pytestmark = pytest.mark.filterwarnings("ignore")


def package(name: str) -> Any:
    return pytest.importorskip(name)


def module_of(lightning: Any) -> Any:
    class Learner(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = vit(), vit()
            self.teacher.requires_grad_(False).eval()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.student.parameters(), 0.01)

        def training_step(self, batch: tuple[Tensor], index: int) -> Tensor:
            assert self.student.training
            assert not self.teacher.training
            return self.student(batch[0]).square().mean()

        def validation_step(self, batch: tuple[Tensor], index: int) -> None:
            self.log("valid", 1.0)

        def on_train_batch_end(self, *given: Any) -> None:
            for slow, fast in zip(
                self.teacher.parameters(), self.student.parameters(), strict=True
            ):
                slow.lerp_(fast, 0.5)

    return Learner()


def loader(count: int = 12) -> Any:
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(pixels(count).float() / 255), batch_size=4)


def trainer(lightning: Any, folder: Path, *callbacks: Any, **more: Any) -> Any:
    given: dict[str, Any] = {"max_epochs": 3, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return lightning.Trainer(
        default_root_dir=folder, callbacks=list(callbacks), **given | quiet | more
    )


def monitor(**more: Any) -> DenseMonitor:
    return DenseMonitor(pixels(), settings=SETTINGS, **more)


@pytest.mark.parametrize("name", ["pytorch_lightning", "lightning.pytorch"])
def test_lightnings_own_checkpoints_follow_dse(name: str, tmp_path: Path) -> None:
    lightning = package(name)
    best = lightning.callbacks.ModelCheckpoint(
        tmp_path / "best", monitor="densescope/dse", mode="max", save_top_k=1
    )
    callback = DenseCallback(monitor())
    fit = trainer(lightning, tmp_path, callback, best, enable_checkpointing=True)
    fit.fit(module_of(lightning), loader(), loader())
    records = callback.monitor.records
    assert [record.step for record in records] == [3, 6, 9]
    assert records[0].checkpoint["weights"] == "teacher"
    values = [record.estimate("released.dse_lambda_1").value for record in records]
    assert float(best.best_model_score) == pytest.approx(max(values))
    stored = torch.load(best.best_model_path, weights_only=True)
    assert stored["global_step"] == 3 * (values.index(max(values)) + 1)
    assert set(fit.callback_metrics) >= NUMBERS


def test_the_trainers_loggers_get_the_numbers(tmp_path: Path) -> None:
    lightning = package("pytorch_lightning")
    logger = lightning.loggers.CSVLogger(tmp_path)
    callback = DenseCallback(monitor())
    trainer(lightning, tmp_path, callback, logger=logger).fit(module_of(lightning), loader())
    table = Path(logger.experiment.metrics_file_path).read_text().splitlines()
    assert set(table[0].split(",")) >= NUMBERS
    assert len(table) == 4


def test_it_observes_optimizer_steps_and_never_the_sanity_check(tmp_path: Path) -> None:
    lightning = package("pytorch_lightning")
    callback = DenseCallback(monitor(), every_n_steps=2)
    fit = trainer(lightning, tmp_path, callback, num_sanity_val_steps=2, accumulate_grad_batches=2)
    fit.fit(module_of(lightning), loader(16), loader())
    assert [record.step for record in callback.monitor.records] == [2, 4, 6]


@pytest.mark.parametrize("output", [None, "out"])
def test_a_resumed_fit_goes_on(output: str | None, tmp_path: Path) -> None:
    lightning = package("pytorch_lightning")
    folder = None if output is None else tmp_path / output
    first = DenseCallback(monitor(output=folder))
    fit = trainer(lightning, tmp_path, first, max_epochs=2)
    fit.fit(module_of(lightning), loader())
    fit.save_checkpoint(tmp_path / "last.ckpt")
    second = DenseCallback(monitor(output=folder))
    trainer(lightning, tmp_path, second).fit(
        module_of(lightning), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert [record.step for record in second.monitor.records] == [3, 6, 9]
    assert second.monitor.records[:2] == first.monitor.records


def test_a_state_that_does_not_fit_is_left_aside(caplog: pytest.LogCaptureFixture) -> None:
    DenseCallback(monitor()).load_state_dict({"records": [{"schema": 99}]})
    assert "the history in the checkpoint cannot be read" in caplog.text


def test_a_look_that_fails_stops_neither_the_fit_nor_its_checkpoints(tmp_path: Path) -> None:
    lightning = package("pytorch_lightning")
    best = lightning.callbacks.ModelCheckpoint(
        tmp_path / "best", monitor="densescope/dse", mode="max"
    )
    learner = module_of(lightning)
    with torch.no_grad():
        learner.teacher.patch_embed.proj.weight.fill_(math.nan)
    callback = DenseCallback(monitor())
    fit = trainer(lightning, tmp_path, callback, best, enable_checkpointing=True)
    fit.fit(learner, loader(), loader())
    assert fit.state.finished
    assert [record.status for record in callback.monitor.records] == ["failed"] * 3


def test_numbers_that_lightning_refuses_do_not_stop_the_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lightning = package("pytorch_lightning")

    def refuse(*given: Any) -> None:
        raise ValueError("twice the same name")

    learner = module_of(lightning)
    monkeypatch.setattr(learner, "log_dict", refuse)
    trainer(lightning, tmp_path, DenseCallback(monitor())).fit(learner, loader())
    assert caplog.text.count("twice the same name; the training goes on") == 3


def test_an_alarm_stops_the_fit_if_asked(tmp_path: Path) -> None:
    lightning = package("pytorch_lightning")

    class Collapse(lightning.Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch >= 7:
                for part in (pl_module.student, pl_module.teacher):
                    part.norm.weight.data.zero_()[0] = 1.0

    asked = DenseCallback(monitor(stop_on_alarm=True))
    fit = trainer(lightning, tmp_path, Collapse(), asked, max_epochs=12)
    fit.fit(module_of(lightning), loader(4))
    assert fit.current_epoch < 12
    assert len(asked.monitor.records) == 9


@pytest.mark.parametrize(
    ("more", "text"), [({"every_n_epochs": 0}, "at least 1"), ({"every_n_steps": 0}, "at least 1")]
)
def test_impossible_intervals_are_refused(more: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        DenseCallback(monitor(), **more)
    with pytest.raises(InputError, match="leave every=1 to the monitor"):
        DenseCallback(monitor(every=2))


def test_stable_pretraining_configures_it_by_plain_values(
    tmp_path: Path, tiny_images: Path
) -> None:
    """A stand-in of the shape of its modules: TeacherStudentWrapper around MaskedEncoder."""
    lightning = package("lightning.pytorch")

    class Part(nn.Module):
        def __init__(self, **parts: nn.Module) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

    learner = module_of(lightning)
    learner.encoder = Part(
        student=Part(vit=learner.student),
        teacher=Part(vit=learner.__dict__["_modules"].pop("teacher")),
    )
    learner.teacher = learner.encoder.teacher.vit
    document = json.loads(json.dumps({"settings": {**PLAIN, "lidar_views": 2}, "image_size": 32}))
    callback = DenseStructureCallback(
        tiny_images, count=16, output=str(tmp_path / "out"), **document
    )
    trainer(lightning, tmp_path, callback).fit(learner, loader())
    assert callback.monitor.settings == ScoreSettings(
        global_clusters=6, lidar_images=0, lidar_views=2
    )
    assert [record.status for record in callback.monitor.records] == ["scored"] * 3
    assert callback.monitor.records[0].checkpoint["weights"] == "encoder.teacher.vit"
