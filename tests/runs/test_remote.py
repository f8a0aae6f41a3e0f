"""Runs in object stores: checkpoints are read and records written where a URL says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from densescope.errors import DataError, InputError
from densescope.evaluation.scoring import ScoreSettings
from densescope.features.backbones import BackboneSpec, load_backbone
from densescope.features.checkpoints import read_checkpoint
from densescope.files import location
from densescope.report.run import report_run
from densescope.runs.executors import Processes
from densescope.runs.reading import read_run
from densescope.runs.sweep import SweepEvent, sweep
from densescope.runs.watch import watch
from tests.tiny_run import OPTIONS, SETTINGS, checkpoint, write_checkpoints, write_images

SPEC = BackboneSpec("dino", architecture_options=OPTIONS)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """A run in fsspec's memory file system."""
    store = fsspec.filesystem("memory")
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
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    store.mkdir("bucket")
    store.put(str(write_checkpoints(tmp_path / "run")), "bucket/run", recursive=True)
    yield "s3://bucket"
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


def test_processes_share_images_on_a_disk(s3: str, images: Path) -> None:
    events = swept(s3, images, executor=Processes(2))
    assert [event.kind for event in events].count("scored") == 3


def test_a_watch_sees_what_arrives_in_a_store(memory: str, images: Path, tmp_path: Path) -> None:
    ...


def test_of_a_file_in_a_store_only_pieces_are_fetched(memory: str, tmp_path: Path) -> None:
    ...
