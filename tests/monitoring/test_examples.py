"""The examples run as they are, and leave a run that can be selected from."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from densescope.runs.store import RunStore
from densescope.selection import select_checkpoints

ROOT = Path(__file__).resolve().parents[2]
STEPS = {
    "dino_loop": [10, 20, 30, 40],
    "lightning_run": [8, 16, 24],
    "transformers_trainer": [8, 16, 24],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STEPS)
def test_the_example_runs(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = str(ROOT / "examples" / f"{name}.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [example, str(tmp_path / "out")])
    with torch.random.fork_rng():
        runpy.run_path(example, run_name="__main__")
    said = capsys.readouterr()
    if name == "transformers_trainer":
        assert not said.err
    records = RunStore(tmp_path / "out").records()
    assert [(record.step, record.status) for record in records] == [
        (step, "scored") for step in STEPS[name]
    ]
    assert select_checkpoints(records).lambda_ is not None
    assert ("best: " in said.out) == (name != "dino_loop")
    if "best: " in said.out:
        best = Path(said.out.partition("best: ")[2].strip())
        assert best.exists()


def test_the_bare_loop_is_short_and_every_example_is_run() -> None:
    lines = (ROOT / "examples" / "dino_loop.py").read_text().splitlines()
    assert len(lines) < 60
    assert sum("# the monitor" in line for line in lines) == 1
    assert sum("# the regularizer" in line for line in lines) == 1
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(STEPS)
