"""``watch``: the table, the report and the alarm of a run that is still going."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from densescope.cli import options as o
from densescope.cli.failures import (
    FAILED_CHECKPOINTS,
    REFUSED,
    Reasons,
    UsageError,
    print_failures,
    print_left_out,
)
from densescope.cli.grouping import Only, from_options, grouped
from densescope.cli.tables import console as make_console
from densescope.selection.headline import tie
from densescope.selection.parts import weighted_sum
from densescope.selection.words import SINGLE_LAMBDA, dse_title, with_error

if TYPE_CHECKING:
    from densescope.runs.alarms import Channel
    from densescope.runs.store import RunStore
    from densescope.runs.watch_events import WatchEvent, WatchResult, WatchSettings
    from densescope.selection import Selection

ALARM_STANDS = 4


@dataclass(frozen=True)
class WatchOptions:
    """When to look, when to end, and whom to tell."""

    settle: Annotated[
        float, typer.Option(min=0, help="Seconds a file must not have changed to count as whole.")
    ] = 10.0
    poll: Annotated[
        float, typer.Option(min=0.01, help="Seconds between two looks."), Only("once", False)
    ] = 5.0
    until_idle: Annotated[
        float | None,
        typer.Option(min=0, help="End when nothing has changed for so many seconds."),
        Only("once", False),
    ] = None
    once: Annotated[bool, typer.Option("--once", help="Score what is whole now, and end.")] = False
    definition: o.DefinitionOption = "released"
    layer: o.LayerOption = -1
    patience: Annotated[
        int, typer.Option(min=1, help="Checkpoints in a row that must have fallen for an alarm.")
    ] = 2
    stop_on_alarm: Annotated[
        bool,
        typer.Option("--stop-on-alarm", help=f"End with exit code {ALARM_STANDS} on an alarm."),
    ] = False
    on_alarm: Annotated[
        str | None,
        typer.Option(metavar="CMD", help="Run this; it gets the alarm as JSON on its input."),
    ] = None
    alarm_webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="POST the alarm there as JSON.")
    ] = None

    @from_options
    def watching(self) -> WatchSettings:
        """The settings these options stand for."""
        from densescope.runs.watch_events import WatchSettings
        from densescope.selection import AlarmSettings

        return WatchSettings(
            settle_seconds=self.settle,
            poll_seconds=self.poll,
            until_idle_seconds=self.until_idle,
            once=self.once,
            stop_on_alarm=self.stop_on_alarm,
            layer=self.layer,
            alarm=AlarmSettings(definition=self.definition, patience=self.patience),
        )

    @from_options
    def channels(self) -> list[Channel]:
        """Whom to tell of an alarm beside the terminal and the file."""
        from densescope.runs.alarms import Command, Webhook

        told: list[Channel] = []
        if self.on_alarm is not None:
            told.append(Command(self.on_alarm))
        if self.alarm_webhook is not None:
            told.append(Webhook(self.alarm_webhook))
        return told


@grouped
def watch(
    run_folder: Annotated[
        Path,
        typer.Argument(
            metavar="PATH|URL", help="The folder a training job writes into.", parser=o.place
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="PATH", help="Folder for the records.", parser=o.place)
    ],
    backbone: o.BackboneOptions,
    folder: o.FolderOptions,
    scoring: o.ScoreOptions,
    watching: WatchOptions,
) -> None:
    """Score checkpoints as a training job writes them, and raise an alarm when DSE falls.

    Keeps the records of a sweep, OUTPUT/table.csv and OUTPUT/report.html current; Ctrl-C ends it.
    Exit code 4 with --stop-on-alarm when an alarm stands, 3 when some checkpoints could not be
    scored or were left out, 1 when there was none to score. The training job itself is never
    touched.
    """
    from densescope.runs.watch import watch_run

    console, reasons = make_console(), Reasons()
    if watching.layer not in scoring.settings().layers:
        raise UsageError(f"--layer {watching.layer} is not among --layers {scoring.layers}")
    result = watch_run(
        run_folder,
        backbone.spec(),
        images=scoring.images,
        output=output,
        images_count=scoring.images_count,
        settings=scoring.settings(),
        compute=scoring.compute(),
        watching=watching.watching(),
        names=folder.names(),
        moved=folder.moved,
        rescore=folder.rescore,
        channels=watching.channels(),
        publish=lambda store: _write_report(store, watching),
        on_event=lambda event: _print(console, event, reasons),
    )
    _finish(console, output, result, watching)


def _write_report(store: RunStore, watching: WatchOptions) -> None:
    from densescope.report.run import report_run

    report_run(store.folder, definition=watching.definition, layer=watching.layer)


def _print(console: Console, event: WatchEvent, reasons: Reasons) -> None:
    if event.kind == "start":
        there = Path(event.text).is_dir()
        said = f"watching {event.text}" if there else f"waiting for {event.text} to appear"
        console.print(f"{said}; Ctrl-C ends it")
    elif event.kind == "scored":
        console.print(_line(event))
    elif event.kind == "failed":
        reason = reasons.told(event.name, event.text)
        console.print(f"{event.name}: failed: {reason}", soft_wrap=True)
    elif event.kind == "unreadable":
        reason = reasons.told(event.name, event.text)
        console.print(f"{event.name}: tried again later: {reason}", soft_wrap=True)
    elif event.kind == "alarm":
        console.print(f"ALARM: {event.text}", style="bold red", soft_wrap=True)
    else:
        console.print(event.text)


def _line(event: WatchEvent) -> str:
    """One checkpoint: its place, its parts, its DSE, and the pick of the run so far."""
    record, selection = event.record, event.selection
    place = event.name if record is None else f"{event.name} ({record.unit} {record.step})"
    if selection is None or event.name in selection.failed:
        return f"{place}: its features have no dense structure to measure"
    row = selection.row(event.name)
    parts = (
        f"separability {with_error(row.separability)}, "
        f"effective rank {with_error(row.effective_rank)}"
    )
    if selection.definition == "released":
        # that of one checkpoint: lambda of the run changes with every checkpoint
        total = weighted_sum(row.separability, row.effective_rank, SINGLE_LAMBDA)
        parts = f"{parts}, {dse_title(SINGLE_LAMBDA)} {with_error(total)}"
    return f"{place}: {parts}; {_so_far(selection)}"


def _so_far(selection: Selection) -> str:
    """The choice as of now, which may still change."""
    if selection.pick is None:
        return "no pick yet"
    by = "" if selection.lambda_ is None else f", by {dse_title(selection.lambda_)}"
    if selection.tied:
        return (
            f"no clear winner so far{by}: {tie(selection)}; earliest peak {selection.earliest_peak}"
        )
    return f"pick so far: {selection.pick}{by}"


def _finish(console: Console, output: Path, result: WatchResult, watching: WatchOptions) -> None:
    failed = [record for record in result.records if record.status == "failed"]
    scored = len(result.records) - len(failed)
    console.print(f"{scored} of {len(result.records)} checkpoints scored; records in {output}")
    if result.waiting:
        console.print(f"not whole yet: {', '.join(result.waiting)}")
    print_failures(failed)
    if watching.stop_on_alarm and result.alarm is not None:
        console.print(f"stopped by an alarm: {result.alarm.sentence}")
        raise typer.Exit(ALARM_STANDS)
    if result.problem and not result.records:
        typer.echo(f"densescope: nothing was scored: {result.problem}", err=True)
        raise typer.Exit(REFUSED)
    if result.left_out:
        names = ", ".join(result.left_out)
        print_left_out([f"left out, though they look like checkpoints: {names}"])
    if failed or result.left_out or not result.records:
        raise typer.Exit(FAILED_CHECKPOINTS)
