"""What the first rank does with a reading: record, log, keep the checkpoint, judge."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from densescope.features.normalization import Normalization
from densescope.features.spec import BackboneSpec
from densescope.metrics import ScoreSettings
from densescope.monitoring.gathering import sentence
from densescope.monitoring.history import History
from densescope.monitoring.keeping import DenseCheckpoint
from densescope.monitoring.loggers import JsonLines, LogFunction, Logger, log_function
from densescope.monitoring.reading import PREFIX, DenseReading
from densescope.records import ScoreRecord, plain
from densescope.runs.alarms import AlarmLog, Channel
from densescope.runs.environment import versions
from densescope.runs.store import LIVE, PLACE
from densescope.selection import Alarm, AlarmSettings, find_alarm

LOG = logging.getLogger("densescope.monitoring")
Listener = Channel | Callable[[Alarm], object]
LINES = "monitor.jsonl"


@dataclass(frozen=True)
class Look:
    """What is known of one look at the model beside its features.

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


class Journal:
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
        self.history = History(folder)
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
            image_size: their side in pixels, where it is known before the first look.

        Raises:
            RecordError: it holds a run on other images, of another size or with other settings.
        """
        folder = "" if self.checkpoint is None else str(self.checkpoint.folder.resolve())
        self.history.open({**self._manifest(images), PLACE: folder}, image_size)

    def enter(
        self, step: int, reading: DenseReading | None, problem: str | None, look: Look, began: float
    ) -> dict[str, Any]:
        """Do all that follows from a look.

        Args:
            step: where the run is.
            reading: the numbers, or ``None``.
            problem: why there are none.
            look: what else is known.
            began: when the look began, by ``time.perf_counter``.

        Returns:
            Plain JSON values: ``"numbers"`` as they were logged, ``"alarm"`` or ``None``, and
            ``"problems"``.
        """
        seconds = time.perf_counter() - began
        numbers = {} if reading is None else reading.numbers() | {f"{PREFIX}seconds": seconds}
        self._problems = []
        record = self._record(step, reading, problem, look, seconds)
        self._try("the record was not kept", self._keep, record, look)
        if reading is not None:
            for log in self.loggers:
                name = type(getattr(log, "__self__", log)).__name__
                self._try(f"the logger {name} failed", log, step, numbers)
            if self.checkpoint is not None:
                self._try("no checkpoint was kept", self.checkpoint.offer, step, reading.dse)
        alarm = self._try("no alarm could be given", self._judge, step)
        return {"numbers": numbers, "alarm": alarm, "problems": self._problems}

    def _try(self, what: str, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except Exception as cause:  # loggers and disks fail in every way there is
            self._problems.append(f"{what}: {sentence(cause)}")
            return None

    def _keep(self, record: ScoreRecord, look: Look) -> None:
        if not self.history.is_open and record.status == "scored":
            self.open(look.images)
        self.history.add(record)
        if look.pixels is not None and look.patches is not None and record.status == "scored":
            rows, columns = look.about["grid"]
            grid = look.patches.mT.reshape(len(look.patches), -1, rows, columns)
            self.history.add_preview(record.name, look.pixels, grid)

    def _judge(self, step: int) -> dict[str, Any] | None:
        """The alarm as of this step; those who listen hear of it once."""
        settings = self.alarm_settings
        if settings is None:
            return None
        records, layer = self.history.up_to(step), self.settings.layers[-1]
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
        reading: DenseReading | None,
        problem: str | None,
        look: Look,
        seconds: float,
    ) -> ScoreRecord:
        about = {name: look.about.get(name) for name in ("image_size", "grid", "device")}
        model = ("architecture", "weights", "normalization")
        weights = {name: look.about.get(name) for name in model}
        return ScoreRecord(
            name=look.name,
            step=step,
            unit=self.unit,
            status="failed" if reading is None else "scored",
            error=problem,
            scores={} if reading is None else reading.scores,
            checkpoint={"format": LIVE, **weights},
            provenance=plain({**self._manifest(look.images), **about, "versions": versions()}),
            timing={
                "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "observe_seconds": round(seconds, 3),
            },
        )
