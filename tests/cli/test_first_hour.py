"""A new user's files, without a word about their layout: one command each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.features.spec import BackboneSpec
from densescope.metrics import ScoreSettings
from densescope.runs.store import RunStore
from densescope.runs.sweep import score_checkpoint, sweep
from densescope.runs.watch import watch_run
from densescope.runs.watch_events import WatchEvent, WatchSettings
from tests.cli.running import SCORING, densescope, refused
from tests.features.plain_models import vit_weights
from tests.tiny_run import SETTINGS

SPEC = BackboneSpec("timm", "vit_tiny_patch16_224", {"depth": 2, "img_size": 32})


def saved(step: int, path: Path) -> Path:
    """As the loop of somebody who uses timm writes it."""
    generator = torch.Generator().manual_seed(step)
    torch.save({"model": vit_weights(generator, dim=192, patch=16), "step": step}, path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "ckpt"
    folder.mkdir(parents=True)
    for step in (500, 1000, 1500):
        saved(step, folder / f"step_{step}.pt")
    return folder


def test_a_run_is_swept_at_the_first_try(run: Path, tiny_images: Path, tmp_path: Path) -> None:
    words = ["sweep", run, "--images", tiny_images, "--output", tmp_path / "scores", *SCORING]
    done = densescope(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "format auto: read as timm (mae, mae-release would give the same features)" in said
    assert "architecture vit_tiny_patch16_224" in said
    assert "3 of 3 checkpoints scored" in said
    assert "heads 3, depth 2, width 192, patch size 16, norm eps 1e-06" in said
    assert "images by 0.485,0.456,0.406/0.229,0.224,0.225" in said
    held = json.loads((tmp_path / "scores" / "run.json").read_text())["backbone"]
    assert (held["format"], held["architecture"]) == ("timm", "vit_tiny_patch16_224")
    again = densescope(*words)
    assert again.returncode == 0, again.stderr
    assert "3 of 3 checkpoints scored" in again.stdout
    settings = ScoreSettings(**SETTINGS)
    named = sweep(run, SPEC, images=tiny_images, output=tmp_path / "named", settings=settings)
    found = RunStore(tmp_path / "scores").records()
    assert [record.scores for record in found] == [record.scores for record in named]
    assert [record.step for record in found] == [500, 1000, 1500]


def test_one_file_is_checked_and_scored_at_the_first_try(run: Path, tiny_images: Path) -> None:
    file = run / "step_1000.pt"
    checked = densescope("check", file)
    assert checked.returncode == 0, checked.stdout
    said = " ".join(checked.stdout.split())
    assert "format auto: read as timm" in said
    assert "heads=3, depth=2, width=192, patch_size=16, norm_eps=1e-06" in said
    assert "mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]" in said
    scored = densescope("score", file, "--images", tiny_images, *SCORING)
    assert scored.returncode == 0, scored.stderr
    settings = ScoreSettings(**SETTINGS)
    alone = score_checkpoint(file, BackboneSpec(), images=tiny_images, settings=settings)
    named = score_checkpoint(file, SPEC, images=tiny_images, settings=settings)
    assert alone.scores == named.scores


def test_all_that_is_missing_is_named_at_once_with_the_command(tmp_path: Path) -> None:
    said = refused(densescope("sweep", tmp_path / "my run", "--layers", "-1"), 2)
    assert "missing: --output, --images. The whole command: densescope sweep" in said
    assert said.endswith("my run' --layers -1 --output OUTPUT --images IMAGES")
    misspelled = refused(densescope("sweep", tmp_path, "--image", tmp_path, "--output", "o"), 2)
    assert misspelled.endswith("there is no option --image; did you mean --images?")
    config = tmp_path / "c.toml"
    config.write_text('images = "pictures"\n')
    said = refused(densescope("sweep", "--config", config), 2)
    assert "missing: RUN_FOLDER, --output. The whole command: densescope sweep RUN_FOLDER" in said


def test_a_run_of_another_normalization_does_not_go_on_in_the_same_folder(
    run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = ["sweep", run, "--images", tiny_images, "--output", tmp_path / "scores", *SCORING]
    assert densescope(*words).returncode == 0
    said = refused(densescope(*words, "--normalization", "architecture"))
    assert "backbone.normalization: None stored, 'architecture' asked" in said


def watched(run: Path, images: Path, output: Path, **more: Any) -> tuple[Any, list[WatchEvent]]:
    events: list[WatchEvent] = []
    timing = {"settle_seconds": 0.0, "poll_seconds": 0.01, **more.pop("watching", {})}
    result = watch_run(
        run,
        BackboneSpec(),
        images=images,
        output=output,
        settings=ScoreSettings(**SETTINGS),
        watching=WatchSettings(**timing),
        on_event=events.append,
        **more,
    )
    return result, events


def test_a_watch_finds_the_format_when_the_first_checkpoint_is_there(
    tiny_images: Path, tmp_path: Path
) -> None:
    folder, waits = tmp_path / "run", []

    def work(seconds: float) -> None:
        waits.append(seconds)
        folder.mkdir(exist_ok=True)
        if len(waits) == 3:
            os.replace(saved(500, tmp_path / "part"), folder / "step_500.pt")

    result, events = watched(
        folder,
        tiny_images,
        tmp_path / "out",
        watching={"until_idle_seconds": 0.3},
        sleep=work,
    )
    assert [record.status for record in result.records] == ["scored"]
    notes = [event.text for event in events if event.kind == "note"]
    assert notes[0].startswith("waiting for a first checkpoint: there is no folder")
    assert any("format auto: read as timm" in note for note in notes)
    assert RunStore(tmp_path / "out").manifest()["backbone"]["format"] == "timm"


def test_a_watch_of_nothing_ends_when_it_was_idle_for_long(
    tiny_images: Path, tmp_path: Path
) -> None:
    result, events = watched(
        tmp_path / "run", tiny_images, tmp_path / "out", watching={"until_idle_seconds": 0.05}
    )
    assert result.records == ()
    assert len([event for event in events if "waiting for a first" in event.text]) == 1
