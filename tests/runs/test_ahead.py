"""One checkpoint is read ahead: in which order things happen, and what is left when they stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from densescope.errors import CheckpointError
from densescope.evaluation.scoring import ScoreSettings
from densescope.runs import ahead as module
from densescope.runs import scorer as scoring
from densescope.runs.ahead import ReadAhead, ReadCheckpoint, modified
from densescope.runs.sweep import sweep
from tests.tiny_run import ARCHITECTURE, OPTIONS, SETTINGS, checkpoint, write_checkpoints

PATHS = [Path(name) for name in ("one", "two", "three")]
SPEC = {"format": "dino", "architecture": ARCHITECTURE, "architecture_options": OPTIONS}
PATIENCE_SECONDS = 60.0


class Shelf:
    """Reads are recorded, and one of them may wait or fail."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.seen = {path.name: threading.Event() for path in PATHS}
        self.failing: set[str] = set()

    def read(self, path: Path) -> ReadCheckpoint:
        self.begun.append(path.name)
        self.seen[path.name].set()
        if path.name in self.failing:
            raise CheckpointError(f"{path} is damaged")
        return ReadCheckpoint(cast(Any, path.name), 0, 0.0)

    def await_read(self, name: str) -> None:
        assert self.seen[name].wait(PATIENCE_SECONDS)


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "densescope-read" in thread.name]


def test_the_next_one_is_read_while_this_one_is_used_and_none_further() -> None:
    shelf = Shelf()
    with ReadAhead(shelf.read) as ahead:
        assert ahead.take(PATHS[0], PATHS[1]).loaded == "one"
        shelf.await_read("two")  # without anyone taking it
        assert shelf.begun == ["one", "two"]
        assert ahead.take(PATHS[1], PATHS[2]).loaded == "two"
        shelf.await_read("three")
        assert ahead.take(PATHS[2]).loaded == "three"
    assert shelf.begun == ["one", "two", "three"]
    assert readers() == []


def test_an_error_surfaces_where_its_checkpoint_is_taken_and_the_next_one_is_read() -> None:
    shelf = Shelf()
    shelf.failing = {"two"}
    with ReadAhead(shelf.read) as ahead:
        ahead.take(PATHS[0], PATHS[1])
        shelf.await_read("two")
        with pytest.raises(CheckpointError, match="two is damaged"):
            ahead.take(PATHS[1], PATHS[2])
        shelf.await_read("three")
        assert ahead.take(PATHS[2]).loaded == "three"


def test_another_checkpoint_than_the_one_begun_is_read_anew() -> None:
    shelf = Shelf()
    with ReadAhead(shelf.read) as ahead:
        ahead.begin(PATHS[0])
        assert ahead.take(PATHS[2]).loaded == "three"


def watched(monkeypatch: pytest.MonkeyPatch, hook: Callable[[str, str], None]) -> None:
    """Call a hook with ``"read"`` after a checkpoint was read and ``"score"`` before scoring."""
    read, score = scoring.read_checkpoint, scoring.score_backbone

    def reading(path: Path, load: Any) -> ReadCheckpoint:
        found = read(path, load)
        hook("read", path.name)
        return found

    def scored(backbone: Any, *given: Any, **more: Any) -> Any:
        hook("score", "")
        return score(backbone, *given, **more)

    monkeypatch.setattr(scoring, "read_checkpoint", reading)
    monkeypatch.setattr(scoring, "score_backbone", scored)


def swept(run: Path, images: Path, output: Path, **more: Any) -> list[Any]:
    given = {**SPEC, "settings": ScoreSettings(**{**SETTINGS, "lidar_images": 0}), **more}
    return sweep(run, images=images, output=output, **given)


def test_a_sweep_reads_the_next_checkpoint_before_it_has_scored_this_one(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(3))
    events: list[str] = []
    second = threading.Event()

    def hook(what: str, name: str) -> None:
        events.append(f"{what} {name}".strip())
        if name == "checkpoint0001.pth":
            second.set()
        if what == "score":
            assert second.wait(PATIENCE_SECONDS)

    watched(monkeypatch, hook)
    records = swept(run, tiny_images, tmp_path / "out")
    assert [record.status for record in records] == ["scored"] * 3
    assert [event for event in events if event.startswith("read")] == [
        f"read checkpoint000{epoch}.pth" for epoch in range(3)
    ]
    assert events.index("score") < events.index("read checkpoint0002.pth")
    assert readers() == []


def test_a_checkpoint_replaced_after_it_was_read_is_scored_again_by_the_next_sweep(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(2))
    path = run / "checkpoint0001.pth"
    before = modified(path)
    read_second, replaced = threading.Event(), threading.Event()

    def hook(what: str, name: str) -> None:
        if what == "read" and name == path.name:
            read_second.set()
        elif what == "score" and not replaced.is_set():
            assert read_second.wait(PATIENCE_SECONDS)
            torch.save(checkpoint(77), path)
            replaced.set()

    with monkeypatch.context() as patched:
        watched(patched, hook)
        records = swept(run, tiny_images, tmp_path / "out")
    assert records[1].timing["checkpoint_modified"] == before != modified(path)
    events: list[tuple[str, str]] = []
    again = swept(
        run, tiny_images, tmp_path / "out", on_event=lambda e: events.append((e.kind, e.name))
    )
    assert ("scored", path.name) in events
    assert ("kept", "checkpoint0000.pth") in events
    assert again[1].timing["checkpoint_modified"] == modified(path)


def test_an_interrupt_leaves_no_thread_behind(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(3))

    def hook(what: str, name: str) -> None:
        if what == "score":
            assert readers() != []
            raise KeyboardInterrupt

    watched(monkeypatch, hook)
    with pytest.raises(KeyboardInterrupt):
        swept(run, tiny_images, tmp_path / "out")
    assert readers() == []


def test_images_are_decoded_while_the_first_checkpoint_is_read(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(1))
    decoding = threading.Event()
    prepare, read = scoring.prepare_images, module.read_checkpoint

    def prepared(*given: Any, **more: Any) -> Any:
        decoding.set()
        return prepare(*given, **more)

    def reading(path: Path, load: Any) -> ReadCheckpoint:
        assert decoding.wait(PATIENCE_SECONDS)
        return read(path, load)

    monkeypatch.setattr(scoring, "prepare_images", prepared)
    monkeypatch.setattr(scoring, "read_checkpoint", reading)
    (record,) = swept(run, tiny_images, tmp_path / "out", image_size=32)
    assert record.status == "scored"
    assert record.timing["batch_size"] == 32
    assert record.timing["images_seconds"] > 0
