"""Checkpoints scored in several processes, on a cluster and in parts: the records of one sweep."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.errors import DataError, InputError
from densescope.evaluation.prepared import prepare_images
from densescope.features.images import draw_subset, open_images
from densescope.features.spec import BackboneSpec
from densescope.locks import exclusive
from densescope.metrics import ScoreSettings
from densescope.runs.cluster import Ray
from densescope.runs.executors import Executor, InProcess, Processes
from densescope.runs.scorer import Compute
from densescope.runs.store import RunStore
from densescope.runs.sweep import Shard, SweepEvent, sweep
from tests.tiny_run import ARCHITECTURE, OPTIONS, SETTINGS, SPEC, write_checkpoints

SCORING = ScoreSettings(**SETTINGS)

# A loader that kills its process at one checkpoint: once, or every time.
DEADLY = """
import os, signal
from pathlib import Path
from densescope.features.backbones import load_backbone as load
from densescope.features.spec import BackboneSpec

def load_backbone(path, once, **options):
    flag = Path(once)
    if path.stem.endswith("1") and not flag.exists():
        if flag.suffix == ".once":
            flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return load(path, BackboneSpec("dino", "%s", %r)).backbone
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoints(tmp_path_factory.mktemp("executors") / "run", range(4))


def swept(run: Path, images: Path, output: Path, executor: Executor | None, **more: Any) -> Any:
    given = {"spec": SPEC, "settings": SCORING, **more}
    return sweep(run, images=images, output=output, executor=executor, **given)


def numbers(records: Any) -> Any:
    return [replace(record, timing={}) for record in records]


def test_processes_make_the_records_of_one_process(
    run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    events = []
    alone = swept(run, tiny_images, tmp_path / "one", InProcess())
    beside = swept(
        run, tiny_images, tmp_path / "two", Processes(2), on_event=lambda e: events.append(e.kind)
    )
    assert numbers(beside) == numbers(alone)
    assert numbers(RunStore(tmp_path / "two").records()) == numbers(alone)
    assert events == ["start", *["scored"] * 4]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
    for name in ("images", alone[0].name):
        here, there = (RunStore(tmp_path / one).preview(name) for one in ("one", "two"))
        assert here is not None
        assert there is not None
        assert all(torch.equal(here[key], there[key]) for key in here)


def deadly(tmp_path: Path, flag: str) -> BackboneSpec:
    loader = tmp_path / "deadly.py"
    loader.write_text(DEADLY % (ARCHITECTURE, OPTIONS))
    options = {"once": str(tmp_path / flag)}
    return BackboneSpec("custom", architecture_options=options, loader=loader)


@pytest.mark.usefixtures("forked")
def test_what_a_dead_process_was_at_work_on_is_scored_again(
    run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    again: list[str] = []

    def report(event: SweepEvent) -> None:
        if event.kind == "again":
            again.append(event.name)

    given = deadly(tmp_path, "x.once")
    records = swept(run, tiny_images, tmp_path / "out", Processes(2), spec=given, on_event=report)
    assert (tmp_path / "x.once").exists()
    assert [record.status for record in records] == ["scored"] * 4
    assert "checkpoint0001.pth" in again


@pytest.mark.usefixtures("forked")
def test_a_checkpoint_that_kills_every_process_is_given_up_and_the_others_are_not(
    run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    records = swept(
        run, tiny_images, tmp_path / "out", Processes(2), spec=deadly(tmp_path, "x.ever")
    )
    assert [record.status for record in records] == ["scored", "failed", "scored", "scored"]
    assert "died 3 times without a word: most likely it ran out of memory" in records[1].error


# A loader that says which process it is in, and is never done.
ENDLESS = """
import os, time
from pathlib import Path

def load_backbone(path, pids, **options):
    (Path(pids) / str(os.getpid())).touch()
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_sweep_that_was_stopped(
    run: Path, tiny_images: Path, tmp_path: Path, how: int
) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    pids = tmp_path / "pids"
    pids.mkdir()
    arguments = ["--format", "custom", "--loader", str(tmp_path / "endless.py"), "--processes", "2"]
    arguments += ["--images", str(tiny_images), "--output", str(tmp_path / "out")]
    arguments += ["--architecture-option", f"pids={pids}"]
    command = [sys.executable, "-m", "densescope", "sweep", str(run), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as sweeping:
        until(lambda: len(list(pids.iterdir())) == 2 or sweeping.poll() is not None)
        sweeping.send_signal(how)
        ended = sweeping.wait(60)
    assert ended == (130 if how == signal.SIGINT else -how)
    workers = [int(path.name) for path in pids.iterdir()]
    assert len(workers) == 2
    until(lambda: not any(is_running(worker) for worker in workers))


@pytest.mark.parametrize("at_work", [False, True])
def test_images_of_a_sweep_that_was_killed_are_removed_by_the_next_one(
    run: Path, tiny_images: Path, tmp_path: Path, at_work: bool
) -> None:
    left = tmp_path / "out" / ".images-1"
    left.mkdir(parents=True)
    past = time.time() - 60
    for path in (left / "in-use.lock", left / ".a.npy.0123456789abcdef.part", left):
        path.touch()
        os.utime(path, (past, past))
    with exclusive(left / "in-use.lock", wait=False) if at_work else nullcontext():
        swept(run, tiny_images, tmp_path / "out", InProcess(), shard=Shard(1, 4))
    assert left.exists() == at_work
    kept = [left] if at_work else []
    assert sorted((tmp_path / "out").glob(".images-*")) == kept


def until(happened: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process is at work; one that has ended and was not buried yet is not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.usefixtures("forked")
def test_an_image_that_cannot_be_read_stops_all_processes(
    run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_images, tmp_path / "images")
    (tmp_path / "images" / "000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"000\.png .* cannot be decoded"):
        swept(run, tmp_path / "images", tmp_path / "out", Processes(2))
    assert not list((tmp_path / "out").glob(".images-*"))


@pytest.mark.slow
def test_a_cluster_of_two_nodes_loses_a_worker_and_no_record(
    run: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2] / 'src'}")
    alone = swept(run, tiny_images, tmp_path / "one", InProcess())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    import ray

    try:
        cluster.add_node(num_cpus=1)
        executor = Ray(address=cluster.address)
        across = swept(run, tiny_images, tmp_path / "two", executor)
        assert numbers(across) == numbers(alone)
        assert len(ray.nodes()) == 2
        lossy = deadly(tmp_path, "x.once")
        again = swept(run, tiny_images, tmp_path / "three", executor, spec=lossy)
        assert (tmp_path / "x.once").exists()
        assert [record.status for record in again] == ["scored"] * 4
        assert [one.scores for one in again] == [one.scores for one in alone]
        stored = sorted(path.name for path in (tmp_path / "three" / "records").iterdir())
        assert stored == sorted(f"{record.name}.json" for record in alone)
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_parts_of_a_run_make_one_folder_of_records(
    run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    alone = swept(run, tiny_images, tmp_path / "one", None)
    first = swept(run, tiny_images, tmp_path / "two", None, shard=Shard(1, 3))
    assert [record.step for record in first] == [0, 3]
    for number in (2, 3):
        swept(run, tiny_images, tmp_path / "two", None, shard=Shard(number, 3))
    assert numbers(RunStore(tmp_path / "two").records()) == numbers(alone)
    with pytest.raises(InputError, match="shard 4/3 does not exist; they are numbered from 1/3"):
        Shard(4, 3)
    with pytest.raises(InputError, match="0 processes cannot score anything"):
        Processes(0)


def test_decoded_images_are_shared_through_a_folder(tiny_images: Path, tmp_path: Path) -> None:
    subset = draw_subset(open_images(tiny_images), 20, 0)
    plain = prepare_images(subset, 32, SCORING)
    for _ in range(2):  # written, then read
        kept = prepare_images(subset, 32, SCORING, folder=tmp_path / "kept")
        for name in ("pixels", "views", "sample_ids"):
            assert torch.equal(getattr(kept, name)[:], getattr(plain, name)[:])
    unread = replace(subset, source=replace(subset.source, read=lambda name: os.abort()))
    assert torch.equal(
        prepare_images(unread, 32, SCORING, folder=tmp_path / "kept").pixels[:], plain.pixels[:]
    )
    without = replace(SCORING, lidar_images=0)
    assert prepare_images(subset, 32, without, folder=tmp_path / "kept").views is None


def test_a_sweep_can_keep_decoded_images(run: Path, tiny_images: Path, tmp_path: Path) -> None:
    compute = Compute(image_cache=tmp_path / "kept")
    first = swept(run, tiny_images, tmp_path / "one", None, compute=compute)
    assert list((tmp_path / "kept").glob("*.npy"))
    assert numbers(swept(run, tiny_images, tmp_path / "two", None)) == numbers(first)
