"""Observations of a run as records: kept, logged, judged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densescope.errors import RecordError
from densescope.features.normalization import Normalization
from densescope.features.spec import BackboneSpec
from densescope.metrics import ScoreSettings
from densescope.monitoring.gathering import error_sentence
from densescope.monitoring.keeping import DenseCheckpoint
from densescope.monitoring.loggers import JsonLines, LogFunction, Logger, log_function
from densescope.monitoring.observation import PREFIX, MetricValues
from densescope.records import ScoreRecord, plain
from densescope.runs.alarms import AlarmLog, Channel
from densescope.runs.differences import PLACE
from densescope.runs.environment import versions
from densescope.runs.store import LIVE, RunStore
from densescope.selection import Alarm, AlarmSettings, find_alarm
from densescope.selection.traits import check_same_run


class RecordHistory:
    """Records in order of step, in memory and, where there is a folder, on disk.

    A step that comes again (a job that was restarted from an older checkpoint) replaces its record.

    Args:
        folder: a run folder as a sweep writes it; ``None`` keeps records in memory only.
    """

    def __init__(self, folder: Path | None) -> None:
        self.store = None if folder is None else RunStore(folder)
        self.is_open = folder is None
        self._by_step: dict[int, ScoreRecord] = {}

    @property
    def records(self) -> list[ScoreRecord]:
        """All records in order of step."""
        return [self._by_step[step] for step in sorted(self._by_step)]

    def open(self, manifest: Mapping[str, Any], image_size: int | None = None) -> None:
        """Start the run, or go on with what an earlier job wrote.

        Args:
            manifest: what all records share.
            image_size: side of the images in pixels, known before the first observation.

        Raises:
            RecordError: the folder holds a run on other images, of another size or with other
                settings.
        """
        if self.store is None:
            return
        self.store.open(plain(manifest))
        self.is_open = True
        folder = self.store.folder / "records"
        if any(not path.name.startswith(".") for path in folder.glob("*.json")):
            records = self.store.records()
            _check_size(records, image_size, self.store.folder)
            self.take(records)

    def take(self, records: list[ScoreRecord]) -> None:
        """Take over records of an earlier job; what is here already stays."""
        self._by_step = {**{record.step: record for record in records}, **self._by_step}

    def up_to(self, step: int) -> list[ScoreRecord]:
        """Records of the run as it stands at a step, without what a lost future left behind."""
        return [record for record in self.records if record.step <= step]

    def add(self, record: ScoreRecord) -> None:
        """Keep a record, also where it cannot be written.

        Raises:
            RecordError: its numbers do not compare with those before it; it is not kept.
            OSError: it is kept in memory, but the disk did not take it.
        """
        others = [old for old in self.records if old.step != record.step]
        scored = [old for old in others if old.status == "scored"]
        if scored and record.status == "scored":
            check_same_run([scored[0], record])
        replaced = self._by_step.get(record.step, record)
        self._by_step[record.step] = record
        if self.store is not None and replaced.name != record.name:
            self.store.remove(replaced.name)
        if self.store is not None and self.is_open:
            self.store.write(record)

    def add_preview(self, name: str, images: Tensor, patches: Tensor) -> None:
        """Keep the features of a few images, to be looked at in the report."""
        if self.store is None or not self.is_open:
            return
        if self.store.preview("images") is None:
            self.store.write_preview("images", {"images": images})
        self.store.write_preview(name, {"patches": patches.to(torch.float16)})

    def to_json(self) -> dict[str, Any]:
        """All records, for a checkpoint of the training job."""
        return dict(plain({"records": [record.to_json() for record in self.records]}))

    def take_json(self, document: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_json` gave.

        Raises:
            RecordError: it is not such a document.
        """
        if "records" not in document:
            raise RecordError("the state holds no records of a monitor")
        self.take([ScoreRecord.from_json(record) for record in document["records"]])


def _check_size(records: Sequence[ScoreRecord], asked: int | None, folder: Path) -> None:
    """The manifest of live weights names no size; the records do."""
    for record in records:
        held = record.provenance.get("image_size") if record.status == "scored" else None
        if None not in (asked, held) and held != asked:
            raise RecordError(
                f"{folder} holds a run on images of {held} pixels, and these have {asked}; "
                "numbers of two sizes do not compare. Give another output, or images of "
                f"{held} pixels"
            )


LOG = logging.getLogger("densescope.monitoring")
Listener = Channel | Callable[[Alarm], object]
LINES = "monitor.jsonl"


@dataclass(frozen=True)
class ObservationDetails:
    """What a record says of an observation beside its numbers.

    Attributes:
        images: source, count and fingerprint, as in the manifest of a sweep.
        about: architecture, weights, image size, grid and device, as far as they are known.
        pixels: the first images, uint8, or ``None``.
        patches: their features, ``images patches dim``, or ``None``.
        name: of the record.
    """

    images: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    pixels: Tensor | None = None
    patches: Tensor | None = None
    name: str = ""


class ObservationRecorder:
    """Records of a run, and everyone who wants to hear of them.

    Each part is tried whatever became of the others; nothing here raises after the constructor and
    :meth:`open`.

    Args:
        settings: of the numbers.
        normalization: of the images that the model is shown.
        folder: the run folder, or ``None``.
        unit: of steps.
        loggers: see :class:`~densescope.monitoring.monitor.DenseMonitor`.
        checkpoint: likewise.
        alarm: likewise.
        on_alarm: likewise.
    """

    def __init__(
        self,
        settings: ScoreSettings,
        *,
        normalization: Normalization,
        folder: Path | None,
        unit: str,
        loggers: Sequence[Logger | LogFunction],
        checkpoint: DenseCheckpoint | None,
        alarm: AlarmSettings | None,
        on_alarm: Sequence[Listener],
    ) -> None:
        self.settings = settings
        self.normalization = normalization
        self.unit = unit
        self.history = RecordHistory(folder)
        lines = () if folder is None else (JsonLines(folder / LINES),)
        self.loggers = [log_function(logger) for logger in (*lines, *loggers)]
        self.checkpoint = checkpoint
        self.alarm_settings = alarm
        self.on_alarm = tuple(on_alarm)
        self.alarms = None if folder is None else AlarmLog(folder)
        self._stands = False
        self._problems: list[str] = []

    def open(self, images: Mapping[str, Any], image_size: int | None = None) -> None:
        """Start the run folder, or go on with it.

        Args:
            images: source, count and fingerprint, as in the manifest of a sweep.
            image_size: their side in pixels, known before the first observation.

        Raises:
            RecordError: it holds a run on other images, of another size or with other settings.
        """
        folder = "" if self.checkpoint is None else str(self.checkpoint.folder.resolve())
        self.history.open({**self._manifest(images), PLACE: folder}, image_size)

    def add(
        self,
        step: int,
        values: MetricValues | None,
        problem: str | None,
        details: ObservationDetails,
        began: float,
    ) -> dict[str, Any]:
        """Record, log, keep the checkpoint and judge.

        Args:
            step: where the run is.
            values: of all metrics, or ``None``.
            problem: why there are none.
            details: what else is known.
            began: when the observation began, by ``time.perf_counter``.

        Returns:
            Plain JSON values: ``"numbers"`` as they were logged, ``"alarm"`` or ``None``, and
            ``"problems"``.
        """
        seconds = time.perf_counter() - began
        numbers = {} if values is None else values.numbers() | {f"{PREFIX}seconds": seconds}
        self._problems = []
        record = self._record(step, values, problem, details, seconds)
        self._try("the record was not kept", self._keep, record, details)
        if values is not None:
            for log in self.loggers:
                name = type(getattr(log, "__self__", log)).__name__
                self._try(f"the logger {name} failed", log, step, numbers)
            if self.checkpoint is not None:
                self._try("no checkpoint was kept", self.checkpoint.offer, step, values.dse)
        alarm = self._try("no alarm could be given", self._judge, step)
        return {"numbers": numbers, "alarm": alarm, "problems": self._problems}

    def _try(self, what: str, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except Exception as cause:  # loggers and disks fail in every way there is
            self._problems.append(f"{what}: {error_sentence(cause)}")
            return None

    def _keep(self, record: ScoreRecord, details: ObservationDetails) -> None:
        if not self.history.is_open and record.status == "scored":
            self.open(details.images)
        self.history.add(record)
        if details.pixels is not None and details.patches is not None and record.status == "scored":
            rows, columns = details.about["grid"]
            grid = details.patches.mT.reshape(len(details.patches), -1, rows, columns)
            self.history.add_preview(record.name, details.pixels, grid)

    def _judge(self, step: int) -> dict[str, Any] | None:
        """The alarm as of this step; those who listen hear of it once."""
        settings = self.alarm_settings
        if settings is None:
            return None
        records, layer = self.history.up_to(step), int(self.settings.layers[-1])
        alarm = find_alarm(records, settings, layer=layer)
        if self._has_begun(alarm):
            assert alarm is not None
            LOG.warning("%s", alarm.sentence)
            for listener in self.on_alarm:
                self._try("an alarm was not passed on", self._tell, listener, alarm)
        return None if alarm is None else alarm.to_json()

    def _has_begun(self, alarm: Alarm | None) -> bool:
        """Whether the alarm is new; the folder remembers it when a job is restarted."""
        if self.alarms is None:
            stood, self._stands = self._stands, alarm is not None
            return self._stands and not stood
        entry = self._try("the alarm was not written down", self.alarms.update, alarm)
        return entry is not None and entry["event"] == "begun"

    def _tell(self, listener: Listener, alarm: Alarm) -> None:
        if callable(listener):
            listener(alarm)
        else:
            entry = {"event": "begun", "text": alarm.sentence, "alarm": alarm.to_json()}
            complaint = listener.tell(entry)
            if complaint is not None:
                self._problems.append(complaint)

    def _manifest(self, images: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "backbone": BackboneSpec(LIVE, normalization=str(self.normalization)).to_json(),
            "images": dict(images),
            "settings": self.settings.to_json(),
        }

    def _record(
        self,
        step: int,
        values: MetricValues | None,
        problem: str | None,
        details: ObservationDetails,
        seconds: float,
    ) -> ScoreRecord:
        about = {name: details.about.get(name) for name in ("image_size", "grid", "device")}
        model = ("architecture", "weights", "normalization")
        weights = {name: details.about.get(name) for name in model}
        return ScoreRecord(
            name=details.name,
            step=step,
            unit=self.unit,
            status="failed" if values is None else "scored",
            error=problem,
            scores={} if values is None else values.scores,
            checkpoint={"format": LIVE, **weights},
            provenance=plain({**self._manifest(details.images), **about, "versions": versions()}),
            timing={
                "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "observe_seconds": round(seconds, 3),
            },
        )
