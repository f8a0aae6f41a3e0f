"""Score the checkpoints of a run while its training job writes them, and raise the alarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densescope.errors import (
    NOT_FINITE,
    DataError,
    DensescopeError,
    DiskError,
    InputError,
    RecordError,
)
from densescope.features.discovery import find_checkpoints
from densescope.features.images import draw_subset, open_images
from densescope.features.names import CheckpointNames
from densescope.features.spec import BackboneSpec
from densescope.files import location, on_disk
from densescope.locks import exclusive
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord, plain
from densescope.runs.alarms import AlarmLog, Channel, tell
from densescope.runs.arrivals import Arrival, Arrivals, FolderNotes, Signature
from densescope.runs.differences import PLACE
from densescope.runs.extension import missing_metrics
from densescope.runs.identity import check_files, is_current, is_of_run, renumber
from densescope.runs.resolve_spec import wait_for_spec
from densescope.runs.scorer import CheckpointScorer, Compute, manifest, without_images
from densescope.runs.store import RunStore
from densescope.runs.watch_events import Kind, Tries, WatchEvent, WatchResult, WatchSettings
from densescope.selection import (
    Alarm,
    RunTable,
    Selection,
    find_alarm,
    write_table,
)

TABLE = "table.csv"
LOCK = "watch.lock"
TRIES = 3  # of a file that cannot be read, each after a longer wait, before it counts as failed
PUBLISH_SECONDS = 30.0  # between two reports while checkpoints keep coming


def watch_run(
    run_folder: Path | str,
    spec: BackboneSpec,
    *,
    images: Path | str,
    output: Path | str,
    images_count: int = 2048,
    settings: ScoreSettings | None = None,
    compute: Compute | None = None,
    watching: WatchSettings | None = None,
    names: CheckpointNames | None = None,
    moved: bool = False,
    rescore: bool = False,
    skip_broken_images: bool = False,
    channels: Sequence[Channel] = (),
    publish: Callable[[RunStore], None] | None = None,
    on_event: Callable[[WatchEvent], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> WatchResult:
    """Score new checkpoints as a training job writes them; the records are those of a sweep.

    A checkpoint is scored when it is whole (:class:`~densescope.runs.arrivals.Arrivals`), and again
    when it is rewritten while the watch goes on. One that cannot be read is tried again, and has
    failed when it stays so. Names of the folder that may not be expected are said once; that there
    is nothing to score is said again and again. After each checkpoint ``table.csv`` and the alarm
    are brought up to date, and after all that have arrived ``publish`` is called. A watch that was
    killed goes on from the records.

    Args:
        run_folder: the folder of checkpoints; it may be empty or, but for ``once``, not there yet.
        spec: how a file becomes a backbone.
        images: as for :func:`~densescope.runs.sweep.sweep`, like the next four.
        output: folder for the records, the table and ``alarms.jsonl``.
        images_count: size of the fixed subset of images.
        settings: what the numbers depend on, and which are computed; dense structure always is.
        compute: device, batch size and threads.
        watching: when a file is whole, when the watch ends, what an alarm is.
        names, moved, rescore, skip_broken_images: as for :func:`~densescope.runs.sweep.sweep`.
        channels: called once for every alarm that begins.
        publish: called with the store when records have changed, e.g. to write the report.
        on_event: called with a :class:`WatchEvent` as the work goes on.
        sleep: waits between two scans of the folder.

    Returns:
        What there is when it ends.

    Raises:
        DataError: the images cannot be read, or ``once`` finds no folder or no checkpoint.
        CheckpointError: an unknown format or architecture.
        InputError: the layer to judge by is not scored.
        RecordError: ``output`` holds a run made with other settings or of another folder, files
            that were scored have changed since, or it is being watched.
    """
    settings = (settings or ScoreSettings()).with_structure()
    watching = watching or WatchSettings()
    folder, compute = location(run_folder), compute or Compute()
    if not settings.scores_layer(watching.layer):
        raise InputError(
            f"the alarm is to judge layer {watching.layer}, but only {settings.layers} are scored"
        )
    if watching.once and not folder.is_dir():
        wait = "check the path, or wait for it without --once"
        raise DataError(f"there is no folder {folder}: {wait}")
    report = on_event or (lambda event: None)
    store = RunStore(on_disk(location(output), "--output of a watch"))
    store.expect_place(folder, moved=moved)
    source = open_images(images, skip_broken=skip_broken_images)
    found = wait_for_spec(folder, spec, names, store, watching, report, sleep)
    if found is None:
        return WatchResult((), (), None)
    spec, place = found, {PLACE: str(folder.resolve())}
    spec.check_architecture()
    store.expect(plain({**without_images(spec, settings), **place, "race": None}), moved=moved)
    subset = draw_subset(source, images_count, settings.seed)
    for remark in subset.remarks:
        report(WatchEvent("note", text=remark))
    with exclusive(store.folder / LOCK, wait=False) as alone:
        if not alone:
            raise RecordError(
                f"{store.folder} is being watched already; stop that watch first, or use another "
                "--output"
            )
        # records need no lock: each is written at once, and two writers write the same
        if store.has_moved(folder):
            files = find_checkpoints(folder, spec.format, names, gone=store.names())
            check_files(store, files.checkpoints, spec, is_moved=True, rescore=rescore)
        made = plain({**manifest(spec, subset, settings), **place})
        store.open(made, moved=moved)
        with closing(CheckpointScorer(spec, subset, settings, compute, store)) as scorer:
            watch = _Watch(
                scorer=scorer,
                store=store,
                manifest=made,
                arrivals=Arrivals(
                    folder,
                    spec.format,
                    watching.settle_seconds,
                    names=names,
                    recorded=store.names(),
                ),
                watching=watching,
                rescore=rescore,
                channels=channels,
                publish=publish or (lambda store: None),
                report=report,
            )
            return watch.run(sleep)


@dataclass
class _Watch:
    """One watch at work; all that must outlive it is in the store."""

    scorer: CheckpointScorer
    store: RunStore
    manifest: Mapping[str, Any]
    arrivals: Arrivals
    watching: WatchSettings
    rescore: bool
    channels: Sequence[Channel]
    publish: Callable[[RunStore], None]
    report: Callable[[WatchEvent], None]
    alarm: Alarm | None = None
    waiting: tuple[str, ...] = ()
    _done: dict[str, Signature] = field(default_factory=dict)
    _tried: dict[str, Tries] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)
    _news: FolderNotes = field(default_factory=FolderNotes)
    _last_scan: tuple[tuple[str, Signature], ...] = ()
    _is_published: bool = False
    _published_at: float = -PUBLISH_SECONDS

    def run(self, sleep: Callable[[float], None]) -> WatchResult:
        self.report(WatchEvent("start", text=str(self.arrivals.folder)))
        self._judge()
        self._tell()
        active, idle = time.monotonic(), self.watching.until_idle_seconds
        try:
            while not self._stops():
                is_busy = self._look()
                if self.watching.once or self._stops():
                    break
                if is_busy:
                    active = time.monotonic()
                elif idle is not None and time.monotonic() - active >= idle:
                    break
                self._publish_if_due()
                sleep(self.watching.poll_seconds)
        finally:
            self._publish()
        left_out, problem = self.arrivals.left_out, self.arrivals.problem
        return WatchResult(tuple(self._records()), self.waiting, self.alarm, left_out, problem)

    def _stops(self) -> bool:
        return self.watching.stop_on_alarm and self.alarm is not None

    def _look(self) -> bool:
        """Score what is whole and new; whether anything is going on in the folder."""
        is_first = not self._last_scan
        settled, moving = self.arrivals.scan()
        if self.watching.once and self.arrivals.problem:
            raise DataError(self.arrivals.problem)
        for sentence in self._news.of(self.arrivals):
            self.report(WatchEvent("note", text=sentence))
        if is_first:
            spec, present = self.scorer.spec, [arrival.checkpoint for arrival in settled]
            check_files(self.store, present, spec, is_moved=False, rescore=self.rescore)
            self._renumber()
        seen = tuple((item.name, item.signature) for item in (*settled, *moving))
        changed, self._last_scan = seen != self._last_scan, seen
        self._forget({item.name for item in (*settled, *moving)})
        due = [arrival for arrival in settled if self._is_due(arrival)]
        for arrival in due:
            self._score(arrival)
            if self._stops():
                break
        retrying = [name for name in self._tried if name in {item.name for item in settled}]
        self.waiting = tuple(sorted({*(item.name for item in moving), *retrying}))
        return changed or bool(due) or bool(self.waiting)

    def _is_due(self, arrival: Arrival) -> bool:
        if self._done.get(arrival.name) == arrival.signature:
            return False
        tries = self._tried.get(arrival.name)
        if tries is not None and tries.signature == arrival.signature:
            return time.monotonic() >= tries.next_at
        record = self.store.record(arrival.name)
        if record is None or record.status != "scored" or not is_of_run(record, self.manifest):
            return True
        if is_current(record, arrival.checkpoint.path, self.scorer.spec):
            if missing_metrics(record, self.scorer.settings):
                return True
            self._done[arrival.name] = arrival.signature
            return False
        text = f"{arrival.name} was written again since it was scored: it is scored again"
        self.report(WatchEvent("note", arrival.name, text))
        return True

    def _score(self, arrival: Arrival) -> None:
        try:
            record = self.scorer.score_or_raise(arrival.checkpoint)
        except (DataError, DiskError):
            raise
        except Exception as error:
            if not self.arrivals.is_unchanged(arrival):
                return
            self.scorer.refuse_option(error)
            if self._tries_again(arrival, error):
                self.report(WatchEvent("unreadable", arrival.name, str(error)))
                return
            record = self.scorer.failed(arrival.checkpoint, error)
        if not self.arrivals.is_unchanged(arrival):
            return  # rewritten meanwhile: the next scan takes it up again
        self._tried.pop(arrival.name, None)
        self._done[arrival.name] = arrival.signature
        self.store.write(record)
        self.arrivals.recorded.add(record.name)
        record = self._renumber()(record)
        self._is_published = False
        selection = self._judge()
        kind: Kind = "scored" if record.status == "scored" else "failed"
        self.report(WatchEvent(kind, record.name, str(record.error or ""), record, selection))
        self._tell()

    def _renumber(self) -> Callable[[ScoreRecord], ScoreRecord]:
        files = self.arrivals.files
        return renumber(self.store, () if files is None else (*files.checkpoints, *files.gone))

    def _tries_again(self, arrival: Arrival, error: Exception) -> bool:
        """Whether a file that could not be scored may yet become readable."""
        if self.watching.once or isinstance(error, InputError) or NOT_FINITE in str(error):
            return False
        tries = self._tried.get(arrival.name)
        count = tries.count if tries is not None and tries.signature == arrival.signature else 0
        wait = self.watching.settle_seconds * 2**count
        self._tried[arrival.name] = Tries(count + 1, arrival.signature, time.monotonic() + wait)
        return count + 1 < TRIES

    def _judge(self) -> Selection | None:
        """Bring table and alarm up to date with the records."""
        records = self._records()
        layer, definition = self.watching.layer, self.watching.alarm.definition
        try:
            table = RunTable.of(records)
            self.alarm = find_alarm(table, self.watching.alarm, layer=layer)
            selection = table.selection(definition=definition, layer=layer)
        except RecordError as error:
            if any(record.status == "scored" for record in records):
                self.report(WatchEvent("note", text=f"no choice can be made: {error}"))
            return None
        write_table(table, selection, self.store.folder / TABLE)
        return selection

    def _tell(self) -> None:
        entry = AlarmLog(self.store.folder).update(self.alarm)
        if entry is None:
            return
        if entry["event"] == "ended":
            text = f"the alarm since {entry['since']} has ended: DSE is back within noise"
            self.report(WatchEvent("ended", text=text))
            return
        self.report(WatchEvent("alarm", text=entry["text"]))
        for complaint in tell(entry, self.channels):
            self.report(WatchEvent("note", text=complaint))

    def _records(self) -> list[ScoreRecord]:
        try:
            return self.store.records()
        except RecordError:
            return []

    def _forget(self, present: set[str]) -> None:
        """Drop records that a sweep of the folder would not make.

        Of a file that is overwritten, once numbered ones are there, and of one that could not be
        read and is gone. Those of whole checkpoints that were deleted stay.
        """
        if not present - self._known:
            return
        self._known |= present
        row = self.scorer.spec.row
        for record in self._records():
            is_latest = any(Path(record.name).match(name) for name in row.latest)
            is_broken = record.status == "failed" and NOT_FINITE not in str(record.error)
            if record.name not in present and (is_latest or is_broken):
                self.store.remove(record.name)
                self.arrivals.recorded.discard(record.name)

    def _publish_if_due(self) -> None:
        if time.monotonic() - self._published_at >= PUBLISH_SECONDS:
            self._publish()

    def _publish(self) -> None:
        if self._is_published or not any(r.status == "scored" for r in self._records()):
            return
        self._is_published, self._published_at = True, time.monotonic()
        try:
            self.publish(self.store)
        except (DensescopeError, OSError) as error:
            self.report(WatchEvent("note", text=f"the report was not written: {error}"))
