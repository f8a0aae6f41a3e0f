"""``demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

from densescope.cli import headings as h
from densescope.cli.failures import REFUSED
from densescope.cli.parsing import ConfigOption, file, option
from densescope.cli.screen import console as make_console
from densescope.cli.tables import selection_table

CHECKPOINTS = 16


def demo(
    *,
    output: Annotated[Path, file("Folder for everything; it is emptied first.", h.MAIN)] = Path(
        "demo"
    ),
    steps: Annotated[int, option("Optimizer steps of the training.", h.MAIN, least=48)] = 400,
    seed: Annotated[int, option("Seed of the images, the training and the scores.", h.MAIN)] = 0,
    config: ConfigOption = None,
) -> int:
    """Pretrain, sweep, select, probe and report on images the package draws."""
    from dataclasses import replace

    from densescope.cli.progress import SweepProgress, TrainingProgress
    from densescope.demo import ABOUT, DemoSettings, label_sentences, run_demo, shortfalls
    from densescope.runs.environment import choose_thread_count

    console = make_console()
    console.print(f"working with {choose_thread_count()} thread(s)")
    console.print(ABOUT)
    default = DemoSettings()
    every = max(steps // CHECKPOINTS, 1)
    settings = replace(
        default,
        seed=seed,
        pretrain=replace(default.pretrain, steps=steps, checkpoint_every=every, seed=seed),
        score=replace(default.score, seed=seed),
    )
    with TrainingProgress(console) as training, SweepProgress(console, quiet=True) as sweeping:
        result = run_demo(
            output,
            settings=settings,
            say=console.print,
            on_step=training,
            on_event=sweeping,
        )
    console.print(selection_table(result.selection))
    console.print(result.selection.verdict)
    if result.alarm is not None:
        console.print(f"\nALARM after {result.alarm.last}: {result.alarm.sentence}")
    console.print(f"\nWith labels, a linear probe on {len(result.untrained.names)} other scenes:")
    for line in label_sentences(result):
        console.print(line)
    folder = quote(str(result.report.parent))
    total = sum(result.seconds.values())
    console.print(f"\n{total:.0f} s in all. Open {result.report} in a browser.")
    console.print(f"The same by hand: densescope select {folder}; densescope report {folder}")
    missing = shortfalls(result)
    for sentence in missing:
        print(f"densescope: the demo failed: {sentence}; try another --seed", file=sys.stderr)
    return REFUSED if missing else 0
