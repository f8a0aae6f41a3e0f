"""``probe`` and ``protocols``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from densescope.cli import options as o
from densescope.cli.measure import print_failures
from densescope.cli.tables import console as make_console
from densescope.cli.tables import table
from densescope.errors import InputError
from densescope.records import ProbeRecord

FAILED_CHECKPOINTS = 3
PERCENT = ("miou", "accuracy", "pixel_accuracy", "delta_1")


@dataclass(frozen=True)
class FileOptions(o.BackboneOptions):
    """The backbone of a single file; a run knows its own."""

    format: Annotated[
        str | None, typer.Option(help="For a single file: its layout; a run knows its own.")
    ] = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ProbeOptions:
    """What is asked of the features, and of which labels."""

    dataset: Annotated[str, typer.Option(help="A row of DATASETS, e.g. camvid or voc2012.")]
    root: Annotated[Path, typer.Option(help="The folder of the data set.")]
    protocol: Annotated[
        str, typer.Option(help="A row of PROTOCOLS; see: densescope protocols.")
    ] = "quick-linear"
    train_split: Annotated[str, typer.Option(help="What probes are fitted on.")] = "train"
    test_split: Annotated[
        str | None, typer.Option(help="What is reported: test, else val, by default.")
    ] = None
    test_root: Annotated[
        Path | None, typer.Option(help="Test images, for image-level labels and depth.")
    ] = None
    probe_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels, in place of the protocol's.")
    ] = None
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps, in place of the protocol's.")
    ] = None
    seeds: Annotated[str | None, typer.Option(help="Of the probe, e.g. 0,1,2.")] = None
    cache: Annotated[Path | None, typer.Option(help="Keep extracted features in this folder.")] = (
        None
    )
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 64
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode images.")] = 4


@o.grouped
def probe(
    target: Annotated[Path, typer.Argument(help="The folder a sweep wrote, or one checkpoint.")],
    probing: ProbeOptions,
    backbone: FileOptions,
    only: Annotated[
        Literal["all", "shortlist"], typer.Option(help="Of a run: all, or shortlist and last.")
    ] = "all",
) -> None:
    """Ask what the features are worth with labels, for a scored run or for one checkpoint.

    Exit code 3 when some checkpoints could not be probed; they are named, the rest is kept.
    """
    from densescope.cli.progress import SweepProgress
    from densescope.runs.probe import LabelledData, ProbeRequest, probe_file, probe_run
    from densescope.runs.scorer import Compute
    from densescope.runs.store import MANIFEST

    data = LabelledData(
        probing.dataset, probing.root, probing.train_split, probing.test_split, probing.test_root
    )
    seeds = None if probing.seeds is None else o.whole_numbers(probing.seeds, "--seeds")
    request = ProbeRequest(
        probing.protocol, seeds, probing.steps, probing.probe_size, probing.cache
    )
    compute = Compute(probing.device, probing.batch_size, probing.workers)
    console = make_console()
    if (target / MANIFEST).is_file() or (target.is_dir() and backbone.format is None):
        with SweepProgress(console) as progress:
            records = probe_run(
                target, data, request, only=only, compute=compute, on_event=progress
            )
        console.print(_table(records))
        _finish(records, target)
        return
    if backbone.format is None:
        raise InputError(f"{target} is one file: name its layout with --format")
    outcome = probe_file(target, backbone.spec(), data, request, compute=compute)
    one = ProbeRecord(
        target.name, 0, "step", outcome.protocol, outcome.dataset, outcome.measure, outcome.values
    )
    console.print(_table([one]))
    console.print(_details(outcome.details))


def protocols() -> None:
    """List the probes there are."""
    from densescope.evaluation.probes import PROTOCOLS

    made = table("protocols", ["name", "what it is", "head", "task", "pixels", "source"], 9)
    for row in PROTOCOLS.values():
        pixels = str(row.image_size)
        made.add_row(row.name, Text(row.title), Text(row.head), row.task, pixels, Text(row.source))
    make_console().print(made)


def shown(measure: str, value: float) -> str:
    """A fraction in percent, meters as they are."""
    return f"{100 * value:.2f}" if measure in PERCENT else f"{value:.4f}"


def _table(records: Sequence[ProbeRecord]) -> Table:
    first = records[0]
    made = table(
        f"{first.protocol} on {first.dataset}",
        ["checkpoint", first.unit, first.measure, "spread over seeds", "seeds"],
    )
    for record in records:
        if record.status == "failed":
            made.add_row(Text(record.name), str(record.step), Text("failed", "red"))
            continue
        spread = "" if record.spread is None else shown(record.measure, record.spread)
        value = shown(record.measure, record.value)
        made.add_row(Text(record.name), str(record.step), value, spread, str(len(record.values)))
    return made


def _details(details: Any) -> Table:
    made = table("details", ["", ""], 9)
    for key, value in details.items():
        if value not in (None, [], {}, ""):
            made.add_row(key.replace("_", " "), Text(str(value)))
    return made


def _finish(records: Sequence[ProbeRecord], target: Path) -> None:
    typer.echo(f"next: densescope agree {target}; densescope report {target}")
    failed = [record for record in records if record.status == "failed"]
    print_failures(failed)
    if failed:
        raise typer.Exit(FAILED_CHECKPOINTS)
