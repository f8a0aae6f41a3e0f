"""``formats`` and ``check``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from densescope.cli import options as o
from densescope.cli.tables import console as make_console
from densescope.cli.tables import table

DOES_NOT_FIT = 1


def formats(
    name: Annotated[
        str | None, typer.Argument(help="Show one format in full; all of them by default.")
    ] = None,
) -> None:
    """List the checkpoint layouts that can be read."""
    from densescope.features.formats import FORMATS, find_format

    console = make_console()
    if name is not None:
        console.print(_details(find_format(name)))
        return
    made = table("formats", ["name", "what it is", "architecture", "weights", "files"], 9)
    for row in FORMATS.values():
        made.add_row(
            row.name,
            Text(row.title),
            row.architecture or "–",
            Text(", ".join(weights.name for weights in row.weights)),
            Text(", ".join((*map(_example, row.files), *row.latest)) or "any one file"),
        )
    console.print(made)
    console.print("densescope formats NAME shows one of them in full")


@o.grouped
def check(
    checkpoint: Annotated[Path, typer.Argument(help="One checkpoint file or folder.")],
    backbone: o.BackboneOptions,
) -> None:
    """Say whether a checkpoint loads; if not, which step failed and which formats would fit.

    Exit code 1 when it does not load.
    """
    from densescope.features.checking import STEPS, check_checkpoint

    spec = backbone.spec()
    report = check_checkpoint(
        checkpoint,
        format=spec.format,
        architecture=spec.architecture,
        architecture_options=spec.architecture_options,
        image_size=spec.image_size,
        weights=spec.weights,
        loader=spec.loader,
    )
    console = make_console()
    failed_at = STEPS.index(report.step) if report.step in STEPS else len(STEPS)
    for index, step in enumerate(STEPS):
        mark = "ok" if index < failed_at else "FAILED" if index == failed_at else "not reached"
        console.print(f"{step:>13}  {mark}", markup=False)
    console.print(Text(report.message))
    if report.loaded is not None:
        console.print(_coverage(report.loaded.to_json()))
    if report.fitting:
        console.print(f"formats whose layout fits this file: {', '.join(report.fitting)}")
    if not report.fits:
        raise typer.Exit(DOES_NOT_FIT)


def _example(pattern: str) -> str:
    """A file-name pattern as a person would write it: ``checkpointNNNN.pth``."""
    if "(?" in pattern:
        return "any file with a number"
    text = re.sub(r"\(\\d\{(\d)\}\)", lambda found: "N" * int(found.group(1)), pattern)
    return (
        text.replace(r"(\d+)", "N").replace("[^/]*?", "*").replace("[^/]+", "*").replace("\\", "")
    )


def _details(row: object) -> Table:
    from dataclasses import fields

    made = table(getattr(row, "title", ""), ["", ""], 9)
    for field in fields(row):  # type: ignore[arg-type]
        value = getattr(row, field.name)
        if value not in ("", (), None):
            made.add_row(field.name.replace("_", " "), Text(_words(value)))
    return made


def _coverage(document: dict[str, object]) -> Table:
    made = table("what was used", ["", ""], 9)
    coverage = document.pop("coverage")
    assert isinstance(coverage, dict)
    for key, value in {**document, **coverage}.items():
        if value not in (None, "", (), [], {}):
            made.add_row(key.replace("_", " "), Text(_words(value)))
    return made


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if callable(value):
        return str(getattr(value, "__doc__", "") or value).splitlines()[0]
    if isinstance(value, tuple | list):
        return "; ".join(_words(item) for item in value)
    if hasattr(value, "items"):
        return _words(dict(value.items()))
    return str(value)
