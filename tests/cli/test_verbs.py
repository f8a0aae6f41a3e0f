"""Every verb as a user runs it: what it prints, what it writes, which checkpoints it takes."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densescope.features.backbones import load_backbone
from densescope.metrics import METRICS, ScoreSettings
from densescope.monitoring import DenseMonitor
from densescope.monitoring.observation import Observation
from tests.cli.running import BACKBONE, COMMAND, ENVIRONMENT, SCORING, densescope, refused
from tests.tiny_run import SETTINGS, SPEC, checkpoint


def test_a_second_sweep_keeps_everything(swept: Path, tiny_images: Path) -> None:
    words = ["sweep", swept / "run", *BACKBONE, *SCORING, "--images", tiny_images]
    result = densescope(*words, "--output", swept / "scores")
    assert result.returncode == 0, result.stderr
    assert "6 checkpoints were scored before and are kept" in result.stdout


def test_a_part_of_a_sweep_says_that_it_is_one(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    words = ["sweep", tiny_run, *BACKBONE, *SCORING, "--images", tiny_images]
    half = densescope(*words, "--output", tmp_path / "out", "--shard", "1/2")
    assert half.returncode == 0, half.stderr
    assert "part 1 of 2: these 2 of the run's 3 checkpoints" in half.stdout
    assert "2 of 2 checkpoints scored" in half.stdout
    none = densescope(*words, "--output", tmp_path / "out", "--shard", "4/4")
    assert none.returncode == 0, none.stderr
    assert none.stdout == "part 4 of 4: nothing to do, none of the run's 3 checkpoints\n"


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
    for metric in ("released.inter", "paper.effective_rank", "rankme"):
        assert all(float(row[f"{metric}_low"]) < float(row[metric]) for row in rows)
    assert {row["lambda"] for row in rows} == {str(document["lambda"])}
    assert targets[2].stat().st_size > 0


def test_what_works_on_records_alone_does_not_wait_for_torch(swept: Path, tmp_path: Path) -> None:
    bare = tmp_path / "scores"  # without pictures
    shutil.copytree(swept / "scores", bare, ignore=shutil.ignore_patterns("previews", "probes"))
    scores = str(bare)
    verbs = [["select", scores], ["formats"], ["formats", "dinov3"], ["report", scores]]
    script = f"""
import sys
from densescope.cli.app import app
for words in {verbs!r}:
    app(words)
    if "torch" in sys.modules:
        sys.exit(f"{{words[0]}} loaded torch")
"""
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "PICK" in ran.stdout


def test_the_paper_definition_can_lead(swept: Path) -> None:
    result = densescope("select", swept / "scores", "--definition", "paper")
    assert result.returncode == 0, result.stderr
    assert "DSE (paper)" in result.stdout


def test_gram_drift_from_a_reference_of_choice(swept: Path, tmp_path: Path) -> None:
    scores = swept / "scores"
    found = densescope("select", scores, "--drift-from", "first")
    assert found.returncode == 0, found.stderr
    table = found.stdout[found.stdout.index("Gram drift from checkpoint") :]
    assert numbers_in(table, "checkpoint0000.pth") == ["0 ± 0"]
    assert "0 ± 0" not in numbers_in(table, "checkpoint0002.pth")
    record = next((scores / "records").glob("*0002*.json"))
    beside = densescope("select", scores, "--drift-from", record)
    assert "Gram drift from checkpoint0002.pth" in beside.stdout
    wrong = densescope("select", scores, "--drift-from", "checkpoint002.pth")
    assert wrong.returncode == 2
    assert "checkpoint0002.pth (epoch 2)" in wrong.stderr
    missing = densescope("select", scores, "--drift-from", tmp_path / "none.json")
    assert "cannot read" in missing.stderr


def test_metrics_are_chosen_by_name(swept: Path, tiny_images: Path) -> None:
    file = swept / "run" / "checkpoint0002.pth"
    words = ["score", file, *BACKBONE, *SCORING, "--images", tiny_images, "--metrics"]
    few = densescope(*words, "rankme,shares")
    assert few.returncode == 0, few.stderr
    assert "positional_share" in few.stdout
    assert "released" not in few.stdout
    assert "lambda" not in few.stdout
    wrong = densescope(*words, "rankme,positional_shar")
    assert wrong.returncode == 2
    assert "no metric is named 'positional_shar'; did you mean positional_share?" in wrong.stderr


def test_another_rule_for_lambda_can_choose(swept: Path) -> None:
    scores = swept / "scores"
    by_run, by_one = (densescope("select", scores, *more) for more in (["--lambda", "run"], []))
    for result in (by_run, by_one):
        assert result.returncode == 0, result.stderr
        assert re.search(r"3 definitions of DSE and all 3 rules|The pick depends on", result.stdout)
    assert by_one.stdout.count("DSE (lambda") == 1
    assert by_run.stdout.count("DSE (lambda") == 2
    teacher = densescope("select", scores, "--for", "gram-teacher", "--lambda", "1")
    assert teacher.returncode == 2
    assert "--lambda" in teacher.stderr
    assert "only with --for use" in teacher.stderr


def numbers_in(text: str, row: str) -> list[str]:
    """The numbers, each with half its interval, of the first line that begins with a name."""
    line = next(line for line in text.splitlines() if line.strip().startswith(row))
    return re.findall(r"-?[\d.e-]+ ± [\d.e-]+", line.strip().removeprefix(row))


def test_the_dse_of_one_checkpoint_is_the_same_wherever_it_is_shown(
    swept: Path, tiny_images: Path
) -> None:
    """Lambda is 1: score, sweep, select and the monitor agree."""
    file, name = swept / "run" / "checkpoint0002.pth", "checkpoint0002.pth"
    alone = densescope("score", file, *BACKBONE, *SCORING, "--images", tiny_images).stdout
    (dse,) = numbers_in(alone, "released.dse_lambda_1")
    words = ["sweep", swept / "run", *BACKBONE, *SCORING, "--images", tiny_images]
    scored = densescope(*words, "--output", swept / "scores").stdout
    assert numbers_in(scored, name)[0] == dse
    assert re.search(r"^ *checkpoint .* DSE \(lambda = 1\) ", scored, re.MULTILINE)
    assert numbers_in(densescope("select", swept / "scores").stdout, name)[2] == dse
    chosen = densescope("select", swept / "scores", "--lambda", "run").stdout
    header = next(line for line in chosen.splitlines() if "checkpoint " in line)
    lambdas = re.findall(r"DSE \(lambda = ([\d.e+-]+)\)", header)
    assert lambdas[0] == "1"
    assert len(lambdas) == 2
    separability, effective_rank, single, of_run = numbers_in(chosen, name)
    assert single == dse
    parts = [float(text.split()[0]) for text in (separability, effective_rank, of_run)]
    assert parts[0] + float(lambdas[1]) * parts[1] == pytest.approx(parts[2], rel=0.01)
    assert str(observed(file, tiny_images)).endswith(f"DSE (lambda = 1) {dse}")


def observed(file: Path, images: Path) -> Observation:
    """What a monitor sees of the network in a file."""
    loaded = load_backbone(file, SPEC)
    settings = ScoreSettings(**SETTINGS)
    monitor = DenseMonitor(images, image_size=32, settings=settings, device="cpu")
    seen = monitor.observe(loaded.backbone.model, step=2)
    assert seen is not None
    return seen


def test_a_sweep_ends_with_the_headline_of_select(swept: Path, tiny_images: Path) -> None:
    words = ["sweep", swept / "run", *BACKBONE, *SCORING, "--images", tiny_images]
    scored = densescope(*words, "--output", swept / "scores").stdout.splitlines()
    chosen = densescope("select", swept / "scores").stdout
    headline = scored[-2]
    assert re.match(r"(Use|No clear winner:) ", headline)
    assert headline in chosen
    assert scored[-1].startswith("next: densescope select")


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
    result = densescope(*words, "--images", tiny_images, "--write", tmp_path / "one.json")
    assert result.returncode == 0, result.stderr
    assert "released.dse_lambda_1" in result.stdout
    alone = json.loads((tmp_path / "one.json").read_text())
    stored = json.loads((swept / "scores/records/checkpoint0002.pth.json").read_text())
    assert alone["scores"].keys() == stored["scores"].keys()
    assert alone["checkpoint"] == stored["checkpoint"]


def test_protocols_lists_them() -> None:
    listed = densescope("protocols")
    assert listed.returncode == 0, listed.stderr
    assert "dinov2-linear-cached" in listed.stdout


def test_metrics_lists_all_and_shows_one() -> None:
    listed = densescope("metrics")
    assert listed.returncode == 0, listed.stderr
    assert all(name in listed.stdout for name in METRICS)
    assert "groups, each computed together (dense_structure: released.dse_lambda_1" in listed.stdout
    one = densescope("metrics", "twonn").stdout.splitlines()
    assert one[0].startswith("TwoNN dimension: ")
    assert [
        line.partition(":")[0] for line in one if line.startswith(("formula", "how", "sou"))
    ] == [
        "formula",
        "how it misleads",
        "source",
    ]
    wrong = densescope("metrics", "twoN")
    assert wrong.returncode == 2
    assert "no metric is named 'twoN'; did you mean twonn?" in wrong.stderr
    assert "the rows that densescope metrics lists" in wrong.stderr


def test_formats_lists_all_and_shows_one() -> None:
    listed = densescope("formats")
    assert listed.returncode == 0, listed.stderr
    for name in ("dino", "mocov3", "ijepa", "byol", "vicregl", "safetensors", "huggingface"):
        assert name in listed.stdout
    assert "checkpointNNNN.pth" in listed.stdout
    one = densescope("formats", "ijepa")
    assert "class_token=False" in one.stdout
    assert '  target: file["target_encoder"]; all names' in one.stdout
    assert "Weights(" not in one.stdout
    assert "every tensor with such a name is used, none is left out" in one.stdout.splitlines()
    some = densescope("formats", "mae").stdout
    assert "of these, left out on purpose:\n  decoder*: decoder\n" in some
    assert "none is left out" not in some


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


def test_a_sweep_names_the_files_it_passes_over(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_run / "checkpoint0001.pth", tiny_run / "last.pt")
    words = ["sweep", tiny_run, *BACKBONE, *SCORING, "--images", tiny_images]
    result = densescope(*words, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "passed over, as they have no number: last.pt" in result.stdout


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


# The second is a string of code, where Python would end by the signal whoever catches it.
@pytest.mark.parametrize("moment", ["raise KeyboardInterrupt", "exec('raise KeyboardInterrupt')"])
def test_control_c_while_the_command_is_loaded_is_a_sentence_too(
    moment: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys

class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "densescope.cli.app":
            {moment}

sys.meta_path.insert(0, Interrupted())
""")
    places = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    environment = {**ENVIRONMENT, "PYTHONPATH": places}
    result = subprocess.run(COMMAND, capture_output=True, text=True, env=environment, check=False)
    assert result.stderr == "densescope: stopped; what was finished is kept\n"
    assert result.returncode == 130
