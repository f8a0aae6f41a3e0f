"""What is kept of how a checkpoint was trained."""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densescope.features.checkpoints import read_checkpoint
from densescope.features.inert import Inert
from densescope.features.stored import StoredTensor
from densescope.features.training import MOST_SETTINGS, trainer_facts, training_facts
from tests.features.written_layouts import LAYOUTS

GROUPS = [{"lr": np.float64(0.25), "weight_decay": 0.4, "params": [0]}, {"lr": 0.1, "params": [1]}]


def read_back(content: Any, folder: Path) -> Any:
    torch.save(content, folder / "file.pth")
    return read_checkpoint(folder / "file.pth").content


def test_a_file_of_a_training_code(tmp_path: Path) -> None:
    args = argparse.Namespace(
        epochs=800,
        batch_size_per_gpu=64,
        lr=0.0005,
        local_crops_scale=(0.05, 0.4),
        output_dir=pathlib.PosixPath("/some/where"),
        data_path="/data",
        num_workers=10,
        wandb_api_key="123",
        hub_token="456",
        gpu=0,
        resume="/old/checkpoint.pth",
        start_epoch=50,
    )
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.ones(3)}}, "param_groups": GROUPS}
    content = {"teacher": {"w": torch.ones(3)}, "optimizer": optimizer, "epoch": 51, "args": args}
    assert training_facts(read_back(content, tmp_path)) == {
        "learning_rate": 0.25,
        "weight_decay": 0.4,
        "counters": {"epoch": 51},
        "resumed": {"resume": "/old/checkpoint.pth", "start_epoch": 50},
        "settings": {
            "args.epochs": 800,
            "args.batch_size_per_gpu": 64,
            "args.lr": 0.0005,
            "args.local_crops_scale": [0.05, 0.4],
        },
    }


def test_a_lightning_file(tmp_path: Path) -> None:
    content = {
        "state_dict": {},
        "epoch": 3,
        "global_step": 400,
        "hyper_parameters": {"max_epochs": 100, "optimizer": {"batch_size": 256}},
        "optimizer_states": [{"state": {}, "param_groups": GROUPS}],
        "lr_schedulers": [{"T_max": 100, "last_epoch": 3, "_last_lr": [0.2], "base_lrs": [0.3]}],
    }
    facts = training_facts(read_back(content, tmp_path))
    assert facts["counters"] == {"epoch": 3, "global_step": 400}
    assert facts["learning_rate"] == 0.25
    assert facts["settings"] == {
        "hyper_parameters.max_epochs": 100,
        "hyper_parameters.optimizer.batch_size": 256,
        "lr_schedulers.0.T_max": 100,
        "lr_schedulers.0.base_lrs": [0.3],
    }


def test_settings_as_text_and_in_the_nodes_of_a_config_library() -> None:
    text = {"densescope": {"step": 4, "settings": json.dumps({"steps": 9, "recipe": {"lr": 0.1}})}}
    assert training_facts(text)["settings"] == {
        "densescope.settings.steps": 9,
        "densescope.settings.recipe.lr": 0.1,
    }
    parent, leaf = Inert(), Inert()
    leaf.state = {"_metadata": None, "_val": 32, "_parent": parent}
    parent.state = {"_content": {"batch": leaf, "again": parent}, "_parent": parent}
    assert training_facts({"cfg": parent})["settings"] == {"cfg.batch": 32}
    beside = {"batch_size": 32, "world_size": 16, "loss": 0.3}  # as I-JEPA's code does
    assert training_facts(beside)["settings"] == {"batch_size": 32, "world_size": 16}
    meta = {"epoch": 2, "iter": 90, "config": "model = dict()\n" * 90, "time": "Mon"}
    found = training_facts({"meta": meta})
    assert found["counters"] == {"epoch": 2, "iter": 90}
    assert found["settings"]["config"].startswith("text ")


def test_a_folder_of_the_trainer_of_transformers(tmp_path: Path) -> None:
    log = [{"learning_rate": 0.001, "loss": 3.0}, {"learning_rate": 0.0005}, {"eval_loss": 1.0}]
    state = {"epoch": 2.5, "global_step": 500, "max_steps": 2000, "train_batch_size": 32}
    (tmp_path / "trainer_state.json").write_text(json.dumps({**state, "log_history": log}))
    assert trainer_facts(tmp_path) == {
        "learning_rate": 0.0005,
        "counters": {"global_step": 500},
        "settings": {"max_steps": 2000, "train_batch_size": 32},
    }
    (tmp_path / "trainer_state.json").write_text('{"log_history": 3}')
    assert trainer_facts(tmp_path) == {}
    assert trainer_facts(tmp_path / "nowhere") == {}


def test_tensors_are_never_read() -> None:
    def read() -> torch.Tensor:
        raise AssertionError("a tensor was read")

    stored = StoredTensor(read, (3,), torch.float32)
    groups = [{"lr": stored, "params": [0]}]
    content = {"model": {"w": stored}, "optimizer": {"param_groups": groups}, "args": {"a": stored}}
    assert training_facts(content) == {}


class Odd(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise RuntimeError("odd")

    def items(self) -> Any:
        raise RuntimeError("odd")


@pytest.mark.parametrize("content", [None, 3, [1, 2], torch.ones(2), Odd(a=1), {"args": Odd(a=1)}])
def test_nothing_odd_fails_a_score(content: Any) -> None:
    assert training_facts(content) == {}


def test_it_is_bounded_in_size_and_time() -> None:
    deep: Any = {"x": 1}
    for _ in range(10_000):
        deep = {"x": deep}
    wide = {f"a{i}": {f"b{j}": j for j in range(100)} for i in range(10_000)}
    started = time.process_time()
    facts = training_facts({"args": wide, "config": deep, "state": [wide] * 100})
    assert time.process_time() - started < 10  # all of it would take minutes
    assert len(facts["settings"]) == MOST_SETTINGS
    assert len(training_facts({"args": {"note": "x" * 10_000}})["settings"]["args.note"]) < 20


@pytest.mark.parametrize("name", ["dino", "mae", "lightning", "densecl", "byol"])
def test_public_layouts(name: str, tmp_path: Path, generator: torch.Generator) -> None:
    content = read_checkpoint(LAYOUTS[name](tmp_path, generator).path).content
    facts = training_facts(content)
    json.dumps(facts)
    assert facts["learning_rate"] in (0.5, 0.25)


def test_parameters_of_an_optimizer_are_not_settings() -> None:
    optimizer = {"param_groups": [{"lr": 0.1, "params": [0, 1, 2]}]}
    facts = training_facts({"densescope": {"optimizer": optimizer, "settings": {"steps": 3}}})
    assert facts == {"learning_rate": 0.1, "settings": {"densescope.settings.steps": 3}}
