"""Every verb as a user runs it: what it prints, what it writes, how it fails."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from rich.text import Text
from typer.core import TyperGroup
from typer.testing import CliRunner

from densescope.cli import main
from densescope.cli.app import app
from densescope.cli.tables import Screen
from densescope.evaluation.scenes import make_scenes, save_scenes
from tests.conftest import ROOT
from tests.tiny_run import ARCHITECTURE, OPTIONS, checkpoint, write_checkpoints

BACKBONE = [
    *("--format", "dino", "--architecture", ARCHITECTURE),
    *(f"--architecture-option={key}={value}" for key, value in OPTIONS.items()),
]
SCORING = ["--global-clusters", "6", "--lidar-images", "8", "--lidar-views", "3"]


def densescope(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "densescope", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def refused(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one sentence on standard error; no traceback."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def swept(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    run = write_checkpoints(folder / "run", range(6))
    words = ["sweep", run, *BACKBONE, *SCORING, "--images", tiny_images]
    result = densescope(*words, "--output", folder / "scores")
    assert result.returncode == 0, result.stderr
    assert "6 of 6 checkpoints scored" in result.stdout
    assert "[6/6] checkpoint0005.pth: scored in " in result.stdout
    assert re.search(r"^ *checkpoint +epoch +separability", result.stdout, re.MULTILINE)
    return folder


def test_a_second_sweep_keeps_everything(swept: Path, tiny_images: Path) -> None:
    words = ["sweep", swept / "run", *BACKBONE, *SCORING, "--images", tiny_images]
    result = densescope(*words, "--output", swept / "scores")
    assert result.returncode == 0, result.stderr
    assert "6 checkpoints were scored before and are kept" in result.stdout


def test_select_prints_and_writes_the_choice(swept: Path, tmp_path: Path) -> None:
    targets = [tmp_path / f"choice.{suffix}" for suffix in ("json", "csv", "parquet")]
    words = [word for target in targets for word in ("--write", target)]
    result = densescope("select", swept / "scores", *words)
    assert result.returncode == 0, result.stderr
    assert "PICK" in result.stdout
    with targets[1].open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [f"checkpoint{e:04d}.pth" for e in range(6)]
    picked = [row["name"] for row in rows if row["pick"] == "True"]
    document = json.loads(targets[0].read_text())
    assert [row["name"] for row in document["rows"] if row["pick"]] == picked
    assert len(picked) == 1
    assert targets[2].stat().st_size > 0


@pytest.mark.parametrize(
    "verb", [["select", "{scores}"], ["formats"], ["formats", "dinov3"], ["report", "--help"]]
)
def test_what_works_on_records_alone_does_not_wait_for_torch(verb: list[str], swept: Path) -> None:
    run = "app(sys.argv[1:], standalone_mode=False)"
    script = f"import sys; from densescope.cli.app import app; {run}; print('torch' in sys.modules)"
    words = [word.format(scores=swept / "scores") for word in verb]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", script, *words]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.splitlines()[-1] == "False"


def test_the_paper_definition_can_lead(swept: Path) -> None:
    result = densescope("select", swept / "scores", "--definition", "paper")
    assert result.returncode == 0, result.stderr
    assert "DSE (paper)" in result.stdout


def test_report_writes_one_file(swept: Path) -> None:
    result = densescope("report", swept / "scores")
    assert result.returncode == 0, result.stderr
    page = swept / "scores" / "report.html"
    assert str(page) in result.stdout.replace("\n", "")
    assert 100_000 < page.stat().st_size < 5_000_000


def test_score_prints_every_number_and_writes_the_record(
    swept: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = ["score", swept / "run" / "checkpoint0002.pth", *BACKBONE, *SCORING]
    result = densescope(*words, "--images", tiny_images, "--json", tmp_path / "one.json")
    assert result.returncode == 0, result.stderr
    assert "released.dse" in result.stdout
    alone = json.loads((tmp_path / "one.json").read_text())
    stored = json.loads((swept / "scores/records/checkpoint0002.pth.json").read_text())
    assert alone["scores"].keys() == stored["scores"].keys()
    assert alone["checkpoint"] == stored["checkpoint"]


def write_scenes(folder: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        save_scenes(make_scenes(16, size=32, seed=seed), folder / split)


def test_probe_and_agree(swept: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path)
    labels = ["--dataset", "scenes", "--root", tmp_path, "--probe-size", 32, "--seeds", "0,1"]
    run = densescope("probe", swept / "scores", *labels, "--test-split", "test")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("checkpoint000") == 12
    file = swept / "run" / "checkpoint0003.pth"
    one = densescope("probe", file, *labels, "--test-split", "test", *BACKBONE)
    assert one.returncode == 0, one.stderr
    assert "mIoU" in one.stdout
    assert "name its layout with --format" in refused(densescope("probe", file, *labels), 2)
    agreed = densescope("agree", swept / "scores")
    assert agreed.returncode == 0, agreed.stderr
    assert "DSE (released)" in agreed.stdout
    assert "a probe on every checkpoint" in agreed.stdout
    assert "mean Kendall" not in agreed.stdout
    shutil.copytree(swept / "scores", tmp_path / "again")
    several = densescope("agree", swept / "scores", tmp_path / "again")
    assert several.returncode == 0, several.stderr
    assert "mean Kendall tau-b over the runs" in several.stdout
    assert densescope("report", swept / "scores").returncode == 0


def test_losses_are_kept_for_the_report(swept: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path)
    labels = ["--dataset", "scenes", "--root", tmp_path, "--probe-size", 32, "--seeds", "0,1"]
    copy = shutil.copytree(swept / "scores", tmp_path / "scores")
    assert densescope("probe", copy, *labels, "--test-split", "test").returncode == 0
    log = tmp_path / "log.txt"
    log.write_text("".join(f'{{"epoch": {e}, "train_loss": {2 - e / 10}}}\n' for e in range(3)))
    assert "lowest training loss" in densescope("agree", copy, "--losses", log).stdout
    assert "lowest training loss" in densescope("agree", copy).stdout
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


def test_protocols_lists_them() -> None:
    listed = densescope("protocols")
    assert listed.returncode == 0, listed.stderr
    assert "dinov2-linear-cached" in listed.stdout


def test_formats_lists_all_and_shows_one() -> None:
    listed = densescope("formats")
    assert listed.returncode == 0, listed.stderr
    for name in ("dino", "mocov3", "ijepa", "byol", "vicregl", "safetensors", "huggingface"):
        assert name in listed.stdout
    assert "checkpointNNNN.pth" in listed.stdout
    one = densescope("formats", "ijepa")
    assert "class_token=False" in one.stdout
    assert '  target: file["target_encoder"]; names that begin with module.' in one.stdout
    assert "Weights(" not in one.stdout


def test_check_says_that_a_file_loads(swept: Path) -> None:
    result = densescope("check", swept / "run" / "checkpoint0000.pth", *BACKBONE)
    assert result.returncode == 0, result.stderr
    assert "teacher" in result.stdout
    assert "FAILED" not in result.stdout


def test_check_says_which_step_failed_and_what_would_fit(swept: Path) -> None:
    result = densescope("check", swept / "run" / "checkpoint0000.pth", "--format", "mae")
    assert result.returncode == 1
    assert "path  FAILED" in result.stdout
    assert "dino" in result.stdout.split("would fit")[-1]
    assert "Traceback" not in result.stderr
    words = ["check", swept / "run" / "checkpoint0000.pth", "--format", "dino"]
    named = densescope(*words, "--architecture", "vit_smal_patch16_224")
    assert named.returncode == 2
    assert "architecture  FAILED" in named.stdout


def test_broken_checkpoints_give_exit_code_3_and_the_rest_is_kept(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    (tiny_run / "checkpoint0001.pth").write_bytes(b"PK\x03\x04 cut off")
    words = ["sweep", tiny_run, *BACKBONE, *SCORING, "--images", tiny_images]
    result = densescope(*words, "--output", tmp_path / "out")
    assert "checkpoint0001.pth" in refused(result, code=3)
    assert "2 of 3 checkpoints scored" in result.stdout
    assert densescope("select", tmp_path / "out").returncode == 0
    assert densescope("report", tmp_path / "out").returncode == 0


def test_a_hostile_checkpoint_is_inert(tiny_run: Path, tiny_images: Path, tmp_path: Path) -> None:
    witness = tmp_path / "it-ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {witness}",)

    torch.save({**checkpoint(1), "args": Hostile()}, tiny_run / "checkpoint0001.pth")
    words = ["sweep", tiny_run, *BACKBONE, *SCORING, "--images", tiny_images]
    densescope(*words, "--output", tmp_path / "out")
    assert not witness.exists()
    assert (tmp_path / "out/records/checkpoint0002.pth.json").is_file()


def test_a_collapsed_run_is_scored_or_named(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    flat = checkpoint(1)
    teacher = flat["teacher"]
    assert isinstance(teacher, dict)
    teacher["backbone.norm.weight"].zero_()
    torch.save(flat, tiny_run / "checkpoint0001.pth")
    words = ["sweep", tiny_run, *BACKBONE, *SCORING, "--images", tiny_images]
    result = densescope(*words, "--output", tmp_path / "out")
    assert "Traceback" not in result.stderr
    assert densescope("select", tmp_path / "out").returncode == 0
    assert densescope("report", tmp_path / "out").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "{run}", "--format", "dimo"], "no format 'dimo'; did you mean dino"),
        (["sweep", "{empty}", "--format", "dino"], "no checkpoint of format dino in"),
        (["sweep", "{missing}", "--format", "dino"], "there is no folder"),
        (["check", "{missing}", "--format", "dino"], "there is no checkpoint at"),
        (["select", "{empty}"], "holds no scored run"),
        (["report", "{missing}"], "holds no scored run"),
    ],
)
def test_wrong_input_is_one_sentence(
    words: list[str], message: str, tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"run": tiny_run, "empty": tmp_path / "empty", "missing": tmp_path / "missing"}
    filled = [word.format(**places) for word in words]
    if filled[0] == "sweep":
        filled += ["--images", str(tiny_images), "--output", str(tmp_path / "out")]
    result = densescope(*filled)
    assert result.returncode != 0
    said = " ".join((result.stdout + result.stderr).split())
    assert message in said
    assert "Traceback" not in said


def test_a_reason_that_fails_every_checkpoint_is_said_once_and_its_folder_can_be_used_again(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    wrong = [word.replace("depth=2", "depth=3") for word in BACKBONE]
    words = ["sweep", tiny_run, *SCORING, "--images", tiny_images, "--output", tmp_path / "out"]
    result = densescope(*words, *wrong)
    said = refused(result, code=3)
    assert said.count("tensors") == 1
    assert "checkpoint0000.pth, checkpoint0001.pth, checkpoint0002.pth: " in said
    assert "next:" not in result.stdout
    first, *others = [line for line in result.stdout.splitlines() if line.startswith("[")]
    assert "[1/3] checkpoint0000.pth: failed: " in first
    assert "tensors" in first
    assert others == [
        f"[{n + 1}/3] checkpoint000{n}.pth: failed: same reason as checkpoint0000.pth"
        for n in (1, 2)
    ]
    mended = densescope(*words, *BACKBONE)
    assert mended.returncode == 0, mended.stderr
    assert "3 of 3 checkpoints scored" in mended.stdout


def test_a_typo_in_an_architecture_option_names_the_right_one(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = ["sweep", tiny_run, "--format", "dino", "--architecture-option", "embd_dim=24"]
    result = densescope(*words, "--images", tiny_images, "--output", tmp_path / "out")
    assert "has no option 'embd_dim'; did you mean embed_dim?" in refused(result, 2)


def test_an_unknown_table_format_is_refused_before_the_work(swept: Path, tmp_path: Path) -> None:
    result = densescope("select", swept / "scores", "--write", tmp_path / "table.xls")
    assert "end it in .json, .csv, .parquet" in refused(result, 2)
    assert result.stdout == ""


def test_an_unknown_architecture_is_one_sentence(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = ["sweep", tiny_run, "--format", "dino", "--architecture", "vit_smal_patch16_224"]
    result = densescope(*words, "--images", tiny_images, "--output", tmp_path / "out")
    assert "vit_small_patch16_224" in refused(result, 2)


def test_a_missing_image_folder_is_one_sentence(tiny_run: Path, tmp_path: Path) -> None:
    words = ["sweep", tiny_run, *BACKBONE, "--images", tmp_path / "none"]
    result = densescope(*words, "--output", tmp_path / "out")
    assert "does not exist: name a folder of images" in refused(result)


def test_a_folder_that_no_demo_made_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    result = densescope("demo", "--output", tmp_path)
    assert "is not empty and no demo made it" in refused(result)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_help_and_version() -> None:
    assert "sweep" in densescope("--help").stdout
    assert densescope("--version").stdout.startswith("densescope 0.")


@pytest.mark.parametrize("columns", ["60", "80"])
def test_help_cuts_off_no_option_and_no_sentence(columns: str) -> None:
    verbs = typer.main.get_command(app)
    assert isinstance(verbs, TyperGroup)
    runner = CliRunner(env={"COLUMNS": columns, "TERMINAL_WIDTH": columns})
    listed = runner.invoke(app, ["--help"]).stdout.split("Commands:")[1]
    assert "..." not in listed
    for name, verb in verbs.commands.items():
        shown = runner.invoke(app, [name, "--help"]).stdout
        known = {word for part in verb.params for word in (*part.opts, *part.secondary_opts)}
        missing = {word for word in known if word.startswith("-")} - set(
            re.split(r"[\s,/]+", shown)
        )
        assert not missing, name
        assert "…" not in shown
        assert " ".join(str(verb.help).split("\n\n")[0].split()) in " ".join(listed.split())


@pytest.mark.parametrize("verb", [["formats"], ["methods"], ["protocols"], ["select", "{scores}"]])
def test_no_line_in_a_pipe_ends_in_blanks(verb: list[str], swept: Path) -> None:
    lines = densescope(*[word.format(scores=swept / "scores") for word in verb]).stdout.split("\n")
    assert len(lines) > 5
    assert lines == [line.rstrip() for line in lines]
    assert lines[0]
    assert lines[1]


def test_a_sentence_in_a_pipe_is_one_line_and_its_brackets_stay() -> None:
    screen = Screen(file=io.StringIO(), width=20)
    screen.print("one line although it is [long] and the pipe narrow")
    screen.print(Text("another [b]one[/b], made elsewhere"))
    assert screen.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "one line although it is [long] and the pipe narrow",
        "another [b]one[/b], made elsewhere",
    ]


def test_printing_nothing_in_a_pipe_is_an_empty_line() -> None:
    screen = Screen(file=io.StringIO(), width=20)
    screen.print()
    screen.print("below")
    assert screen.file.getvalue() == "\nbelow\n"  # type: ignore[attr-defined]


def test_a_folder_without_a_run_is_told_a_whole_command(tmp_path: Path) -> None:
    said = refused(densescope("select", tmp_path / "a run"))
    folder = shlex.quote(str(tmp_path / "a run"))
    wanted = "densescope sweep RUN_FOLDER --format FORMAT --architecture NAME --images DIR"
    assert f"make one with: {wanted} --output {folder}" in said


@pytest.mark.parametrize(
    "wrong",
    [
        ["--no-such-option"],
        ["--precision", "float8"],
        ["--images-count", "many"],
        ["--batch-size", "0"],
        ["--layers", "last"],
        ["--format", "dimo"],
        ["--architecture", "vit_smal_patch16_224"],
        ["--weights", "techer"],
        ["--loader", "loader.py"],
        ["--device", "gpu"],
        ["--round-size", "64"],
        ["--shard", "3/2"],
    ],
)
def test_one_code_for_whatever_is_wrong_with_the_options(
    wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "sweep",
        tmp_path,
        "--format",
        "dino",
        "--images",
        tmp_path,
        "--output",
        tmp_path / "o",
    ]
    monkeypatch.setattr(sys, "argv", ["densescope", *map(str, words), *wrong])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2


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
    ],
)
def test_a_wrong_name_of_a_probe_is_wrong_usage(
    wrong: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word.format(here=tmp_path) for word in wrong]
    words = ["probe", tmp_path / "file.pth", "--format", "dino", "--root", tmp_path]
    asked = [*map(str, words), "--dataset", "scenes", *given]
    monkeypatch.setattr(sys, "argv", ["densescope", *asked])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_scored_run_knows_its_model_and_a_file_has_no_shortlist(
    swept: Path, tmp_path: Path
) -> None:
    labels = ["--dataset", "scenes", "--root", tmp_path]
    run = ["probe", swept / "scores", *labels, "--architecture", ARCHITECTURE]
    assert "leave out --format, --architecture" in refused(densescope(*run), 2)
    file = ["probe", swept / "run" / "checkpoint0002.pth", *labels, *BACKBONE]
    assert "--only shortlist is for" in refused(densescope(*file, "--only", "shortlist"), 2)
