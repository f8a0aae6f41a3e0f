"""``correlate``: label-free metrics against labelled probes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from rich.text import Text

from densescope.cli import headings as h
from densescope.cli.failures import UsageError
from densescope.cli.options import LayerOption
from densescope.cli.parsing import ConfigOption, Only, Place, file, option, place
from densescope.cli.screen import console as make_console
from densescope.cli.screen import name_cells, table
from densescope.records import collector_paused

if TYPE_CHECKING:
    from densescope.correlation import Correlation, MeanCorrelation, RegretRow, RegretTable

SHARED_BY = 3  # ways: a note that so many have is printed once, below the table


@collector_paused()
def correlate(
    scores: Annotated[
        list[Place],
        place(
            "Folders that a sweep and a probe wrote; several give their mean too.",
            h.MAIN,
            name="SCORES...",
        ),
    ],
    /,
    *,
    losses: Annotated[
        Path | None,
        file("Training log: shows also what choosing by the loss would have cost.", h.MAIN),
    ] = None,
    losses_offset: Annotated[
        int,
        option("Number in the name of the checkpoint minus the epoch of the log.", h.MAIN),
        Only("--losses"),
    ] = 0,
    layer: LayerOption = -1,
    config: ConfigOption = None,
) -> None:
    """Compare the label-free metrics with labelled probes."""
    from densescope.correlation import losses_by_checkpoint, mean_correlation, read_losses
    from densescope.correlation.kendall import LEAST_FOR_INTERVAL, LEAST_TO_JUDGE
    from densescope.correlation.tau import too_few
    from densescope.runs.correlate import correlate_run, labelled_table
    from densescope.runs.store import RunStore
    from densescope.selection import stitched

    if losses is not None and len(scores) > 1:
        raise UsageError("--losses is the log of one run; give one folder with it")
    console = make_console()
    correlations = []
    for output in scores:
        store = RunStore(output)
        run = labelled_table(store)
        by_name = None
        if losses is not None:
            read = read_losses(losses, unit=run.unit)
            by_name = losses_by_checkpoint(read, run.records, offset=losses_offset)
        warning = stitched(run.schedule_breaks)
        if warning is not None:
            console.print(f"{output.name}: {warning}", soft_wrap=True)
        judged = correlate_run(store, run, losses=by_name, layer=layer)
        for probe_set, found in judged.by_set.items():
            where = f"{output.name}, {probe_set}"
            if len(found.correlation.checkpoints) < LEAST_FOR_INTERVAL:
                console.print(too_few(found.correlation, where), soft_wrap=True)
            else:
                console.print(_correlation_table(where, found.correlation))
                if len(found.correlation.checkpoints) < LEAST_TO_JUDGE:
                    console.print(_few(found.correlation))
            shared = _shared_notes(found.regret)
            console.print(_regret_table(found.regret, shared))
            if shared:
                console.print(f"of several ways: {'; '.join(shared)}", soft_wrap=True)
            console.print(Text(found.degradation.verdict))  # where a reader of long tables ends
            console.print(f"stored in {found.path}")
            correlations.append(found.correlation)
        across = [] if judged.across is None else [judged.across]
        sentences = [*across, *(found.sentence for found in judged.together)]
        for sentence in [*sentences, *(found.sentence for found in judged.protocols)]:
            console.print(f"{output.name}: {sentence}", soft_wrap=True)
    if len(scores) > 1:
        console.print(mean_table(mean_correlation(correlations)))


def _few(correlation: Correlation) -> str:
    from densescope.correlation.kendall import LEAST_TO_JUDGE

    return (
        f"Too few checkpoints: {len(correlation.checkpoints)} have a score and a probe, and with "
        f"fewer than {LEAST_TO_JUDGE} tau is mostly noise. Probe more checkpoints."
    )


def _shared_notes(regret: RegretTable) -> list[str]:
    """Notes that three ways or more have, each once."""
    counts = Counter(part for row in regret.shown for part in _notes(row))
    return [part for part, count in counts.items() if count >= SHARED_BY]


def _notes(row: RegretRow) -> list[str]:
    return [] if row.note is None else row.note.split("; ")


def _correlation_table(probe_set: str, correlation: Correlation) -> Table:
    from densescope.correlation.paper import paper_tau
    from densescope.evaluation.measures import measure_of

    made = table(
        f"Kendall tau-b with {measure_of(correlation.measure).title} ({probe_set})",
        ["number", "checkpoints", "tau", "95 % interval", "paper, mean of 16 methods"],
    )
    for row in (correlation.clock, *correlation.rows):
        interval = (
            "–" if row.interval is None else f"{row.interval[0]:+.2f} to {row.interval[1]:+.2f}"
        )
        tau = "–" if row.tau is None else f"{row.tau.value:+.2f}"
        known = paper_tau(row.number).get("mean")
        paper = "" if known is None else f"{known:+.2f}"
        made.add_row(row.title, str(row.checkpoints), tau, interval, paper)
    return made


def mean_table(mean: MeanCorrelation) -> Table:
    """Mean tau of each number over several runs, beside the paper's."""
    from densescope.correlation.paper import PAPER_COLUMNS

    columns = [*mean.datasets, "mean", *(f"paper: {name}" for name in PAPER_COLUMNS)]
    made = table("mean Kendall tau-b over the runs", ["number", *columns])
    for row in (mean.clock, *mean.rows):
        taus = [row.cells.get(dataset) for dataset in mean.datasets]
        ours = ["–" if tau is None else f"{tau.value:+.2f} ({tau.runs})" for tau in taus]
        whole = "–" if row.mean is None else f"{row.mean:+.2f}"
        paper = [f"{row.paper[name]:+.2f}" if row.paper else "" for name in PAPER_COLUMNS]
        made.add_row(row.title, *ours, whole, *paper)
    return made


def _regret_table(regret: RegretTable, shared: Sequence[str]) -> Table:
    from densescope.evaluation.measures import measure_of

    measure = measure_of(regret.measure)
    made = table(
        f"what each way to choose would have cost ({measure.title}, {measure.difference})",
        ["way", "checkpoint", measure.title, "regret", "gain over last", "compute, s", ""],
    )
    names = name_cells(row.name for row in regret.shown if row.name)
    for row in regret.shown:
        numbers = [
            "–" if value is None else measure.number(value)
            for value in (row.value, row.regret, row.gain)
        ]
        seconds = "–" if row.seconds is None else f"{row.seconds:.0f}"
        note = "; ".join(part for part in _notes(row) if part not in shared)
        made.add_row(row.title, names[row.name] if row.name else "–", *numbers, seconds, Text(note))
    return made
