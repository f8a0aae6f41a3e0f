"""What ``select`` says of a run, from its records to the terminal, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densescope.records import ScoreRecord
from densescope.runs.store import RunStore
from tests.cli.running import densescope
from tests.selection.runs import noisy_run

DECLINE = [0.0, 2.0, 3.0, 3.02, 2.5, 2.0, 1.5, 1.0, 0.5, 0.2]


def stored(folder: Path, noise: float) -> Path:
    store = RunStore(folder)
    store.open({})
    for record in noisy_run(DECLINE, DECLINE, noise=noise):
        store.write(record)
    return folder


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (0.001, "Use epoch40.pth (epoch 40). From the pick to the last checkpoint (epoch 100) DSE"),
        (0.1, "No clear winner: epochs 30 and 40 are tied; the earliest peak is epoch40.pth (epo"),
        (4.0, "No clear winner: all 10 checkpoints (epochs 10-100) are tied; the earliest peak is"),
    ],
)
def test_the_headline_is_honest_about_ties(tmp_path: Path, noise: float, said: str) -> None:
    to = tmp_path / "choice.json"
    chosen = densescope("select", stored(tmp_path / "scores", noise), "--write", to)
    assert f"\n{said}" in chosen.stdout
    assert ("Use epoch" in chosen.stdout) == said.startswith("Use")
    assert json.loads(to.read_text())["headline"] in chosen.stdout


def test_a_gram_teacher_with_its_evidence(tmp_path: Path) -> None:
    scores, to = stored(tmp_path / "scores", 0.1), tmp_path / "teacher.json"
    chosen = densescope("select", scores, "--for", "gram-teacher", "--write", to)
    assert chosen.returncode == 0, chosen.stderr
    assert "\nGram teacher: epoch30.pth (epoch 30), the earliest of the first 50% of the run" in (
        chosen.stdout
    )
    lines = {line.split()[0]: line for line in chosen.stdout.splitlines() if "epoch" in line[:12]}
    assert "TEACHER" in lines["epoch30.pth"]
    assert "best of the first part" in lines["epoch40.pth"]
    assert lines["epoch100.pth"].endswith("too late")
    assert "[+" in lines["epoch100.pth"]
    document = json.loads(to.read_text())
    assert document["sentence"] in chosen.stdout
    late = densescope("select", scores, "--for", "gram-teacher", "--first-part", "0.2")
    assert (
        "Gram teacher: epoch20.pth (epoch 20), with the best dense structure of the first 20%"
        in (late.stdout)
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--first-part", "0.2"], "--first-part has an effect only with --for gram-teacher"),
        (["--for", "gram-teacher", "--first-part", "2"], "--first-part is 2.0; it must be above 0"),
        (["--for", "gram-teacher", "--first-part", "0.01"], "up to epoch 1): the first is epoch10"),
    ],
)
def test_what_is_asked_in_vain_of_a_teacher(tmp_path: Path, words: list[str], said: str) -> None:
    refused = densescope("select", stored(tmp_path / "scores", 0.1), *words)
    assert refused.returncode == (1 if "0.01" in words else 2)
    assert said in " ".join(refused.stderr.split())


def test_select_says_why_a_checkpoint_has_no_score(tmp_path: Path) -> None:
    folder = stored(tmp_path / "scores", 0.001)
    for name, step in (("epoch110.pth", 110), ("epoch120.pth", 120)):
        error = f"{name} ends too early"
        RunStore(folder).write(ScoreRecord(name, step, status="failed", error=error))
    chosen = densescope("select", folder)
    assert "2 checkpoints were left out without a score: epoch110.pth and ep" in chosen.stdout
    assert chosen.stderr == "densescope: epoch110.pth, epoch120.pth: the file ends too early\n"
