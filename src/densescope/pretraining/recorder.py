"""Checkpoints and log of a run, and calls to its callbacks."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from densescope.errors import InputError
from densescope.pretraining.learner import Learner, Method
from densescope.pretraining.resume import KEY, RunState, write_checkpoint
from densescope.pretraining.settings import PretrainSettings
from densescope.writing import append_line, remove_abandoned, replacing

if TYPE_CHECKING:
    from densescope.pretraining.loop import TrainingLoop

LOG = "log.txt"


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step.

    Attributes:
        step: finished steps.
        steps: steps of the run.
        loss: of the last step.
        images_per_second: mean since the start.
        checkpoint: the file written after this step, or ``None``.
        mean_loss: with a checkpoint, the mean since the one before, as in ``log.txt``.
    """

    step: int
    steps: int
    loss: float
    images_per_second: float
    checkpoint: Path | None = None
    mean_loss: float | None = None


class TrainingCallback(Protocol):
    """Called while a run goes on: a monitor, an early stop.

    A callback may put the learner's networks into evaluation mode and must put them back; the
    random state is set anew before every step.
    """

    def on_start(self, learner: Learner[Any], step: int) -> None:
        """Called before the first step, with the steps that were finished before (0, or more)."""
        ...

    def after_step(self, learner: Learner[Any], progress: Progress) -> None:
        """Called after every step, after the checkpoint where there is one."""
        ...

    def on_checkpoint(self, learner: Learner[Any], progress: Progress) -> None:
        """Called when ``progress.checkpoint`` has been written."""
        ...


class RunRecorder:
    """Collects losses, writes checkpoints and the log, and calls the callbacks."""

    def __init__(
        self,
        method: Method,
        settings: PretrainSettings,
        document: dict[str, Any],
        folder: Path,
        progress: Callable[[Progress], None] | None,
        callbacks: Sequence[TrainingCallback],
        first: int,
    ) -> None:
        self.method = method
        self.settings = settings
        self.document = document
        self.folder = folder
        self.progress = progress
        self.callbacks = callbacks
        self.first = first
        self.losses: list[float] = []
        self.began = perf_counter()
        remove_abandoned(folder)
        _forget_after(folder / LOG, first)

    def on_start(self, loop: TrainingLoop) -> None:
        """Tell the callbacks that the first step is near."""
        for callback in self.callbacks:
            callback.on_start(loop.learner, self.first)

    def after_step(self, loop: TrainingLoop, step: int, loss: float) -> None:
        """Take note of a finished step."""
        if not math.isfinite(loss):
            assert self.settings.recipe is not None
            rate = self.settings.recipe.rate_for(self.settings.batch_size)
            raise InputError(
                f"the loss is {loss} at step {step}: lower the learning rate ({rate:g}) or "
                "lengthen the warm-up"
            )
        self.losses.append(loss)
        path, mean = None, None
        if step % self.settings.checkpoint_every == 0 or step == self.settings.steps:
            mean = statistics.fmean(self.losses)
            self.losses.clear()
            path = self._write(loop, step, mean)
        seen = (step - self.first) * self.settings.batch_size
        rate = seen / (perf_counter() - self.began)
        progress = Progress(step, self.settings.steps, loss, rate, path, mean)
        for callback in self.callbacks:
            if path is not None:
                callback.on_checkpoint(loop.learner, progress)
            callback.after_step(loop.learner, progress)
        if self.progress is not None and loop.trainer.is_global_zero:
            self.progress(progress)

    def _write(self, loop: TrainingLoop, step: int, mean_loss: float) -> Path:
        number, counter = self.method.numbers(-(-step // self.settings.checkpoint_every))
        path = self.folder / self.method.file_name.format(number)
        if loop.trainer.is_global_zero:
            write_checkpoint(self._content(loop, step, counter), path)
            self._log(number, step, mean_loss)
        return path

    def _content(self, loop: TrainingLoop, step: int, counter: int) -> dict[str, Any]:
        optimizer = loop.optimizer.state_dict()
        state = RunState(
            step=step,
            settings=self.document,
            learner=dict(loop.learner.state_dict()),
            optimizer=optimizer,
            regularizer={} if loop.regularizer is None else dict(loop.regularizer.state_dict()),
            precision=loop.trainer.precision_plugin.state_dict(),
        )
        return {**loop.learner.content(counter, optimizer), KEY: state.to_content()}

    def _log(self, number: int, step: int, mean_loss: float) -> None:
        line = {
            "train_loss": mean_loss,
            "epoch": number,
            "step": step,
            "seconds": round(perf_counter() - self.began, 3),
        }
        append_line(self.folder / LOG, json.dumps(line))


def _forget_after(log: Path, step: int) -> None:
    """Leave out what a killed run logged after the checkpoint that a resumed one begins from.

    So is a line that it did not finish.
    """
    if log.is_file():
        text = log.read_text(encoding="utf-8", errors="replace")
        kept = "".join(f"{line}\n" for line in text.splitlines() if _step_of(line) <= step)
        if kept != text:
            with replacing(log) as temporary:
                temporary.write_text(kept, encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a line of the log; infinite where it is no whole line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf
