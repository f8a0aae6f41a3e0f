"""Watch the dense features of a model while it is being trained."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from densescope.errors import InputError
from densescope.evaluation.backbone import PREVIEW_IMAGES
from densescope.features.extraction import resolve_device
from densescope.features.images import ImageSubset
from densescope.features.normalization import IMAGENET, Normalization
from densescope.files import location, on_disk
from densescope.metrics import ScoreSettings
from densescope.monitoring.collected import CollectedFeatures
from densescope.monitoring.gathering import error_sentence
from densescope.monitoring.keeping import DenseCheckpoint
from densescope.monitoring.loggers import LogFunction, Logger
from densescope.monitoring.metric import DenseMetric, without_views
from densescope.monitoring.model_reader import HeldOut, ModelReader, load_held_out, share_of_batches
from densescope.monitoring.models import ReadTokens, Where
from densescope.monitoring.observation import MetricValues, Observation, TrainingStopped
from densescope.monitoring.recording import LOG, Listener, ObservationDetails, ObservationRecorder
from densescope.records import ScoreRecord
from densescope.selection import Alarm, AlarmSettings

OnError = Literal["warn", "raise"]


class DenseMonitor:
    """Label-free numbers of a fixed set of held-out images, at every moment of a run.

    In a bare loop it takes one line, on every rank, with the slow copy of the network where there
    is one::

        monitor = DenseMonitor("held_out_images", output="scores", every=1000)
        for step, batch in enumerate(batches):
            ...
            monitor.observe(teacher, step=step)

    ``output`` then holds what a sweep writes: ``densescope select`` and ``densescope report`` read
    it, during the run and after it. A restarted job goes on from it.

    An observation leaves no trace in the training: mode of every submodule, gradients, precision
    and the global random states are put back, and the model is not moved.
    **What fails never stops the training**: features that are NaN, a model that cannot be read, no
    memory, a logger that is down or a full disk become one sentence in the log
    ``densescope.monitoring`` and in ``Observation.problems``. Only wrong arguments raise, here,
    before the training begins; and later what was asked for: ``on_error="raise"``,
    ``stop_on_alarm``.

    Args:
        images: a folder, tar shards or Hugging Face image set to draw ``count`` images from, a
            subset drawn before, or a uint8 tensor ``images 3 rows columns``. Left out where the
            loop calls :meth:`update` itself.
        count: images to draw. ``effective_rank`` depends on it: numbers of different
            counts do not compare.
        image_size: pixels of the square that images are cropped to; a tensor has its own size.
        mean: mean of the images the model was trained with, per channel.
        std: their standard deviation, per channel.
        settings: what the numbers depend on, and which are computed (``metrics``; dense structure
            always is); the seed also draws the images. LiDAR is left out.
        output: run folder for records, previews and ``monitor.jsonl``; ``None`` writes nothing.
        every: :meth:`observe` acts on steps that are multiples of this, step 0 too.
        unit: of steps, ``"step"`` or ``"epoch"``.
        backbone: where in the model the backbone is, see
            :func:`~densescope.monitoring.models.find_backbone`.
        tokens: function of the backbone and normalized images that gives ``images patches dim``,
            for models that are none of timm, Transformers or lightly and do not return their
            tokens themselves. Their image vector is then the mean of the tokens.
        batch_size: images per forward pass.
        device: where the numbers are computed; the model stays where it is.
        loggers: objects with ``log(step, numbers)``, or functions of the two.
        checkpoint: keeps the best states, by DSE.
        alarm: when a fall counts; ``None`` for no alarms.
        on_alarm: whom to tell of an alarm that has begun, beside the log and ``alarms.jsonl``:
            functions of an :class:`~densescope.selection.alarm.Alarm`, or channels such as
            ``Command`` and ``Webhook`` of ``densescope.runs.alarms``.
        stop_on_alarm: raise :class:`TrainingStopped` on an alarm, on every rank.
        on_error: ``"warn"``, or ``"raise"`` an ``InputError`` instead, on every rank.
        group: process group whose ranks share the work; all processes by default.
        distributed: ``False`` for a monitor that one process alone calls.

    Raises:
        InputError: an argument is impossible.
        DataError: the images cannot be read.
        RecordError: ``output`` holds a run on other images, of another size or with other
            settings.
    """

    def __init__(
        self,
        images: Tensor | ImageSubset | str | os.PathLike[str] | None = None,
        *,
        count: int = 512,
        image_size: int = 224,
        mean: Sequence[float] = IMAGENET.mean,
        std: Sequence[float] = IMAGENET.std,
        settings: ScoreSettings | None = None,
        output: str | os.PathLike[str] | None = None,
        every: int = 1,
        unit: str = "step",
        backbone: Where = None,
        tokens: ReadTokens | None = None,
        batch_size: int = 64,
        device: str = "auto",
        loggers: Sequence[Logger | LogFunction] = (),
        checkpoint: DenseCheckpoint | None = None,
        alarm: AlarmSettings | None = AlarmSettings(),  # noqa: B008, a frozen dataclass
        on_alarm: Sequence[Listener] = (),
        stop_on_alarm: bool = False,
        on_error: OnError = "warn",
        group: Any = None,
        distributed: bool = True,
    ) -> None:
        _check(every=every, batch_size=batch_size, on_error=on_error)
        self.settings = without_views(settings or ScoreSettings()).with_structure()
        self.every = every
        self.batch_size = batch_size
        self.model_reader = ModelReader(tuple(mean), tuple(std), backbone, tokens)
        self.stop_on_alarm = stop_on_alarm
        self.on_error = on_error
        self.metric = DenseMetric(
            self.settings,
            device=str(resolve_device(device)),
            group=group,
            distributed=distributed,
        )
        self.recorder = ObservationRecorder(
            self.settings,
            normalization=Normalization(self.model_reader.mean, self.model_reader.std),
            folder=None if output is None else on_disk(location(output), "output of a monitor"),
            unit=unit,
            loggers=loggers,
            checkpoint=checkpoint,
            alarm=alarm,
            on_alarm=on_alarm,
        )
        self.held_out: HeldOut | None = None
        if images is not None:
            seed = self.settings.seed
            self.held_out = load_held_out(images, count=count, seed=seed, image_size=image_size)
            if self.metric.ranks.rank == 0:
                self.recorder.open(self.held_out.to_json(), self.held_out.image_size)
        self._problem: str | None = None
        self._about: dict[str, Any] = {}

    def observe(
        self, model: Any, *, step: int, checkpoint: str | os.PathLike[str] | None = None
    ) -> Observation | None:
        """Compute the metrics of the model if ``step`` is due.

        Every rank of the group must call this. The images go through the model in batches that do
        not depend on the number of ranks, each rank taking its share of the batches: the numbers
        are those of one process.

        Args:
            model: a network in training, on any device, wrapped or not; ``backbone`` says
                which part of it is read.
            step: where the run is; decides whether anything is done.
            checkpoint: the file that holds this state, where one was written. The record bears its
                name, so that a choice or an alarm names a file to go back to; other records are
                called ``step 15``.

        Returns:
            The observation, or ``None`` where ``step`` is not a multiple of ``every``.

        Raises:
            TrainingStopped, InputError: only if asked for.
        """
        if step % self.every:
            return None
        started = time.perf_counter()
        self.reset()
        try:
            self._read_model(model)
        except Exception as cause:  # the training goes on; the other ranks wait for this one
            self._problem = error_sentence(cause)
        observation = self._conclude(step, started, checkpoint)
        self.reset()
        return observation

    def update(
        self,
        features: Tensor | Sequence[Tensor],
        sample_ids: Tensor | Sequence[int],
        image_vectors: Tensor | None = None,
    ) -> None:
        """Take up features that the loop has itself; as :meth:`DenseMetric.update`.

        What is wrong with them is said by :meth:`compute` or :meth:`conclude`.
        """
        try:
            self.metric.update(features, sample_ids, image_vectors)
        except Exception as cause:
            self._problem = self._problem or error_sentence(cause)

    def compute(self) -> MetricValues | None:
        """The numbers of what :meth:`update` took up, or ``None`` where they cannot be had.

        Nothing is recorded or logged: :meth:`conclude` does that. Every rank must call it.

        Raises:
            InputError: only with ``on_error="raise"``.
        """
        try:
            return MetricValues.from_json(self.metric.ask(self._problem)["values"])
        except Exception as cause:
            self._complain([error_sentence(cause)])
            return None

    def reset(self) -> None:
        """Forget the features, but nothing of the history."""
        self.metric.reset()
        self._problem = None

    def conclude(self, step: int) -> Observation:
        """Compute, record, log, keep the checkpoint, and judge: what :meth:`observe` does last.

        For loops that call :meth:`update` themselves. The features are forgotten afterwards.

        Raises:
            TrainingStopped, InputError: only if asked for.
        """
        observation = self._conclude(step, time.perf_counter())
        self.reset()
        return observation

    @property
    def records(self) -> list[ScoreRecord]:
        """The history in order of step; kept by the first rank."""
        return self.recorder.history.records

    def state_dict(self) -> dict[str, Any]:
        """The history as plain values, for jobs without ``output``."""
        return self.recorder.history.to_json()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`; records that are here already stay.

        Raises:
            RecordError: it is not such a state.
        """
        self.recorder.history.take_json(state)

    def _read_model(self, model: Any) -> None:
        """This rank's share of the images, through the model, into the metric."""
        if self.held_out is None:
            raise InputError("this monitor has no images to show a model: DenseMonitor(images)")
        pixels, ranks = self.held_out.pixels, self.metric.ranks
        batches = share_of_batches(len(pixels), self.batch_size, ranks.rank, ranks.count)
        self._about = self.model_reader.read(model, pixels, batches, self.metric)

    def _conclude(
        self, step: int, began: float, checkpoint: str | os.PathLike[str] | None = None
    ) -> Observation:
        unit = self.recorder.unit
        name = f"{unit} {step}" if checkpoint is None else Path(checkpoint).name
        values: MetricValues | None = None
        problem: str | None = None
        first: list[Tensor] = []
        fingerprint: str | None = None

        def keep_first(ordered: CollectedFeatures) -> None:
            first.append(ordered.patches[-1][:PREVIEW_IMAGES].clone())

        try:
            answer = self.metric.ask(self._problem, keep_first)
            values, fingerprint = MetricValues.from_json(answer["values"]), answer["images"]
        except Exception as cause:
            problem = error_sentence(cause)
        message: dict[str, Any] | None = None
        if self.metric.ranks.rank == 0:
            details = replace(self._details(values, fingerprint, first), name=name)
            message = self.recorder.add(step, values, problem, details, began)
        answer = self.metric.ranks.broadcast(message)
        alarm = None if answer["alarm"] is None else Alarm.from_json(answer["alarm"])
        problems = [*([] if problem is None else [problem]), *answer["problems"]]
        self._complain([f"{unit} {step}: {problem}" for problem in problems])
        observation = Observation(step, values, alarm, tuple(problems), answer["numbers"], name)
        if alarm is not None and self.stop_on_alarm:
            raise TrainingStopped(observation)
        return observation

    def _details(
        self, values: MetricValues | None, fingerprint: str | None, first: list[Tensor]
    ) -> ObservationDetails:
        if self.held_out is None:
            count = None if values is None else values.images
            return ObservationDetails(
                {"source": "update", "count": count, "fingerprint": fingerprint}
            )
        pixels = self.held_out.pixels[:PREVIEW_IMAGES]
        return ObservationDetails(
            self.held_out.to_json(), self._about, pixels, first[0] if first else None
        )

    def _complain(self, problems: Sequence[str]) -> None:
        if problems and self.on_error == "raise":
            raise InputError(problems[0])
        if self.metric.ranks.rank == 0:
            for problem in problems:
                LOG.warning("%s; the training goes on", problem)


def _check(*, every: int, batch_size: int, on_error: str) -> None:
    for name, value in (("every", every), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if on_error not in ("warn", "raise"):
        raise InputError(f"on_error is {on_error!r}; it must be 'warn' or 'raise'")
