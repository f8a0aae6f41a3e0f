"""Progress bars with the time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from densescope.records import ScoreRecord
from densescope.runs.sweep import SweepEvent
from densescope.selection.words import SINGLE_LAMBDA, dse_title, with_error

if TYPE_CHECKING:
    from densescope.pretraining.trainer import Progress as Training


class _Bar:
    """A bar in a terminal; where there is none, nothing is drawn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def _start(self, description: str, total: int) -> None:
        self._bar.start()
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(description, total=total)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:  # rich before 14.3 ends a bar that is not drawn by a line
            self._bar.stop()


class TrainingProgress(_Bar):
    """Shows the steps of a pretraining run; a line per checkpoint where there is no terminal."""

    def __call__(self, progress: Training) -> None:
        """Take one step."""
        if self._task is None:
            self._start("pretraining", progress.steps)
        speed = f"{progress.images_per_second:.0f} images/s"
        shown = f"pretraining (loss {progress.loss:.3f}, {speed})"
        self._bar.update(self._task, completed=progress.step, description=shown)
        if progress.checkpoint is not None and not self._console.is_terminal:
            name = progress.checkpoint.name
            loss = f"mean loss {progress.mean_loss:.3f}"
            line = f"[{progress.step}/{progress.steps}] {name}: {loss}, {speed}"
            self._console.print(line, markup=False)
        if progress.step == progress.steps:
            self._bar.stop()


class SweepProgress(_Bar):
    """Shows a :class:`SweepEvent` stream; lines instead of a bar where there is no terminal."""

    def __init__(self, console: Console, *, quiet: bool = False, done: str = "scored") -> None:
        super().__init__(console)
        self._quiet = quiet
        self._done = done
        self.left_out: list[str] = []
        self._kept: set[str] = set()
        self._left = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._kept and kind is None:
            count = len(self._kept)
            counted, kept = ("checkpoint was", "is") if count == 1 else ("checkpoints were", "are")
            self._console.print(f"{count} {counted} {self._done} before and {kept} kept")

    def __call__(self, event: SweepEvent) -> None:
        """Take one event."""
        stage = f"{event.stage}, " if event.stage else ""
        if event.kind == "start":
            self._left = event.total
            self._start(event.stage or "beginning", event.total)
        elif event.kind == "left out":
            self.left_out.append(str(event))
        elif event.kind in ("note", "again"):
            self._console.print(str(event), markup=False, soft_wrap=True)
        elif event.kind == "kept":
            self._kept.add(event.name)
            self._left -= 1
            self._bar.update(self._task, total=self._left)
        elif event.kind in ("scoring", "probing"):
            self._bar.update(self._task, description=f"{stage}{event.name}")
        else:
            self._bar.advance(self._task)
            if not self._console.is_terminal and not self._quiet:
                line = f"[{stage}{event.index}/{event.total}] {event.name}: {_outcome(event)}"
                self._console.print(line, markup=False, soft_wrap=True)


def _outcome(event: SweepEvent) -> str:
    """What became of a checkpoint, the seconds and its DSE; why not, is said at the end."""
    record = event.record
    timing = {} if record is None else record.timing
    seconds = sum(value for name, value in timing.items() if name.endswith("_seconds"))
    took = f" in {seconds:.1f} s" if seconds else ""
    if not isinstance(record, ScoreRecord) or not record.scores:
        return f"{event.kind}{took}"
    dse = record.scores[list(record.scores)[-1]].get("released.dse_lambda_1")
    shown = "" if dse is None else f"; {dse_title(SINGLE_LAMBDA)} {with_error(dse)}"
    return f"{event.kind}{took}{shown}"
