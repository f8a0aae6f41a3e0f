"""A progress bar with the time left, fed by a sweep's events."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from densescope.runs.sweep import SweepEvent


class SweepProgress:
    """Shows a :class:`SweepEvent` stream; lines instead of a bar where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: Any = None
        self._kept = 0

    def __enter__(self) -> SweepProgress:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        if self._kept and kind is None:
            self._console.print(f"{self._kept} checkpoints were scored before and are kept")

    def __call__(self, event: SweepEvent) -> None:
        """Take one event."""
        if event.kind == "start":
            self._task = self._bar.add_task("scoring", total=event.total)
        elif event.kind == "kept":
            self._kept += 1
            self._bar.update(self._task, total=event.total - self._kept)
        elif event.kind == "scoring":
            self._bar.update(self._task, description=event.name)
        else:
            self._bar.advance(self._task)
            seconds = sum(
                value
                for name, value in (event.record.timing if event.record else {}).items()
                if name.endswith("_seconds")
            )
            if not self._console.is_terminal:
                self._console.print(
                    f"[{event.index}/{event.total}] {event.name}: {event.kind}"
                    + (f" in {seconds:.1f} s" if seconds else ""),
                    markup=False,
                )
