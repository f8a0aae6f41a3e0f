"""What was typed or named in error is one sentence and an exit code."""

from __future__ import annotations

import shlex
from contextlib import closing
from pathlib import Path

import pytest

from densescope.errors import OptionError
from densescope.features.images import draw_subset, open_images
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord
from densescope.runs.scorer import CheckpointScorer, Compute
from densescope.runs.store import RunStore
from tests.cli.running import BACKBONE, SCORING, densescope, in_a_process, refused
from tests.cli.test_first_hour import saved
from tests.tiny_run import SPEC


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "{run}", "--format", "dimo"], "no format 'dimo'; did you mean dino"),
        (["sweep", "{empty}", "--format", "dino"], "no checkpoint of format dino in"),
        (["sweep", "{missing}", "--format", "dino"], "there is no folder"),
        (["check", "{missing}", "--format", "dino"], "there is no checkpoint at"),
        (["select", "{empty}"], "holds no scored run"),
        (["report", "{missing}"], "there is no folder"),
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
    assert "tensors" not in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("[")]
    assert lines == [f"[{n + 1}/3] checkpoint000{n}.pth: failed" for n in range(3)]
    mended = densescope(*words, *BACKBONE)
    assert mended.returncode == 0, mended.stderr
    assert "3 of 3 checkpoints scored" in mended.stdout


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("verb", "wrong", "message"),
    [
        ("sweep", ["--layers", "13"], "layer 13 does not exist: this backbone has 2 (0 to 1, or"),
        ("watch", ["--layers", "13,-1"], "layer 13 does not exist"),
        ("score", ["--layers", "13"], "layer 13 does not exist"),
        ("sweep", ["--layers", "13", "--processes", "2"], "layer 13 does not exist"),
        ("sweep", ["--image-size", "30"], "its cells have 8 pixels, take 24 or 32"),
        ("sweep", ["--weights", "techer."], "begins with 'techer.'; there are "),
    ],
)
def test_an_option_that_fits_no_checkpoint_stops_at_the_first_one_that_loads(
    verb: str,
    wrong: list[str],
    message: str,
    tiny_run: Path,
    tiny_images: Path,
    tmp_path: Path,
) -> None:
    (tiny_run / "checkpoint0000.pth").write_bytes(b"PK\x03\x04 cut off")
    source = tiny_run / "checkpoint0001.pth" if verb == "score" else tiny_run
    words = [verb, source, *SCORING, *BACKBONE, "--images", tiny_images]
    words += [] if verb == "score" else ["--output", tmp_path / "out"]
    words += ["--once", "--settle", 0] if verb == "watch" else []
    assert message in refused(densescope(*words, *wrong), 2)
    if verb == "sweep":
        (tiny_run / "checkpoint0000.pth").unlink()
        assert densescope(*words).returncode == 0


def test_weights_that_a_file_does_not_have_are_wrong_usage(
    tiny_images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    saved(1, run / "step_1.pt")
    words = ["sweep", run, "--images", tiny_images, "--output", tmp_path / "out", *SCORING]
    said = refused(densescope(*words, "--weights", "techer"), 2)
    assert "has no weights 'techer': give encoder, or leave --weights out, and it is read" in said
    assert densescope(*words, "--weights", "encoder").returncode == 0
    said = refused(densescope(*words, "--weights", "techer", "--format", "timm"), 2)
    assert "no tensor at the top of the file begins with 'techer.'" in said


def test_an_option_that_fitted_a_checkpoint_does_not_stop_at_another_one(
    tiny_images: Path, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "out")
    store.open({})
    subset = draw_subset(open_images(tiny_images), 4, 0)
    wrong = OptionError("layer 13 does not exist")
    with closing(CheckpointScorer(SPEC, subset, ScoreSettings(), Compute(), store)) as scorer:
        with pytest.raises(OptionError, match="layer 13"):
            scorer.refuse_option(wrong)
        store.write(ScoreRecord("a", 1, status="failed", error="unreadable"))
        with pytest.raises(OptionError, match="layer 13"):
            scorer.refuse_option(wrong)
        store.write(ScoreRecord("b", 2))
        scorer.refuse_option(wrong)


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
    words = ["sweep", tiny_run, "--images", tmp_path / "none", "--output", tmp_path / "out"]
    result = densescope(*words)
    assert "does not exist: name a folder of images" in refused(result)
    assert "format auto" not in result.stdout + result.stderr  # no checkpoint was read first


def test_a_folder_that_no_demo_made_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    result = densescope("demo", "--output", tmp_path)
    assert "is not empty and no demo made it" in refused(result)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_without_a_run_is_told_a_whole_command(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / "a run").mkdir()
    said = refused(densescope("select", tmp_path / "a run"))
    folder = shlex.quote(str(tmp_path / "a run"))
    wanted = "densescope sweep RUN_FOLDER --images DIR"
    assert f"{wanted} --output {folder}" in said
    assert ("there is no folder" in said) != is_there


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
    wrong: list[str], tiny_images: Path, tmp_path: Path
) -> None:
    words = ["sweep", tmp_path, "--format", "dino", "--images", tiny_images]
    assert densescope(*words, "--output", tmp_path / "o", *wrong).returncode == 2


def test_the_sentence_and_the_code_reach_the_shell(tmp_path: Path) -> None:
    asked = ["select", tmp_path / "absent"]
    shell = in_a_process(*asked)
    assert shell == densescope(*asked)
    assert "there is no folder" in refused(shell)
    assert shell.stdout == ""
    assert in_a_process("sweep", "--no-such-option").returncode == 2
