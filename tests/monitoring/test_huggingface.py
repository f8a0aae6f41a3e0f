"""The callback in the real Trainer of Transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.monitoring.huggingface import DenseTrainerCallback
from densescope.monitoring.monitor import DenseMonitor
from tests.monitoring.scenes import SETTINGS, pixels

pytestmark = pytest.mark.filterwarnings("ignore")


def trainer(folder: Path, callback: DenseTrainerCallback, **more: Any) -> Any:
    from transformers import Trainer, TrainingArguments, ViTConfig, ViTForMaskedImageModeling

    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        encoder_stride=8,
    )
    model = ViTForMaskedImageModeling(config)
    data = [
        {"pixel_values": image.float() / 255, "bool_masked_pos": torch.arange(16) % 2 == 0}
        for image in pixels(12)
    ]
    given: dict[str, Any] = {
        "output_dir": str(folder / "trainer"),
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "learning_rate": 1e-3,
        "prediction_loss_only": True,
    }
    return Trainer(
        model,
        TrainingArguments(**given | more),
        train_dataset=data,
        eval_dataset=data[:4],
        callbacks=[callback],
    )


def monitor(**more: Any) -> DenseMonitor:
    return DenseMonitor(pixels(), settings=SETTINGS, **more)


def test_it_observes_steps(tmp_path: Path) -> None:
    callback = DenseTrainerCallback(monitor(), every_n_steps=2)
    run = trainer(tmp_path, callback)
    run.train()
    assert [record.step for record in callback.monitor.records] == [2, 4, 6]
    record = callback.monitor.records[0]
    assert (record.status, record.checkpoint["architecture"]) == (
        "scored",
        "ViTForMaskedImageModeling",
    )
    assert run.model.training


EVALUATING = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "densescope/dse",
    "greater_is_better": True,
}


@pytest.mark.parametrize("best_of", [max, min])
def test_the_best_checkpoint_is_that_of_dse_and_holds_the_weights_of_its_step(
    best_of: Callable[[list[float]], float], tmp_path: Path
) -> None:
    from transformers import TrainerCallback

    seen: dict[int, dict[str, Tensor]] = {}

    class Keep(TrainerCallback):  # type: ignore[misc]
        def on_evaluate(self, args: Any, state: Any, control: Any, model: Any, **more: Any) -> None:
            seen[state.global_step] = {k: v.clone() for k, v in model.state_dict().items()}

    callback = DenseTrainerCallback(monitor())
    run = trainer(tmp_path, callback, **EVALUATING | {"greater_is_better": best_of is max})
    run.add_callback(Keep)
    run.train()
    values = [record.estimate("released.dse_lambda_1").value for record in callback.monitor.records]
    assert len(values) == 3
    assert run.state.best_metric == pytest.approx(best_of(values))
    best = 2 * (values.index(best_of(values)) + 1)
    assert run.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    read = type(run.model).from_pretrained(run.state.best_model_checkpoint).state_dict()
    assert read.keys() == seen[best].keys()
    assert all(torch.equal(read[name], seen[best][name]) for name in read)
    other = 2 if best > 2 else 4
    assert not all(torch.equal(read[name], seen[other][name]) for name in read)


def test_a_look_that_fails_does_not_stop_the_trainer(tmp_path: Path) -> None:
    def lost(model: Any) -> Tensor:
        raise RuntimeError("the device is lost")

    callback = DenseTrainerCallback(monitor(backbone=lost))
    run = trainer(tmp_path, callback, **EVALUATING)
    run.train()
    assert run.state.global_step == 6
    assert run.state.best_metric == -math.inf


def test_an_alarm_stops_the_trainer_if_asked(tmp_path: Path) -> None:
    from transformers import TrainerCallback

    class Collapse(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(
            self, args: Any, state: Any, control: Any, model: Any, **more: Any
        ) -> None:
            if state.global_step >= 7:
                model.vit.layernorm.weight.data.zero_()[0] = 1.0

    callback = DenseTrainerCallback(monitor(stop_on_alarm=True), every_n_steps=1)
    run = trainer(tmp_path, callback, max_steps=15)
    run.add_callback(Collapse)
    run.train()
    assert run.state.global_step == 9


def test_impossible_intervals_are_refused() -> None:
    with pytest.raises(InputError, match="every_n_steps must be at least 1"):
        DenseTrainerCallback(monitor(), every_n_steps=0)
    with pytest.raises(InputError, match="leave every=1 to the monitor"):
        DenseTrainerCallback(monitor(every=2))
