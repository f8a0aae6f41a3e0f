"""What happens at the same time in a sweep, in which order, and what is left when it stops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from densescope.errors import CheckpointError, DataError
from densescope.features.discovery import RunCheckpoint
from densescope.features.images import ImageSubset, draw_subset, open_images
from densescope.features.timm_backbone import TimmBackbone
from densescope.metrics import ScoreSettings
from densescope.runs import prefetch as module
from densescope.runs import scorer as scoring
from densescope.runs.executors import InProcess
from densescope.runs.prefetch import CheckpointInMemory, Prefetcher, checkpoint_modified
from densescope.runs.scorer import CheckpointScorer, Compute
from densescope.runs.store import RunStore
from densescope.runs.sweep import sweep
from tests.tiny_run import SETTINGS, SPEC, checkpoint, write_checkpoints

PATHS = [Path(name) for name in ("one", "two", "three")]
PATIENCE_SECONDS = 60.0


class Shelf:
    """Reads are recorded, and one of them may wait or fail."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.seen = {path.name: threading.Event() for path in PATHS}
        self.failing: set[str] = set()

    def read(self, path: Path) -> CheckpointInMemory:
        self.begun.append(path.name)
        self.seen[path.name].set()
        if path.name in self.failing:
            raise CheckpointError(f"{path} is damaged")
        return CheckpointInMemory(cast(Any, path.name), 0, 0.0)

    def await_read(self, name: str) -> None:
        assert self.seen[name].wait(PATIENCE_SECONDS)


def helpers() -> list[str]:
    """Threads that read, show or decode; those that compute numbers stay for the next call."""
    kinds = ("read", "forward", "images")
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(tuple(f"densescope-{k}" for k in kinds))]


def test_the_next_one_is_read_while_this_one_is_used_and_none_further() -> None:
    shelf = Shelf()
    with Prefetcher(shelf.read, "read") as prefetcher:
        assert prefetcher.take(PATHS[0], PATHS[1]).loaded == "one"
        shelf.await_read("two")  # without anyone taking it
        assert shelf.begun == ["one", "two"]
        assert prefetcher.take(PATHS[1], PATHS[2]).loaded == "two"
        shelf.await_read("three")
        assert prefetcher.take(PATHS[2]).loaded == "three"
    assert shelf.begun == ["one", "two", "three"]
    assert helpers() == []


def test_an_error_surfaces_where_its_checkpoint_is_taken_and_the_next_one_is_read() -> None:
    shelf = Shelf()
    shelf.failing = {"two"}
    with Prefetcher(shelf.read, "read") as prefetcher:
        prefetcher.take(PATHS[0], PATHS[1])
        shelf.await_read("two")
        with pytest.raises(CheckpointError, match="two is damaged"):
            prefetcher.take(PATHS[1], PATHS[2])
        shelf.await_read("three")
        assert prefetcher.take(PATHS[2]).loaded == "three"


def test_another_checkpoint_than_the_one_begun_is_read_anew() -> None:
    shelf = Shelf()
    with Prefetcher(shelf.read, "read") as prefetcher:
        prefetcher.begin(PATHS[0])
        assert prefetcher.take(PATHS[2]).loaded == "three"


def watched(monkeypatch: pytest.MonkeyPatch, hook: Callable[[str, str], None]) -> None:
    """Call a hook with ``"read"`` after a checkpoint was read, ``"show"`` before it sees images."""
    read, show = scoring.load_checkpoint, scoring.backbone_features

    def reading(path: Path, load: Any) -> CheckpointInMemory:
        found = read(path, load)
        hook("read", path.name)
        return found

    def shown(backbone: Any, *given: Any, **more: Any) -> Any:
        hook("show", "")
        return show(backbone, *given, **more)

    monkeypatch.setattr(scoring, "load_checkpoint", reading)
    monkeypatch.setattr(scoring, "backbone_features", shown)


def swept(run: Path, images: Path, output: Path, **more: Any) -> list[Any]:
    given = {"spec": SPEC, "settings": ScoreSettings(**{**SETTINGS, "lidar_images": 0}), **more}
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
        if what == "show":
            assert second.wait(PATIENCE_SECONDS)

    watched(monkeypatch, hook)
    records = swept(run, tiny_images, tmp_path / "out")
    assert [record.status for record in records] == ["scored"] * 3
    assert [event for event in events if event.startswith("read")] == [
        f"read checkpoint000{epoch}.pth" for epoch in range(3)
    ]
    assert events.index("show") < events.index("read checkpoint0002.pth")
    assert helpers() == []


def test_a_checkpoint_replaced_after_it_was_read_is_another_for_the_next_sweep(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(2))
    path = run / "checkpoint0001.pth"
    before = checkpoint_modified(path)
    read_second, replaced = threading.Event(), threading.Event()

    def hook(what: str, name: str) -> None:
        if what == "read" and name == path.name:
            read_second.set()
        elif what == "show" and not replaced.is_set():
            assert read_second.wait(PATIENCE_SECONDS)
            torch.save(checkpoint(77), path)
            replaced.set()

    with monkeypatch.context() as patched:
        watched(patched, hook)
        records = swept(run, tiny_images, tmp_path / "out")
    assert records[1].timing["checkpoint_modified"] == before != checkpoint_modified(path)
    events: list[tuple[str, str]] = []
    again = swept(
        run,
        tiny_images,
        tmp_path / "out",
        rescore=True,
        on_event=lambda e: events.append((e.kind, e.name)),
    )
    assert ("scored", path.name) in events
    assert ("kept", "checkpoint0000.pth") in events
    assert again[1].timing["checkpoint_modified"] == checkpoint_modified(path)


def test_an_interrupt_leaves_no_thread_behind(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(3))

    def hook(what: str, name: str) -> None:
        if what == "show":
            assert helpers() != []
            raise KeyboardInterrupt

    watched(monkeypatch, hook)
    with pytest.raises(KeyboardInterrupt):
        swept(run, tiny_images, tmp_path / "out")
    assert helpers() == []


def test_images_are_decoded_while_the_first_checkpoint_is_read(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(1))
    decoding = threading.Event()
    prepare, read = scoring.prepare_images, module.load_checkpoint

    def prepared(*given: Any, **more: Any) -> Any:
        decoding.set()
        return prepare(*given, **more)

    def reading(path: Path, load: Any) -> CheckpointInMemory:
        assert decoding.wait(PATIENCE_SECONDS)
        return read(path, load)

    monkeypatch.setattr(scoring, "prepare_images", prepared)
    monkeypatch.setattr(scoring, "load_checkpoint", reading)
    (record,) = swept(run, tiny_images, tmp_path / "out", spec=replace(SPEC, image_size=32))
    assert record.status == "scored"
    assert record.timing["batch_size"] == 32
    assert record.timing["images_seconds"] >= 0


class OnDemand:
    """Images of a folder, the last of which is only read once something has happened."""

    def __init__(self, folder: Path) -> None:
        self.happened = threading.Event()
        self.source = open_images(folder)

    def subset(self, read: Callable[[str], bytes] | None = None) -> ImageSubset:
        drawn = draw_subset(self.source, len(self.source), 0)
        self.last = drawn.names[-1]
        return replace(drawn, source=replace(self.source, read=read or self.read))

    def read(self, name: str) -> bytes:
        if name == self.last:
            assert self.happened.wait(PATIENCE_SECONDS)
        return self.source.read(name)


def scorer_of(subset: ImageSubset, store: RunStore | None = None) -> CheckpointScorer:
    settings = ScoreSettings(**SETTINGS)
    return CheckpointScorer(SPEC, subset, settings, Compute(batch_size=4), store)


def test_the_first_images_are_shown_while_later_ones_are_decoded(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_checkpoints(tmp_path / "run", range(1)) / "checkpoint0000.pth"
    images = OnDemand(tiny_images)
    features = TimmBackbone.features

    def shown(*given: Any, **more: Any) -> Any:
        images.happened.set()
        return features(*given, **more)

    monkeypatch.setattr(TimmBackbone, "features", shown)
    with closing(scorer_of(images.subset())) as scorer:
        record = scorer.score_or_raise(RunCheckpoint(path, "one", 0))
    monkeypatch.undo()
    with closing(scorer_of(images.subset(images.source.read))) as scorer:
        expected = scorer.score_or_raise(RunCheckpoint(path, "one", 0))
    assert replace(record, timing={}) == replace(expected, timing={})
    assert helpers() == []


def test_an_image_that_cannot_be_decoded_stops_whoever_needs_it(
    tiny_images: Path, tmp_path: Path
) -> None:
    path = write_checkpoints(tmp_path / "run", range(1)) / "checkpoint0000.pth"
    images = OnDemand(tiny_images)

    def read(name: str) -> bytes:
        return b"no image" if name == images.last else images.source.read(name)

    with (
        closing(scorer_of(images.subset(read))) as scorer,
        pytest.raises(DataError, match="cannot be decoded"),
    ):
        scorer.score(RunCheckpoint(path, "one", 0))
    assert helpers() == []


def overlapped(monkeypatch: pytest.MonkeyPatch, hook: Callable[[str, int], None]) -> None:
    """Call a hook before each checkpoint is shown the images and before its numbers."""
    counts = {"show": 0, "numbers": 0}

    def hooked(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            counts[what] += 1
            hook(what, counts[what])
            return function(*given, **more)

        return call

    for what, name in (("show", "backbone_features"), ("numbers", "score_features")):
        monkeypatch.setattr(scoring, name, hooked(what, getattr(scoring, name)))


def test_numbers_of_one_checkpoint_and_forward_passes_of_the_next_overlap(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(3))
    (run / "checkpoint0001.pth").write_bytes(b"damaged")
    expected = swept(run, tiny_images, tmp_path / "one", executor=InProcess(overlap=False))
    second = threading.Event()
    shown: list[int] = []

    def hook(what: str, count: int) -> None:
        if what == "show":
            shown.append(count)
        if (what, count) == ("show", 2):
            second.set()
        if (what, count) == ("numbers", 1):
            # the damaged one is taken next, so the third is not begun before that
            assert not second.wait(0.5)

    with monkeypatch.context() as patched:
        overlapped(patched, hook)
        found = swept(run, tiny_images, tmp_path / "two", executor=InProcess(overlap=True))
    assert [record.status for record in found] == ["scored", "failed", "scored"]
    assert [replace(r, timing={}) for r in found] == [replace(r, timing={}) for r in expected]
    assert helpers() == []


def test_numbers_wait_for_the_next_forward_pass_only_where_they_overlap(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(2))
    second = threading.Event()
    events: list[str] = []

    def hook(what: str, count: int) -> None:
        events.append(f"{what} {count}")
        if (what, count) == ("show", 2):
            second.set()
        if (what, count) == ("numbers", 1) and overlap:
            assert second.wait(PATIENCE_SECONDS)  # begun though nobody took it yet

    for overlap in (True, False):
        events.clear()
        with monkeypatch.context() as patched:
            overlapped(patched, hook)
            swept(run, tiny_images, tmp_path / str(overlap), executor=InProcess(overlap))
    assert events == ["show 1", "numbers 1", "show 2", "numbers 2"]


@pytest.mark.gpu
def test_on_a_gpu_they_overlap_and_the_records_stay_the_same(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_checkpoints(tmp_path / "run", range(3))
    threads: set[str] = set()

    def hook(what: str, count: int) -> None:
        threads.add(f"{what} {threading.current_thread().name.split('_')[0]}")

    with monkeypatch.context() as patched:
        overlapped(patched, hook)
        found = swept(run, tiny_images, tmp_path / "one")
    assert threads == {"show densescope-forward", "numbers MainThread"}
    expected = swept(run, tiny_images, tmp_path / "two", executor=InProcess(overlap=False))
    assert [replace(r, timing={}) for r in found] == [replace(r, timing={}) for r in expected]


@pytest.mark.parametrize("kept", [False, True])
def test_an_interrupt_stops_the_checkpoint_that_is_being_shown_the_images(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    run = write_checkpoints(tmp_path / "run", range(3))
    batches = threading.Semaphore(0)
    shown: list[int] = []
    features = TimmBackbone.features
    interrupted = threading.Event()

    def slow(*given: Any, **more: Any) -> Any:
        shown.append(1)
        if len(shown) > first:  # of the second checkpoint
            batches.release()
            assert interrupted.wait(PATIENCE_SECONDS)
        return features(*given, **more)

    first = 8  # batches of four
    monkeypatch.setattr(TimmBackbone, "features", slow)
    close = CheckpointScorer.close

    def closed(scorer: CheckpointScorer) -> None:
        close(scorer)
        interrupted.set()

    monkeypatch.setattr(CheckpointScorer, "close", closed)

    def hook(what: str, count: int) -> None:
        if what == "numbers":
            assert batches.acquire(timeout=PATIENCE_SECONDS)
            raise KeyboardInterrupt

    overlapped(monkeypatch, hook)
    with pytest.raises(KeyboardInterrupt):
        swept(
            run,
            tiny_images,
            tmp_path / "out",
            executor=InProcess(overlap=True),
            compute=Compute(batch_size=4, image_cache=tmp_path / "kept" if kept else None),
        )
    assert len(shown) == first + 1
    assert helpers() == []
