"""One pass over the checkpoints of a run: each is scored on the same images, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from densescope.features.discovery import RunCheckpoint
from densescope.features.images import ImageSubset
from densescope.features.spec import BackboneSpec
from densescope.metrics import ScoreSettings
from densescope.records import ProbeRecord, ScoreRecord, plain
from densescope.runs.differences import PLACE
from densescope.runs.executors import Executor, Plan, shared_images
from densescope.runs.extension import missing_metrics
from densescope.runs.identity import is_current, is_of_run
from densescope.runs.scorer import Compute, manifest, without_images
from densescope.runs.store import RunStore


@dataclass(frozen=True)
class SweepEvent:
    """What a sweep, or the probing of a run, says while it goes on.

    Attributes:
        kind: ``"start"`` (``total`` is known), ``"kept"`` (scored before), ``"scoring"``,
            ``"again"`` (its process died), ``"scored"`` or ``"failed"``; of a probe ``"probing"``
            and ``"probed"``; before all of them ``"left out"``, where something looks like a
            checkpoint of the run and is not scored, and ``"note"`` on other names in its folder.
        name: the checkpoint, empty for ``"start"``; of ``"left out"`` and ``"note"`` a sentence.
        index: how many checkpoints are behind it.
        total: how many there are.
        record: the record, once there is one.
        stage: of a sweep in several passes, which one this is, such as ``"round 2 of 8"``.
    """

    kind: str
    name: str
    index: int
    total: int
    record: ScoreRecord | ProbeRecord | None = None
    stage: str = ""

    def __str__(self) -> str:
        """One line, such as ``"[3/21] checkpoint0040.pth scored"``."""
        stage = f"{self.stage}: " if self.stage else ""
        if self.kind == "start":
            return f"{stage}{self.total} checkpoints"
        if self.kind in ("left out", "note"):
            return self.name
        if self.kind == "again":
            return f"{stage}the process that scored {self.name} died: it is scored again alone"
        error = None if self.record is None else self.record.error
        reason = f": {error}" if error else ""
        return f"{stage}[{self.index}/{self.total}] {self.name} {self.kind}{reason}"


@dataclass(frozen=True)
class Sweep:
    """What all passes of a sweep share.

    Attributes:
        folder: of the checkpoints.
        spec: how a file becomes a backbone.
        settings: what the numbers depend on.
        compute: device, batch size and threads.
        executor: where the work is done.
        report: called with every event.
        moved: the run of the records may lie at another place than before.
    """

    folder: Path
    spec: BackboneSpec
    settings: ScoreSettings
    compute: Compute
    executor: Executor
    report: Callable[[SweepEvent], None]
    moved: bool = False

    def manifest(self, subset: ImageSubset) -> dict[str, Any]:
        """The manifest of a folder of records of these images."""
        shared: Mapping[str, Any] = manifest(self.spec, subset, self.settings)
        return dict(plain({**shared, PLACE: str(self.folder.resolve())}))

    def note_images(self, subset: ImageSubset) -> None:
        """Say what a user should know of the images."""
        for remark in subset.remarks:
            self.report(SweepEvent("note", remark, 0, 0))

    def expect(self, store: RunStore, **more: Any) -> None:
        """Refuse a folder of records made with other settings before images are read.

        Args:
            store: the folder.
            more: other entries that its manifest must have.
        """
        place = {PLACE: str(self.folder.resolve())}
        part = {**without_images(self.spec, self.settings), **place, **more}
        store.expect(dict(plain(part)), moved=self.moved)


def _is_done(record: ScoreRecord, job: RunCheckpoint, sweep: Sweep) -> bool:
    """Whether a record speaks of the checkpoint as it is now and has all metrics asked for."""
    return is_current(record, job.path, sweep.spec) and not missing_metrics(record, sweep.settings)


def score_pass(
    sweep: Sweep, jobs: Sequence[RunCheckpoint], subset: ImageSubset, store: RunStore
) -> dict[str, ScoreRecord]:
    """Score what has no current record in the store yet, and what lacks metrics asked for.

    Returns:
        Record by name of every job, old and new ones.

    Raises:
        DataError: an image cannot be read.
        RecordError: the store holds a run made with other settings.
    """
    made = sweep.manifest(subset)
    store.open(made, moved=sweep.moved)
    records: dict[str, ScoreRecord] = {}
    sweep.report(SweepEvent("start", "", 0, len(jobs)))
    for job in jobs:
        record = store.record(job.name)
        if record is None or not is_of_run(record, made):
            continue
        if _is_done(record, job, sweep):
            records[job.name] = record
            sweep.report(SweepEvent("kept", job.name, len(records), len(jobs), record))
    left = [job for job in jobs if job.name not in records]
    plan = Plan(
        store.folder,
        subset.source.location,
        subset.names,
        subset.seed,
        subset.fingerprint,
        subset.skipped,
        sweep.spec,
        sweep.settings,
        sweep.compute,
    )

    def report(kind: Literal["scoring", "again"], job: RunCheckpoint) -> None:
        sweep.report(SweepEvent(kind, job.name, len(records), len(jobs)))

    with shared_images(plan, sweep.executor) as plan:
        for job, record in sweep.executor.score(left, plan, report):
            records[job.name] = record
            sweep.report(SweepEvent(record.status, job.name, len(records), len(jobs), record))
    return records
