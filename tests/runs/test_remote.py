"""Runs in object stores: checkpoints are read and records written where a URL says."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from densescope.cli import main
from densescope.errors import DataError, InputError
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.features.backbones import BackboneSpec, load_backbone
from densescope.features.discovery import find_checkpoints
from densescope.files import is_local, location
from densescope.metrics import ScoreSettings
from densescope.monitoring.monitor import DenseMonitor
from densescope.report.run import report_run
from densescope.runs.executors import Plan, Processes, shared_images
from densescope.runs.labels import LabelledData
from densescope.runs.probe import ProbeRequest, probe_run
from densescope.runs.run import read_run
from densescope.runs.scorer import Compute
from densescope.runs.sweep import SweepEvent, sweep
from densescope.runs.watch import watch_run
from densescope.runs.watch_events import WatchSettings
from tests.tiny_run import OPTIONS, SETTINGS, checkpoint, write_checkpoints, write_images

OPTION_WORDS = [f"--architecture-option={key}={value}" for key, value in OPTIONS.items()]
SPEC = BackboneSpec("dino", architecture_options=OPTIONS)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """A run in fsspec's memory file system."""
    store = fsspec.filesystem("memory")
    if store.exists("/bucket"):  # other tests share it
        store.rm("/bucket", recursive=True)
    store.put(str(write_checkpoints(tmp_path / "run")), "/bucket/run", recursive=True)
    yield "memory://bucket"
    store.rm("/bucket", recursive=True)


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run in a bucket of a local server that speaks S3."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    store = fsspec.filesystem("s3")
    store.mkdir("bucket")
    store.put(str(write_checkpoints(tmp_path / "run")), "bucket/run", recursive=True)
    yield "s3://bucket"
    store.rm("bucket", recursive=True)  # the server's state outlives it
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def swept(place: str, images: Path, **changes: Any) -> list[SweepEvent]:
    events: list[SweepEvent] = []
    asked = {"images": images, "images_count": 32, "output": f"{place}/scores"}
    asked |= {"settings": ScoreSettings(**SETTINGS), "on_event": events.append}
    sweep(f"{place}/run", SPEC, **{**asked, **changes})
    return events


def test_a_run_in_a_store_is_swept_and_goes_on(memory: str, images: Path, tmp_path: Path) -> None:
    first, again = swept(memory, images), swept(memory, images)
    assert [event.kind for event in first].count("scored") == 3
    assert [event.kind for event in again] == ["start", "kept", "kept", "kept"]
    here = sweep(
        tmp_path / "run",
        SPEC,
        images=images,
        output=tmp_path / "scores",
        images_count=32,
        settings=ScoreSettings(**SETTINGS),
    )
    there = read_run(f"{memory}/scores").records
    assert [record.scores for record in there] == [record.scores for record in here]
    assert [record.checkpoint for record in there] == [record.checkpoint for record in here]
    page = report_run(f"{memory}/scores")
    assert str(page) == f"{memory}/scores/report.html"
    assert "checkpoint0002.pth" in page.read_text(encoding="utf-8")
    names = {path.name for path in location(f"{memory}/scores").rglob("*")}
    assert not any(name.startswith(".") or name.endswith(".part") for name in names)


def test_a_run_on_s3_is_swept_and_goes_on(s3: str, images: Path) -> None:
    assert [event.kind for event in swept(s3, images)].count("scored") == 3
    again = swept(s3, images)
    assert [event.kind for event in again] == ["start", "kept", "kept", "kept"]
    assert [record.status for record in read_run(f"{s3}/scores").records] == ["scored"] * 3
    fsspec.filesystem("s3").rm("bucket/run/checkpoint0001.pth")
    with pytest.raises(DataError, match="there is no folder s3://bucket/other"):
        find_checkpoints(f"{s3}/other", "dino")
    assert len(find_checkpoints(f"{s3}/run", "dino").checkpoints) == 2


def test_of_a_file_on_s3_the_used_pieces_are_fetched(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = checkpoint(0)
    small = load_backbone(f"{s3}/run/checkpoint0000.pth", SPEC)
    torch.save({**content, "optimizer": torch.zeros(10 << 20)}, tmp_path / "large.pth")
    store = fsspec.filesystem("s3")
    store.put(str(tmp_path / "large.pth"), "bucket/large.pth")
    fetched: list[int] = []
    fetch = type(store.open("bucket/large.pth"))._fetch_range

    def counted(self: Any, start: int, end: int) -> bytes:
        piece: bytes = fetch(self, start, end)
        fetched.append(len(piece))
        return piece

    monkeypatch.setattr(type(store.open("bucket/large.pth")), "_fetch_range", counted)
    large = load_backbone(f"{s3}/large.pth", SPEC)
    assert large.sha256 == small.sha256
    assert large.bytes > 40 << 20
    assert 0 < sum(fetched) < 14 << 20, fetched


def test_images_are_shared_on_a_disk(memory: str, tmp_path: Path) -> None:
    plan = Plan(
        location(f"{memory}/scores"), "images", (), 0, "", {}, SPEC, ScoreSettings(), Compute()
    )
    with shared_images(plan, Processes(2)) as shared:
        folder = shared.compute.image_cache
        assert folder is not None
        assert is_local(folder)
        assert folder.is_dir()
        assert pickle.loads(pickle.dumps(shared)).output == plan.output
    assert not folder.exists()


def test_a_watch_reads_from_a_store_and_writes_to_a_disk(
    memory: str, images: Path, tmp_path: Path
) -> None:
    asked = {"images": images, "images_count": 32, "settings": ScoreSettings(**SETTINGS)}
    once = WatchSettings(once=True, settle_seconds=0)
    result = watch_run(f"{memory}/run", SPEC, output=tmp_path / "out", watching=once, **asked)  # type: ignore[arg-type]
    assert [record.status for record in read_run(tmp_path / "out").records] == ["scored"] * 3
    assert result is not None
    with pytest.raises(InputError, match=r"output of a monitor cannot be memory://bucket/out"):
        DenseMonitor(images, image_size=32, output=f"{memory}/out")
    with pytest.raises(InputError, match=r"--output of a watch cannot be memory://bucket/out"):
        watch_run(f"{memory}/run", SPEC, output=f"{memory}/out", watching=once, **asked)  # type: ignore[arg-type]


def test_a_run_in_a_store_is_probed_and_judged(memory: str, images: Path, tmp_path: Path) -> None:
    save_scenes(make_scenes(12, size=32, seed=0), tmp_path / "scenes" / "train")
    save_scenes(make_scenes(6, size=32, seed=1), tmp_path / "scenes" / "test")
    data = LabelledData("scenes", tmp_path / "scenes", test_split="test")
    request = ProbeRequest("linear-sgd", seeds=(0,), image_size=32)
    swept(memory, images)
    found = probe_run(f"{memory}/scores", data, request)
    assert [record.status for record in found] == ["probed"] * 3
    assert [list(records) for records in read_run(f"{memory}/scores").probes.values()] == [found]
    events: list[SweepEvent] = []
    probe_run(f"{memory}/scores", data, request, on_event=events.append)
    assert [event.kind for event in events] == ["start", "kept", "kept", "kept"]


def test_the_command_takes_urls(
    memory: str,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(*words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["densescope", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, " ".join("".join(capsys.readouterr()).split())

    swept(memory, images)
    table = f"{memory}/table.csv"
    code, text = said("select", f"{memory}/scores", "--write", table)
    assert code == 0, text
    assert location(table).read_text().startswith("step,unit,name,")
    code, text = said("check", f"{memory}/run/checkpoint0000.pth", *OPTION_WORDS)
    assert (code, "all 30 tensors" in text) == (0, True), text
    code, text = said("check", f"{memory}/run/checkpoint0000.pth", "--format", "mae")
    assert (code, "does not fit format mae" in text) == (1, True), text
    where = ("--images", "s3://bucket/images", "--output", f"{memory}/scores")
    code, text = said("sweep", f"{memory}/run", "--format", "dino", *where)
    assert (code, "but only a path on a disk works here" in text) == (2, True), text
    code, text = said("select", "store://scores")
    assert (code, "names no known kind of store" in text) == (2, True), text


def test_a_store_that_cannot_be_reached_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(DataError, match=r"s3://nowhere/run cannot be reached \(.*credentials"):
        find_checkpoints("s3://nowhere/run", "dino")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
