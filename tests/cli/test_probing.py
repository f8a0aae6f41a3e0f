"""``probe`` and ``correlate`` as a user runs them."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from densescope.cli.probe_tables import doubts, print_probes
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.records import ProbeRecord
from densescope.runs.store import RunStore
from tests.cli.running import BACKBONE, densescope, refused
from tests.correlation.runs import run_of
from tests.tiny_run import ARCHITECTURE


def write_scenes(folder: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        save_scenes(make_scenes(16, size=32, seed=seed), folder / split)


def test_probe_and_correlate(swept: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path)
    scores = shutil.copytree(swept / "scores", tmp_path / "scores")
    labels = ["--dataset", "scenes", "--root", tmp_path, "--probe-size", 32, "--seeds", "0,1"]
    run = densescope("probe", scores, *labels, "--test-split", "test")
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    assert said[0] == "reading the images and labels of scenes"
    assert said[1] == (
        "probing 6 of 6 checkpoints on scenes (linear): 16 training and 16 test images at 32 pixels"
    )
    assert said[2].startswith("[1/6] checkpoint0000.pth: probed in ")
    assert run.stdout.count("checkpoint000") == 12
    again = densescope("probe", scores, *labels, "--test-split", "test").stdout
    assert "6 checkpoints were probed before and are kept" in again
    assert "probing 6" not in again
    file = swept / "run" / "checkpoint0003.pth"
    one = densescope("probe", file, *labels, "--test-split", "test", *BACKBONE)
    assert one.returncode == 0, one.stderr
    assert "mIoU" in one.stdout
    unnamed = refused(densescope("probe", file, *labels, "--test-split", "test"))
    assert "has the layout of dino, ibot, mugs, but no architecture known here has" in unnamed
    correlated = densescope("correlate", scores)
    assert correlated.returncode == 0, correlated.stderr
    assert "DSE (released)" in correlated.stdout
    assert "number of the checkpoint" in correlated.stdout
    assert (
        "Too few checkpoints: 6 have a score and a probe, and with fewer than 10 tau is"
        in correlated.stdout
    )
    assert "a probe on every checkpoint" in correlated.stdout
    assert "DSE pick (released, shrunk lambda)" in correlated.stdout
    assert re.search(
        r"scores: (The pick depends on the|All 3 definitions of DSE and all 3 rules for lambda)",
        correlated.stdout,
    )
    assert "mean Kendall" not in correlated.stdout
    shutil.copytree(scores, tmp_path / "again")
    several = densescope("correlate", scores, tmp_path / "again")
    assert several.returncode == 0, several.stderr
    assert "mean Kendall tau-b over the runs" in several.stdout
    assert densescope("report", scores).returncode == 0


def test_probing_flat_folders_of_images_and_masks(swept: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "train" / "images").rename(own / "images")
    (tmp_path / "train" / "masks").rename(own / "masks")
    scores = shutil.copytree(swept / "scores", tmp_path / "scores")
    words = ["probe", scores, "--dataset", "folders", "--root", own, "--probe-size", 32]
    few = refused(densescope(*words, "--classes", 2))
    assert f"of 16 images below {own}, some do not fit their masks: - " in few
    assert "with pixel values that are no class" in few
    vain = ["--dataset", "scenes", "--root", tmp_path, "--ignore", 3]
    assert "--ignore has an effect only with --dataset folders" in refused(
        densescope("probe", scores, *vain), 2
    )
    run = densescope(*words, "--only", "shortlist", "--seeds", 0, "--ignore", "3,7")
    assert run.returncode == 0, run.stderr
    assert "12 training and 4 test images at 32 pixels" in run.stdout
    assert "the split was drawn: 4 of 16 images are the test half (fraction 0.25" in run.stdout
    stored = next((scores / "probes").glob("folders-*/*.json")).read_text()
    split = json.loads(stored)["provenance"]["settings"]["data"]["split"]
    assert (split["fraction"], split["test_images"]) == (0.25, 4)
    assert "class 3" not in json.loads(stored)["details"]["classes"]


def test_correlate_with_few_probes_says_what_is_missing_once(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.open({})
    scores, probes = run_of([0.1, 0.3, 0.2], [0.5, 0.6])
    for record in scores:
        store.write(record)
    unread = refused(densescope("correlate", store.folder, "--losses", tmp_path / "nope.txt"))
    assert "has no probes; make some with" in unread
    for record in probes:
        store.write_probe("voc2012-linear", record)
    correlated = densescope("correlate", store.folder)
    assert correlated.returncode == 0, correlated.stderr
    said = "An interval of tau needs 6, and with fewer than 10 it is mostly noise. Probe more"
    assert correlated.stdout.count(f"2 checkpoints have a score and a probe. {said}") == 1
    assert correlated.stdout.startswith("run, voc2012-linear: Kendall's tau of the label-free")
    assert "highest RankMe" not in correlated.stdout
    assert "95 % interval" not in correlated.stdout
    assert "a probe on every checkpoint" in correlated.stdout
    assert correlated.stdout.count("the last checkpoint, checkpoint0002.pth, was not probed") == 1
    assert "of several ways: " in correlated.stdout
    unread = refused(densescope("correlate", store.folder, "--losses", tmp_path / "nope.txt"))
    assert unread.endswith("nope.txt (No such file or directory): check the path")


def test_losses_are_kept_for_the_report(swept: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path)
    labels = ["--dataset", "scenes", "--root", tmp_path, "--probe-size", 32, "--seeds", "0,1"]
    copy = shutil.copytree(swept / "scores", tmp_path / "scores")
    assert densescope("probe", copy, *labels, "--test-split", "test").returncode == 0
    log = tmp_path / "log.txt"
    log.write_text("".join(f'{{"epoch": {e}, "train_loss": {2 - e / 10}}}\n' for e in range(3)))
    assert "lowest training loss" in densescope("correlate", copy, "--losses", log).stdout
    assert "lowest training loss" in densescope("correlate", copy).stdout
    densescope("report", copy)
    assert "lowest training loss" in (copy / "report.html").read_text().lower()


def test_image_labels_and_depth_can_be_probed(swept: Path, tmp_path: Path) -> None:
    from PIL import Image

    chance = np.random.default_rng(0)
    for half in ("train", "test"):
        for index in range(6):
            kind = ("red", "blue")[index % 2]
            color = np.array([200, 20, 20] if kind == "red" else [20, 20, 200])
            pixels = (color + chance.integers(0, 30, (32, 32, 3))).astype(np.uint8)
            for folder, name in (("classes", f"{kind}/{index}.png"), ("", f"images/{index}.png")):
                path = tmp_path / folder / half / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
            depth = np.full((32, 32), 1000 + 500 * (index % 2), dtype=np.uint16)
            (tmp_path / half / "depths").mkdir(exist_ok=True)
            Image.fromarray(depth).save(tmp_path / half / "depths" / f"{index}.png")
    file = next((swept / "run").glob("*.pth"))
    given = [*BACKBONE, "--probe-size", 32, "--dataset", "mine"]
    classes = tmp_path / "classes"
    halves = ["--root", classes / "train", "--test-root", classes / "test"]
    named = densescope("probe", file, *given, *halves, "--protocol", "image-knn")
    assert "accuracy 100.00 %" in named.stdout
    assert "red" in named.stdout
    halves = ["--root", tmp_path / "train", "--test-root", tmp_path / "test"]
    deep = [*given, *halves, "--protocol", "depth-linear", "--steps", 30]
    measured = densescope("probe", file, *deep, "--depth-unit", "millimeters")
    assert "RMSE 0." in measured.stdout
    assert "delta 1: " in measured.stdout
    assert "holds integers of an unknown unit" in refused(densescope("probe", file, *deep))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--dataset", "camvit"], "there is no data set 'camvit'; there are: voc2012"),
        (["--dataset", "camvid", "--test-split", "tset"], "camvid has no split 'tset'; it has"),
        (["--protocol", "quick"], "there is no protocol 'quick'"),
        (["--protocol", "image-knn"], "labels for classification need --test-root"),
        (["--depth-unit", "meters"], "a depth unit goes with labels for depth"),
        (["--test-root", "{here}"], "leave the test root out"),
        (
            ["--protocol", "depth-linear", "--test-root", "{here}", "--depth-unit", "feet"],
            "there is no unit 'feet'; there are: meters",
        ),
        (["--device", "gpu"], "--device 'gpu' is no device"),
        (["--protocol", "linear", "--steps", "9"], "protocol linear has no steps to change"),
    ],
)
def test_a_wrong_name_of_a_probe_is_wrong_usage(
    wrong: list[str], message: str, tmp_path: Path
) -> None:
    given = [word.format(here=tmp_path) for word in wrong]
    words = ["probe", tmp_path / "file.pth", "--format", "dino", "--root", tmp_path]
    assert message in refused(densescope(*words, "--dataset", "scenes", *given), 2)


def test_a_scored_run_knows_its_model_and_a_file_has_no_shortlist(
    swept: Path, tmp_path: Path
) -> None:
    labels = ["--dataset", "scenes", "--root", tmp_path]
    run = ["probe", swept / "scores", *labels]
    said = refused(densescope(*run, "--architecture", ARCHITECTURE, "--weights", "teacher"), 2)
    assert said.endswith(
        "which knows its format and its model: leave out --architecture, --weights"
    )
    said = refused(densescope(*run, "--image-size", 64), 2)
    assert said.endswith("leave out --image-size; the size of the probe's images is --probe-size")
    unscored = ["probe", swept / "run", *labels, "--image-size", 64]
    assert "holds no scored run" in refused(densescope(*unscored))
    file = ["probe", swept / "run" / "checkpoint0002.pth", *labels, *BACKBONE]
    assert "--only shortlist is for" in refused(densescope(*file, "--only", "shortlist"), 2)


def test_the_table_says_how_the_probe_was_made() -> None:
    record = ProbeRecord("a.pth", 1, "epoch", "linear", "camvid", "miou", (0.5,))

    def heading(**settings: object) -> str:
        screen = io.StringIO()
        console = Console(file=screen, width=120)
        print_probes(console, [replace(record, provenance={"settings": settings})])
        return screen.getvalue().splitlines()[0].strip()

    assert heading() == "linear on camvid"
    assert (
        heading(image_size=64, data={"folds": 4}) == "linear on camvid at 64 pixels, over 4 folds"
    )
    few = heading(image_size=64, data={"labels": 20})
    assert few == "linear on camvid at 64 pixels, 20 labelled images"


def test_probes_that_were_not_trained_enough_are_said_first() -> None:
    record = ProbeRecord("a.pth", 1, "epoch", "linear-sgd", "camvid", "miou", (0.5,))
    assert doubts([record, replace(record, status="failed", details={"under_trained": True})]) == []
    under = replace(record, details={"under_trained": True})
    open_end = replace(record, details={"converged": False})
    at_edge = replace(record, details={"at_edge": True})
    assert doubts([record, at_edge])[0].startswith("perhaps too low: 1 of 2 probes chose a value")
    said = doubts([record, under, open_end])
    assert said[0].startswith("under-trained: 1 of 3 probes chose the smallest or largest")
    assert said[1].startswith("not converged: 1 of 3 probes stopped before the minimum")
    folds = {"fold 0": False, "fold 1": False}
    parts = {"under_trained": folds, "converged": {"fold 0": True, "fold 1": True}}
    assert doubts([replace(record, details=parts)]) == []
    assert len(doubts([replace(record, details={"under_trained": {**folds, "fold 2": True}})])) == 1
    assert len(doubts([replace(record, details={"converged": folds})])) == 1
