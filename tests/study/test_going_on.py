"""A study that was killed goes on, and one on a cluster is the same study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from densescope.features.discovery import find_checkpoints
from densescope.pretraining.resume import KEY
from densescope.runs.cluster import Ray
from densescope.runs.store import RunStore
from densescope.study.run import StudyEvent, run_study
from densescope.study.spec import Cell, StudySpec, read_spec
from tests.conftest import ROOT
from tests.pretraining.tiny import content, same
from tests.tiny_run import write_images
from tests.tiny_study import EIGHT_RUNS

pytestmark = pytest.mark.slow
# Runs a study and is killed in the middle of the training of its second run.
KILLED = """
import os, signal, sys
import densescope.study.run as study
from densescope.study.spec import read_spec

train = study.pretrain

def deadly(settings, images, folder, **more):
    def kill(progress):
        if settings.method == "dino" and progress.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return train(settings, images, folder, kill, **more)

study.pretrain = deadly
study.run_study(read_spec(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a study of two runs: SimSiam's and DINO's."""
    folder = tmp_path_factory.mktemp("study")
    write_images(folder / "images", 32)
    plain = EIGHT_RUNS.split("[[probe]]")[0].replace("seeds = [0, 1]", "seeds = [0]")
    before, rest = plain.split('[[arm]]\nname = "dse"')
    path = folder / "spec.toml"
    path.write_text(before + rest[rest.index("[method.dino]") :])
    return path


@pytest.fixture(scope="module")
def spec(file: Path) -> StudySpec:
    return read_spec(file)


@pytest.fixture(scope="module")
def alone(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("alone")
    run_study(spec, output)
    return output


def same_study(spec: StudySpec, ours: Path, theirs: Path) -> bool:
    """Whether scores and weights of every run are equal."""
    return all(
        same(*(found(cell, folder / cell.name) for folder in (ours, theirs)))
        for cell in spec.cells()
    )


def found(cell: Cell, folder: Path) -> tuple[Any, ...]:
    records = RunStore(folder / "scores").records()
    assert [record.status for record in records] == ["scored"] * 2
    files = find_checkpoints(folder / "run", cell.method).checkpoints
    weights = [content(one.path)[KEY]["learner"] for one in files]
    return [record.to_json()["scores"] for record in records], weights


def test_a_study_that_was_killed_in_training_goes_on(
    spec: StudySpec, file: Path, alone: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(file), str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    first, second = (tmp_path / cell.name for cell in spec.cells())
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*.*")}
    assert len(list((second / "run").glob("*.pth"))) == 1
    assert not (second / "scores").exists()
    run_study(spec, tmp_path)
    assert same_study(spec, tmp_path, alone)
    records = {path for path in before if path.suffix != ".txt"}
    assert all(path.stat().st_mtime_ns == before[path] for path in records)


def test_a_study_on_a_cluster_is_the_same_study(
    spec: StudySpec, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}")
    monkeypatch.chdir(tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    events: list[StudyEvent] = []
    try:
        run_study(spec, "out", ray=Ray(address=cluster.address), on_event=events.append)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert sorted(event.cell for event in events) == sorted(cell.name for cell in spec.cells())
    assert [(event.stage, event.index, event.total) for event in events] == [
        ("done", 1, 2),
        ("done", 2, 2),
    ]
    assert same_study(spec, Path("out"), alone)
