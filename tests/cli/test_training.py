"""``pretrain`` and ``methods`` as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from densescope import writing
from densescope.pretraining.methods import METHODS
from densescope.runs.store import RunStore
from tests.cli.running import COMMAND, ENVIRONMENT, SCORING, densescope, refused
from tests.pretraining.tiny import content, same

pytest.importorskip("lightly")
pytest.importorskip("pytorch_lightning")

NETWORK = [
    *("--architecture", "vit_tiny_patch16_224", "--image-size", "32", "--device", "cpu"),
    *("--architecture-option", "patch_size=8,embed_dim=16,depth=1,num_heads=2"),
]
RUN = ["--steps", "4", "--batch-size", "8", "--checkpoint-every", "2"]


SMALL = ["--set", "head_dim=32", "--set", "output_dim=16"]


def pretrain(method: str, images: Path, output: Path, *more: object) -> list[object]:
    words = ["pretrain", "--method", method, "--images", images, "--output", output]
    return [*words, *NETWORK, *RUN, *more]


def test_a_run_its_next_command_and_going_on(tiny_images: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    words = pretrain("mocov3", tiny_images, output, *SMALL, "--logger", "csv")
    result = densescope(*words)
    assert result.returncode == 0, result.stderr
    assert "training on 32 images" in result.stdout
    logged = [json.loads(line) for line in (output / "log.txt").read_text().splitlines()]
    for step, name, line in zip((2, 4), ("0000", "0001"), logged, strict=True):
        loss = f"mean loss {line['train_loss']:.3f}"
        assert f"[{step}/4] checkpoint_{name}.pth.tar: {loss}, " in result.stdout
    assert (output / "log" / "metrics.csv").is_file()

    command = result.stdout.split("next: densescope ")[1].splitlines()[0]
    scored = command.replace("DIR", str(tiny_images)).replace("SCORES", str(tmp_path / "scores"))
    swept = densescope(*shlex.split(scored), *SCORING)
    assert swept.returncode == 0, swept.stderr
    assert "2 of 2 checkpoints scored" in swept.stdout

    # the files say of what network they are, and it is the one that could be named instead
    records = RunStore(tmp_path / "scores").records()
    network = records[0].checkpoint
    options = [f"--architecture-option={key}={item}" for key, item in network["options"].items()]
    named = ["--architecture", network["architecture"], *options]
    assert "--architecture" not in command
    assert "patch_size=8" in " ".join(options)
    said = ["sweep", output, "--format", "mocov3", *named, "--images", tiny_images]
    told = densescope(*said, "--output", tmp_path / "told", *SCORING)
    assert "2 of 2 checkpoints scored" in told.stdout
    assert [one.scores for one in RunStore(tmp_path / "told").records()] == [
        one.scores for one in records
    ]

    assert "already holds checkpoints" in refused(densescope(*words))
    left = output / ".checkpoint_0001.pth.tar.0123456789abcdef.part"  # of a write that was killed
    left.touch()
    os.utime(left, (0, 0))
    writing._tidied.clear()
    again = densescope(*words, "--resume")
    assert again.returncode == 0, again.stderr
    assert not left.exists()
    assert again.stdout.startswith(
        f"already finished: {output} has done its 4 steps\n2 checkpoints in"
    )
    assert f"next: densescope {command}" in again.stdout
    sentence = refused(densescope(*words, "--resume", "--steps", "9"))
    assert "steps was 4 and is 9" in sentence
    lines = [json.loads(line) for line in (output / "log.txt").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]


def test_control_c_says_how_to_go_on(tiny_images: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    words = pretrain("mocov3", tiny_images, output, *SMALL, "--steps", 4000)
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("*.tar")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    said = f"stopped; continue with: densescope pretrain --output {output} --resume"
    assert complaint.splitlines()[-1] == f"densescope: {said}"


def test_a_run_goes_on_with_its_own_options(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    monkeypatch.chdir(tiny_images.parent)
    words = pretrain("mocov3", Path(tiny_images.name), output, *SMALL, "--regularizer", "dse")
    assert densescope(*words).returncode == 0
    kept = (output / "pretrain.json").read_text()
    last = output / "checkpoint_0001.pth.tar"
    whole = content(last)
    assert "already holds checkpoints" in refused(densescope(*words, "--seed", "7"))
    assert (output / "pretrain.json").read_text() == kept
    last.unlink()
    monkeypatch.chdir(tmp_path)
    again = densescope("pretrain", "--resume", "--output", "run")
    assert again.returncode == 0, again.stderr
    assert "[4/4] checkpoint_0001.pth.tar: mean loss" in again.stdout
    assert same(content(last), whole)
    assert (output / "pretrain.json").read_text() == kept
    config = tmp_path / "c.toml"
    config.write_text('output = "run"\nsteps = 9\n')
    for given in (["--output", output, "--steps", 9], ["--config", config]):
        sentence = refused(densescope("pretrain", *given, "--resume"))
        assert "belongs to a run with other settings: steps was 4 and is 9." in sentence
    nowhere = ["--output", tmp_path / "none"]
    assert "nothing to resume: there is no folder" in refused(
        densescope("pretrain", "--resume", *nowhere)
    )


def test_other_settings_are_refused_before_any_image_is_read(
    tiny_images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert densescope(*pretrain("mocov3", tiny_images, output, *SMALL)).returncode == 0
    nowhere = pretrain("mocov3", tmp_path / "no images", output, *SMALL, "--resume")
    assert "steps was 4 and is 9." in refused(densescope(*nowhere, "--steps", 9))
    assert densescope(*nowhere).stdout.startswith("already finished: ")
    (output / "checkpoint_0001.pth.tar").unlink()
    assert "does not exist" in refused(densescope(*nowhere))
    others = pretrain("mocov3", tiny_images, output, *SMALL, "--resume", "--images-count", 16)
    assert "the images differ" in refused(densescope(*others))


def test_a_folder_that_cannot_be_used_is_refused_before_any_image_is_read(tmp_path: Path) -> None:
    nowhere, run, file = tmp_path / "no images", tmp_path / "run", tmp_path / "file"
    run.mkdir()
    file.touch()
    assert "nothing to resume: no checkpoint" in refused(
        densescope(*pretrain("mocov3", nowhere, run, "--resume"))
    )
    assert f"{file} is a file" in refused(densescope(*pretrain("mocov3", nowhere, file)))
    (run / "checkpoint_0000.pth.tar").touch()
    assert "already holds checkpoints" in refused(densescope(*pretrain("mocov3", nowhere, run)))
    assert "does not exist" in refused(densescope(*pretrain("mocov3", nowhere, tmp_path / "new")))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "more",
    [["--beta", 1], ["--regularizer-every", 2], ["--monitor-every", 2], ["--stop-on-alarm"]],
)
def test_an_option_of_what_was_not_asked_for_is_refused(more: list[object], tmp_path: Path) -> None:
    said = refused(densescope(*pretrain("mocov3", tmp_path, tmp_path / "run", *more)), 2)
    assert f"{more[0]} has an effect only with --" in said


def test_a_regularized_run_from_a_checkpoint(tiny_images: Path, tmp_path: Path) -> None:
    first = densescope(*pretrain("mocov3", tiny_images, tmp_path / "a", *SMALL))
    assert first.returncode == 0, first.stderr
    start = ["--start-from", tmp_path / "a" / "checkpoint_0001.pth.tar"]
    added = ["--regularizer", "gram", "--beta", "0.5"]
    second = densescope(*pretrain("mocov3", tiny_images, tmp_path / "b", *SMALL, *start, *added))
    assert second.returncode == 0, second.stderr
    alone = refused(densescope(*pretrain("mocov3", tiny_images, tmp_path / "c", *SMALL, *added)))
    assert "--start-from" in alone


def test_every_observation_of_a_monitor_is_a_line_and_its_records_have_no_weights(
    tiny_images: Path, tmp_path: Path
) -> None:
    monitoring = ["--monitor", tiny_images, "--monitor-count", 32, "--monitor-every", 1]
    run = densescope(*pretrain("mocov3", tiny_images, tmp_path / "run", *SMALL, *monitoring))
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("observation ")]
    assert [line.split(":")[0] for line in lines] == [
        "observation 1 at step 0",
        "observation 2 at step 1",
        "observation 3 at step 2 (checkpoint_0000.pth.tar)",
        "observation 4 at step 3",
        "observation 5 at step 4 (checkpoint_0001.pth.tar)",
    ]
    numbers = (
        r"separability -?\d\S+ ± \S+, effective rank \d\S+ ± \S+, DSE \(lambda = 1\) \d\S+ ± [^;]+"
    )
    assert all(re.search(rf": {numbers}; no alarm$", line) for line in lines)
    seen = densescope("select", tmp_path / "run" / "monitor").stdout
    named = r"(step [013]|checkpoint_000[01]\.pth\.tar \(step [24]\))\."
    assert re.search(rf"(Use|the earliest peak is) {named}", seen)
    labels = ["--dataset", "scenes", "--root", tmp_path]
    sentence = refused(densescope("probe", tmp_path / "run" / "monitor", *labels))
    assert "but no weights to probe. Score the checkpoints of that run" in sentence


@pytest.mark.parametrize(
    ("method", "more", "sentence"),
    [
        ("mocov2", [], "there is no method 'mocov2'; did you mean mocov3?"),
        ("nope", [], "there is no method 'nope'; there are mocov3, "),
        ("dino", ["--set", "nope=3"], "no 'nope'; there are "),
        ("dino", ["--set", "prototype=3"], "no 'prototype'; did you mean prototypes?"),
        ("mae", ["--architecture", "resnet18"], "MAE cannot train resnet18"),
        ("byol", ["--batch-size", "1"], "BYOL needs at least 2 images at once on a device, not 1"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(
    method: str, more: list[str], sentence: str, tiny_images: Path, tmp_path: Path
) -> None:
    words = ["pretrain", "--method", method, "--images", tiny_images, "--output", tmp_path, *more]
    assert sentence in refused(densescope(*words), 2)


def test_methods_lists_all_and_shows_one() -> None:
    listed = densescope("methods")
    assert listed.returncode == 0, listed.stderr
    assert all(row.title in listed.stdout for row in METHODS.values())
    one = densescope("methods", "byol")
    assert "learning_rate: 0.3 -> 0.001" in one.stdout
    assert "resnet50_1.pth.tar" in one.stdout
