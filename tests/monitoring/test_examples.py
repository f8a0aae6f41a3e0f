"""The examples run as they are, and leave a run that can be selected from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from densescope.runs.store import RunStore
from densescope.selection import select_checkpoints

ROOT = Path(__file__).resolve().parents[2]
STEPS = {
    "dino_loop": [10, 20, 30, 40],
    "lightning_run": [8, 16, 24],
    "transformers_trainer": [8, 16, 24],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(tmp_path / "out")]
    run = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120
    )
    assert run.returncode == 0, run.stderr
    if name == "transformers_trainer":
        assert not run.stderr
    records = RunStore(tmp_path / "out").records()
    assert [(record.step, record.status) for record in records] == [
        (step, "scored") for step in STEPS[name]
    ]
    assert select_checkpoints(records).lambda_ is not None
    if "best: " in run.stdout:
        best = Path(run.stdout.partition("best: ")[2].strip())
        assert best.exists()


def test_the_bare_loop_is_short_and_every_example_is_run() -> None:
    lines = (ROOT / "examples" / "dino_loop.py").read_text().splitlines()
    assert len(lines) < 60
    assert sum("# the monitor" in line for line in lines) == 1
    assert sum("# the regularizer" in line for line in lines) == 1
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(STEPS)
