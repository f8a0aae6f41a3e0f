"""A run that was stitched from two trainings, from its files to what every verb says of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from tests.cli.running import BACKBONE, SCORING, densescope
from tests.tiny_run import checkpoint

SENTENCE = (
    "The schedule looks stitched: at checkpoint0003.pth (epoch 3) the learning rate rises again "
    "from 0.0005 to 0.002; 'epochs' changes from 100 to 300. It is marked as resumed (start_epoch "
    "3). What changes there may come from the schedule: select the parts alone."
)


def write(folder: Path, *, stitched: bool) -> Path:
    folder.mkdir()
    for epoch, rate in enumerate([0.1, 0.001, 0.0005, 0.002 if stitched else 0.0002]):
        second = stitched and epoch >= 3
        settings = {"epochs": 300 if second else 100, "start_epoch": 3 if second else 0}
        told = {
            "optimizer": {"state": {}, "param_groups": [{"lr": rate, "params": [0]}]},
            "args": argparse.Namespace(arch="vit_small", **settings),
        }
        torch.save({**checkpoint(epoch), **told}, folder / f"checkpoint{epoch:04d}.pth")
    return folder


def test_select_correlate_and_report_say_that_a_schedule_is_stitched(
    tiny_images: Path, tmp_path: Path
) -> None:
    words = ["sweep", write(tmp_path / "run", stitched=True), *BACKBONE, *SCORING]
    scores = tmp_path / "scores"
    swept = densescope(*words, "--images", tiny_images, "--output", scores)
    assert swept.returncode == 0, swept.stderr
    chosen = densescope("select", scores, "--write", tmp_path / "choice.json")
    assert SENTENCE in chosen.stdout
    assert json.loads((tmp_path / "choice.json").read_text())["stitched"] == SENTENCE
    assert densescope("report", scores).returncode == 0
    assert SENTENCE.replace("'", "&#39;") in (scores / "report.html").read_text()
    for epoch in range(4):
        named = (f"checkpoint{epoch:04d}.pth", epoch, "epoch", "quick", "camvid", "miou")
        RunStore(scores).write_probe("camvid-quick", ProbeRecord(*named, (0.1 * epoch,)))
    correlated = densescope("correlate", scores)
    assert correlated.returncode == 0, correlated.stderr
    assert f"scores: {SENTENCE}" in correlated.stdout
    stored = json.loads((scores / "correlation" / "camvid-quick.json").read_text())
    assert {row["kind"] for row in stored["schedule"]} == {"learning rate", "length", "resumed"}


def test_one_training_is_not_flagged(tiny_images: Path, tmp_path: Path) -> None:
    words = ["sweep", write(tmp_path / "run", stitched=False), *BACKBONE, *SCORING]
    swept = densescope(*words, "--images", tiny_images, "--output", tmp_path / "scores")
    assert swept.returncode == 0, swept.stderr
    assert "stitched" not in densescope("select", tmp_path / "scores").stdout
    record = RunStore(tmp_path / "scores").records()[1]
    assert record.checkpoint["training"]["learning_rate"] == 0.001
