"""Whose checkpoints a folder holds: runs do not merge, none is left out or misordered silently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from tests.cli.running import BACKBONE, SCORING, densescope, refused
from tests.tiny_run import ARCHITECTURE, OPTIONS, checkpoint, write_checkpoints

ARCHITECTURE_OPTIONS = [f"--architecture-option={key}={value}" for key, value in OPTIONS.items()]
AT_ONCE = ["--settle", 0, "--once"]


def backbone_of(seed: int) -> dict[str, Any]:
    teacher: Any = checkpoint(seed)["teacher"]
    beginning = "backbone."
    return {k.removeprefix(beginning): v for k, v in teacher.items() if k.startswith(beginning)}


def save(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(content), path)


def dino(verb: str, run: Path, images: Path, output: Path, *more: object) -> list[object]:
    return [verb, run, *BACKBONE, *SCORING, "--images", images, "--output", output, *more]


def other(verb: str, run: Path, images: Path, output: Path, *more: object) -> list[object]:
    """Of a format that has no architecture of its own: the format is among ``more``."""
    backbone = ["--architecture", ARCHITECTURE, *ARCHITECTURE_OPTIONS]
    return [verb, run, *backbone, *SCORING, "--images", images, "--output", output, *more]


def names_and_steps(output: Path) -> list[tuple[str, int, str]]:
    return [(record.name, record.step, record.unit) for record in RunStore(output).records()]


def documents(output: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((output / "records").iterdir())}


@pytest.fixture
def swept_run(tiny_run: Path, tiny_images: Path, tmp_path: Path) -> Path:
    """A run of three checkpoints, and its records in ``out``."""
    (tiny_run / "checkpoint0002.pth").unlink()
    said = densescope(*dino("sweep", tiny_run, tiny_images, tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    return tiny_run


@pytest.mark.parametrize("verb", ["sweep", "watch"])
def test_another_runs_checkpoints_do_not_join_a_curve(
    verb: str, swept_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    before = documents(tmp_path / "out")
    once = AT_ONCE if verb == "watch" else []
    for epochs in (range(5, 7), range(1, 2), range(9, 10)):  # other names, and one that is there
        run = tmp_path / f"run of {epochs}"
        write_checkpoints(run, epochs)
        if 9 in epochs:  # names that make no order with those that are there
            (run / "checkpoint0009.pth").rename(run / "step_1000.pth")
        text = refused(densescope(*dino(verb, run, tiny_images, tmp_path / "out", *once)))
        assert f"out holds the scores of the checkpoints in {swept_run}, and {run} is" in text
        assert "two runs would become one. Use another --output, or say --moved" in text
    assert documents(tmp_path / "out") == before


def test_a_relative_path_is_the_same_place(
    swept_run: Path,
    tiny_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(swept_run.parent)
    said = densescope(*dino("sweep", Path(swept_run.name), tiny_images, tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    assert "2 checkpoints were scored before and are kept" in said.stdout


@pytest.mark.parametrize("verb", ["sweep", "watch"])
def test_a_run_that_moved_goes_on_where_it_is_the_same(
    verb: str, swept_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    place, before = tmp_path / "elsewhere", documents(tmp_path / "out")
    shutil.copytree(swept_run, place, copy_function=shutil.copyfile)
    (place / "checkpoint0000.pth").unlink()  # training deletes old ones
    write_checkpoints(place, range(3, 4))
    once = AT_ONCE if verb == "watch" else []
    said = densescope(*dino(verb, place, tiny_images, tmp_path / "out", "--moved", *once))
    assert said.returncode == 0, said.stderr
    after = documents(tmp_path / "out")
    assert len(after) == len(before) + 1
    for name, document in before.items():  # a copy has another time of change, and no other news
        then, now = json.loads(document), json.loads(after[name])
        for one in (then, now):
            one["timing"].pop("checkpoint_modified")
        assert now == then
    assert json.loads((tmp_path / "out" / "run.json").read_text())["run_folder"] == str(place)


@pytest.mark.parametrize("verb", ["sweep", "watch"])
def test_another_run_is_not_one_that_moved(
    verb: str, swept_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    before, once = documents(tmp_path / "out"), AT_ONCE if verb == "watch" else []
    run = tmp_path / "other"
    save(run / "checkpoint0001.pth", checkpoint(77))
    words = dino(verb, run, tiny_images, tmp_path / "out", "--moved", "--rescore", *once)
    assert "checkpoint0001.pth is another file than the one that was scored: this is not the " in (
        refused(densescope(*words))
    )
    (run / "checkpoint0001.pth").rename(run / "checkpoint0009.pth")
    assert "none of the checkpoints that" in refused(densescope(*words))
    assert documents(tmp_path / "out") == before


@pytest.mark.parametrize("verb", ["sweep", "watch"])
def test_a_changed_file_is_named_and_scored_again_on_demand_only(
    verb: str, swept_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    before, once = documents(tmp_path / "out"), AT_ONCE if verb == "watch" else []
    save(swept_run / "checkpoint0001.pth", checkpoint(77))
    write_checkpoints(swept_run, range(3, 4))
    words = dino(verb, swept_run, tiny_images, tmp_path / "out", *once)
    text = refused(densescope(*words))
    assert "checkpoint0001.pth is another file than the one that was scored" in text
    assert "say --rescore; if it is another one, use another --output" in text
    assert documents(tmp_path / "out") == before
    said = densescope(*words, "--rescore")
    assert said.returncode == 0, said.stderr
    after = documents(tmp_path / "out")
    changed = [name for name in after if after[name] != before.get(name)]
    assert changed == ["checkpoint0001.pth.json", "checkpoint0003.pth.json"]


def test_numbers_of_any_length_are_scored_in_order(tiny_images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for seed, name in enumerate(("checkpoint0000", "checkpoint500", "checkpoint10000")):
        save(run / f"{name}.pth", {**checkpoint(seed), "epoch": int(name[10:]) + 1})
    save(run / "checkpoint.pth", checkpoint(9))
    said = densescope(*dino("sweep", run, tiny_images, tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    assert "3 of 3 checkpoints scored" in said.stdout
    assert "passed over, as they have no number: checkpoint.pth" in said.stdout
    positions = [(step, unit) for _, step, unit in names_and_steps(tmp_path / "out")]
    assert positions == [(0, "epoch"), (500, "epoch"), (10000, "epoch")]


@pytest.mark.parametrize("verb", ["sweep", "watch"])
def test_what_looks_like_a_checkpoint_and_is_left_out_is_in_the_exit_code(
    verb: str, tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    save(tiny_run / "step_1000.pt", checkpoint(9))
    once = AT_ONCE if verb == "watch" else []
    words = dino(verb, tiny_run, tiny_images, tmp_path / "out", *once)
    text = refused(densescope(*words), 3)
    assert "left out, though they look like checkpoints: step_1000.pt" in text
    said = densescope(*words, "--pattern", r"^checkpoint(\d+)\.pth$")
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("verb", ["sweep", "watch"])
def test_lightning_checkpoints_of_one_epoch_are_in_order_of_steps(
    verb: str, tiny_images: Path, tmp_path: Path
) -> None:
    run, once = tmp_path / "run", AT_ONCE if verb == "watch" else []
    for seed, step in enumerate((500, 1000, 1500)):
        tensors = {f"backbone.{key}": value for key, value in backbone_of(seed).items()}
        content = {"state_dict": tensors, "epoch": step // 1500, "global_step": step}
        save(run / f"epoch={step // 1500}-step={step}.ckpt", content)
    shutil.copy(run / "epoch=1-step=1500.ckpt", run / "last.ckpt")
    words = other(verb, run, tiny_images, tmp_path / "out", "--format", "lightning", *once)
    said = densescope(*words)
    assert said.returncode == 0, said.stdout + said.stderr
    names = [name for name, _, _ in names_and_steps(tmp_path / "out")]
    assert names == ["epoch=0-step=500.ckpt", "epoch=0-step=1000.ckpt", "epoch=1-step=1500.ckpt"]
    assert {unit for _, _, unit in names_and_steps(tmp_path / "out")} == {"step"}
    table = densescope("select", tmp_path / "out").stdout
    assert table.index("step=500") < table.index("step=1000") < table.index("step=1500")


@pytest.mark.parametrize(
    "names",
    [["step=20000.ckpt"], ["epoch=3.ckpt"], ["dino-f00d-ep=9.ckpt", "dino-f00d-ep=10.ckpt"]],
)
def test_other_names_of_lightning_codes_are_scored(
    names: list[str], tiny_images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for seed, name in enumerate(names):
        tensors = {f"backbone.{key}": value for key, value in backbone_of(seed).items()}
        save(run / name, {"state_dict": tensors, "epoch": 3})
    words = other("sweep", run, tiny_images, tmp_path / "out", "--format", "lightning")
    said = densescope(*words)
    assert said.returncode == 0, said.stderr
    assert [name for name, _, _ in names_and_steps(tmp_path / "out")] == names


@pytest.mark.parametrize("verb", ["sweep", "watch"])
def test_a_number_far_above_the_files_epochs_counts_steps(
    verb: str, tiny_images: Path, tmp_path: Path
) -> None:
    """The first file alone could be read either way; the last cannot."""
    run, once = tmp_path / "run", AT_ONCE if verb == "watch" else []
    for seed, (step, epoch) in enumerate(((0, 0), (5000, 2), (10000, 4))):
        save(run / f"model_{step}.pt", {"model": backbone_of(seed), "epoch": epoch})
    words = other(verb, run, tiny_images, tmp_path / "out", "--format", "timm", *once)
    said = densescope(*words)
    assert said.returncode == 0, said.stdout + said.stderr
    assert {unit for _, _, unit in names_and_steps(tmp_path / "out")} == {"step"}
    again = densescope(*words, "--unit", "epoch")
    assert again.returncode == 0, again.stderr
    assert {unit for _, _, unit in names_and_steps(tmp_path / "out")} == {"epoch"}


def test_what_plain_numbers_count_is_not_guessed_and_probes_go_with_it(
    tiny_images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for seed, number in enumerate((3, 20, 41)):
        save(run / f"model-{number}.pt", {"model": backbone_of(seed)})
    words = other("sweep", run, tiny_images, tmp_path / "out", "--format", "timm")
    said = densescope(*words)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "do not say what they count, and are called checkpoint numbers" in said.stdout
    chosen = densescope("select", tmp_path / "out").stdout
    assert "(checkpoint number " in chosen
    assert "epoch" not in chosen.replace("--unit epoch", "")
    store = RunStore(tmp_path / "out")
    for record in store.records():
        probe = ProbeRecord(record.name, record.step, record.unit, "linear", "voc2012", "miou")
        store.write_probe("voc2012-linear", replace(probe, values=(0.2,)))
    said = densescope(*words, "--unit", "step")
    assert said.returncode == 0, said.stderr
    assert "do not say what they count" not in said.stdout
    assert {unit for _, _, unit in names_and_steps(tmp_path / "out")} == {"step"}
    assert {probe.unit for probe in store.probes()["voc2012-linear"]} == {"step"}
    assert densescope("correlate", tmp_path / "out").returncode == 0


@pytest.mark.parametrize(("offset", "unit"), [(0, "epoch"), (1, "epoch"), (3, "checkpoint number")])
def test_numbers_that_a_files_counter_confirms_are_epochs(
    offset: int, unit: str, tiny_images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for number in (3, 4):
        save(run / f"model-{number}.pt", {"model": backbone_of(number), "epoch": number + offset})
    (run / "model-5.pt").write_bytes(b"")
    words = other("sweep", run, tiny_images, tmp_path / "out", "--format", "timm")
    assert densescope(*words).returncode == 3
    assert {found for _, _, found in names_and_steps(tmp_path / "out")} == {unit}


def test_two_checkpoints_at_one_step_are_refused_before_any_is_scored(
    tiny_images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for name in ("step_5.pt", "step_5_ema.pt", "step_9.pt"):
        save(run / name, {"model": backbone_of(0)})
    words = other("sweep", run, tiny_images, tmp_path / "out", "--format", "timm")
    text = refused(densescope(*words))
    assert "step_5.pt, step_5_ema.pt are all at step 5" in text
    said = densescope(*words, "--pattern", r"^step_(?P<step>\d+)\.pt$")
    assert said.returncode == 0, said.stderr
    assert [name for name, _, _ in names_and_steps(tmp_path / "out")] == ["step_5.pt", "step_9.pt"]


@pytest.mark.parametrize("verb", ["sweep", "watch"])
def test_checkpoints_in_sub_folders_are_scored_by_their_paths(
    verb: str, tiny_images: Path, tmp_path: Path
) -> None:
    run, once = tmp_path / "run", AT_ONCE if verb == "watch" else []
    for step in (9, 10):
        save(run / f"step_{step}" / "weights" / "model.pt", checkpoint(step))
        save(run / f"step_{step}" / "optimizer.pt", {"state": {}})
    words = dino(verb, run, tiny_images, tmp_path / "out", *once)
    assert "sub-folders hold some: " in refused(densescope(*words))
    said = densescope(*words, "--recursive")
    assert said.returncode == 0, said.stdout + said.stderr
    assert names_and_steps(tmp_path / "out") == [
        ("step_9/weights/model.pt", 9, "step"),
        ("step_10/weights/model.pt", 10, "step"),
    ]
    selected = densescope("select", tmp_path / "out")
    assert "step_10/weights/model.pt" in selected.stdout


def test_a_watch_where_nothing_fits_says_what_is_there_and_ends_with_an_exit_code(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    parent = tiny_run.parent
    words = dino("watch", parent, tiny_images, tmp_path / "scores" / "out", "--settle", 0)
    text = refused(densescope(*words, "--once"))
    assert "none is named like checkpoint0007.pth or checkpoint.pth" in text
    assert "sub-folders hold some: run/ (3) (names of these formats: dino, ibot, mugs" in text
    assert "; give one of them, or all with --recursive" in text
    said = densescope(*words, "--poll", 0.01, "--until-idle", 0.05)
    assert said.returncode == 1
    assert said.stdout.count("nothing to score yet: no checkpoint of format dino in") == 1
    assert "nothing was scored: no checkpoint of format dino in" in said.stderr


def test_a_watch_that_cannot_order_what_comes_says_so_and_ends_with_an_exit_code(
    tiny_images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    save(run / "epoch=3.ckpt", {"state_dict": {}})
    words = other("watch", run, tiny_images, tmp_path / "out", "--format", "lightning")
    ended = ["--settle", 0, "--poll", 0.01, "--until-idle", 0.05]
    assert densescope(*words, *ended).returncode == 3
    save(run / "step=20000.ckpt", {"state_dict": {}})
    text = refused(densescope(*words, *ended), 3)
    assert "left out, though they look like checkpoints: step=20000.ckpt" in text


def test_a_watch_that_ends_before_any_file_is_whole_has_an_exit_code(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = dino("watch", tiny_run, tiny_images, tmp_path / "out", "--settle", 600, "--once")
    said = densescope(*words)
    assert said.returncode == 3
    assert "not whole yet: checkpoint0000.pth" in said.stdout


def test_a_watch_of_another_format_names_the_formats_that_would_take_the_files(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = other("watch", tiny_run, tiny_images, tmp_path / "out", "--format", "mae", *AT_ONCE)
    said = densescope(*words)
    assert said.returncode == 3
    assert "no name is one that mae writes (checkpoint-7.pth); others with a number" in said.stdout
    assert "(names of these formats: dino, ibot, mugs, esvit" in said.stdout
    assert "0 of 3 checkpoints scored" in said.stdout


def test_what_a_pattern_cannot_be_is_wrong_usage(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = dino("sweep", tiny_run, tiny_images, tmp_path / "out", "--pattern", "step_")
    assert "has no group for the number" in refused(densescope(*words), 2)
