"""``study``: methods x seeds x ways to train, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from densescope.cli import headings as h
from densescope.cli import options as o
from densescope.cli.correlating import mean_table
from densescope.cli.execution import ClusterOptions
from densescope.cli.parsing import ConfigOption, Only, file, option
from densescope.cli.screen import console as make_console

_TRAINING = Only("--summary-only", False)


def study(
    spec: Annotated[Path, file("TOML file that describes the runs.", h.MAIN, name="SPEC")],
    /,
    *,
    output: Annotated[Path, file("Folder for all runs, tables and the figure.", h.MAIN)],
    summary_only: Annotated[
        bool, option("Summarize what is there, and run nothing.", h.MAIN)
    ] = False,
    device: Annotated[o.DeviceOption, _TRAINING] = "auto",
    batch_size: Annotated[o.BatchSizeOption, _TRAINING] = "auto",
    workers: Annotated[o.WorkersOption, _TRAINING] = 4,
    cluster: ClusterOptions = ClusterOptions(),
    config: ConfigOption = None,
) -> None:
    """Train, score and probe many runs, and compare them."""
    from densescope.records import write_json
    from densescope.runs.environment import choose_thread_count
    from densescope.runs.scorer import Compute
    from densescope.study.figure import write_figure
    from densescope.study.run import StudyEvent, run_study
    from densescope.study.spec import read_spec
    from densescope.study.summary import summarize
    from densescope.study.tables import markdown
    from densescope.writing import replacing

    console = make_console()
    read = read_spec(spec)

    def print_event(event: StudyEvent) -> None:
        console.print(f"[{event.index}/{event.total}] {event.cell}: {event.stage}")

    if not summary_only:
        choose_thread_count()
        compute = Compute(o.device_name(device), o.images_at_once(batch_size), workers)
        run_study(read, output, compute=compute, ray=cluster.ray(), on_event=print_event)
    found = summarize(read, output)
    table = markdown(found)
    write_json(found.to_json(), output / "summary.json")
    with replacing(output / "summary.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    write_figure(found, output / "summary.html")
    console.print(table, soft_wrap=True)
    if found.taus is not None:
        console.print(mean_table(found.taus.metrics))
    if found.missing:
        console.print(f"not there yet: {', '.join(found.missing)}")
    console.print(f"figure: {output / 'summary.html'}")
