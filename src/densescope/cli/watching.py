"""``watch``: the table, the report and the alarm of a run that is still going."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from densescope.cli import headings as h
from densescope.cli import options as o
from densescope.cli.failures import (
    FAILED_CHECKPOINTS,
    REFUSED,
    Reasons,
    UsageError,
    complain,
    print_failures,
    print_left_out,
)
from densescope.cli.parsing import ConfigOption, Only, Place, file, from_options, option, place
from densescope.cli.screen import console as make_console
from densescope.layers import ALL
from densescope.metrics.lambdas import linear_combination
from densescope.selection.headline import tie
from densescope.selection.words import SINGLE_LAMBDA, dse_title, with_error

if TYPE_CHECKING:
    from densescope.runs.alarms import Channel
    from densescope.runs.store import RunStore
    from densescope.runs.watch_events import WatchEvent, WatchResult, WatchSettings
    from densescope.selection import Selection

ALARM_STANDS = 4


_FOREVER = Only("--once", False)


@Parameter(name="*", group=h.WATCH)
@dataclass(frozen=True)
class WatchOptions:
    """When to look, when to end, and whom to tell."""

    once: Annotated[bool, option("Score what is whole now, and end.")] = False
    until_idle: Annotated[
        float | None,
        option("End when nothing has changed for this many seconds.", least=0, metavar="SECONDS"),
        _FOREVER,
    ] = None
    poll: Annotated[
        float,
        option("Seconds between two checks of the folder.", least=0.01, metavar="SECONDS"),
        _FOREVER,
    ] = 5.0
    settle: Annotated[
        float,
        option(
            "Seconds without a change after which a file counts as whole.",
            least=0,
            metavar="SECONDS",
        ),
    ] = 10.0
    definition: o.DefinitionOption = "released"
    layer: o.LayerOption = -1
    patience: Annotated[
        int, option("Checkpoints in a row that must have fallen for an alarm.", h.ALARM, least=1)
    ] = 2
    stop_on_alarm: Annotated[
        bool, option(f"End with exit code {ALARM_STANDS} when an alarm is on.", h.ALARM)
    ] = False
    on_alarm: Annotated[
        str | None,
        option(
            "Command to run on an alarm, with the alarm as JSON on its input; or web address to "
            "POST it to.",
            h.ALARM,
            metavar="COMMAND|URL",
        ),
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

        if self.on_alarm is None:
            return []
        is_address = re.match(r"[a-z]+://", self.on_alarm)
        return [Webhook(self.on_alarm) if is_address else Command(self.on_alarm)]


def watch(
    run_folder: Annotated[
        Place, place("Folder that a training job writes into.", h.MAIN, name="RUN_FOLDER")
    ],
    /,
    *,
    output: Annotated[Path, file("Folder for the records of the run.", h.MAIN)],
    scoring: o.ScoreOptions,
    backbone: o.BackboneOptions = o.BackboneOptions(),
    folder: o.FolderOptions = o.FolderOptions(),
    watching: WatchOptions = WatchOptions(),
    config: ConfigOption = None,
) -> int:
    """Score checkpoints as a training job writes them."""
    from densescope.runs.watch import watch_run

    console, reasons = make_console(), Reasons()
    if not scoring.settings().scores_layer(watching.layer):
        asked = scoring.layers
        layers = (
            "all, whose numbers count from the last, -1"
            if asked == ALL
            else ",".join(map(str, asked))
        )
        raise UsageError(f"--layer {watching.layer} is not among --layers {layers}")
    result = watch_run(
        run_folder,
        backbone.spec(),
        images=scoring.images,
        output=output,
        images_count=scoring.images_count,
        skip_broken_images=scoring.skip_broken_images,
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
    return _finish(console, output, result, watching)


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
        reason = reasons.reason(event.name, event.text)
        console.print(f"{event.name}: failed: {reason}", soft_wrap=True)
    elif event.kind == "unreadable":
        reason = reasons.reason(event.name, event.text)
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
        total = linear_combination(row.separability, row.effective_rank, SINGLE_LAMBDA)
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


def _finish(console: Console, output: Path, result: WatchResult, watching: WatchOptions) -> int:
    failed = [record for record in result.records if record.status == "failed"]
    scored = len(result.records) - len(failed)
    console.print(f"{scored} of {len(result.records)} checkpoints scored; records in {output}")
    if result.waiting:
        console.print(f"not whole yet: {', '.join(result.waiting)}")
    print_failures(failed)
    if watching.stop_on_alarm and result.alarm is not None:
        console.print(f"stopped by an alarm: {result.alarm.sentence}")
        return ALARM_STANDS
    if result.problem and not result.records:
        complain(f"nothing was scored: {result.problem}")
        return REFUSED
    if result.left_out:
        names = ", ".join(result.left_out)
        print_left_out([f"left out, though they look like checkpoints: {names}"])
    return FAILED_CHECKPOINTS if failed or result.left_out or not result.records else 0
