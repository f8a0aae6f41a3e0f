"""``check``, and the verbs that list formats, metrics, protocols and methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from rich.text import Text

from densescope.cli import headings as h
from densescope.cli import options as o
from densescope.cli.failures import REFUSED, WRONG_USAGE
from densescope.cli.parsing import ConfigOption, Place, from_options, option, place
from densescope.cli.screen import console as make_console
from densescope.cli.screen import table

if TYPE_CHECKING:
    from densescope.features.formats import FileNames


def formats(
    name: Annotated[
        str | None, option("Format to show in full (default: a list of all).", h.MAIN, name="NAME")
    ] = None,
    /,
) -> None:
    """List the checkpoint layouts that can be read."""
    from densescope.features.formats import FORMATS, find_format
    from densescope.features.formats.descriptions import format_lines

    console = make_console()
    if name is not None:
        for line in format_lines(from_options(find_format)(name)):
            console.print(line, soft_wrap=True)
        return
    made = table("formats", ["name", "what it is", "architecture", "weights", "files"], 9)
    for row in FORMATS.values():
        made.add_row(
            row.name,
            Text(row.title),
            row.architecture or "–",
            Text(", ".join(weights.name for weights in row.weights)),
            Text(", ".join((*map(_listed, row.files), *row.latest)) or "any one file"),
        )
    console.print(made)
    console.print("densescope formats NAME shows one of them in full")


def check(
    checkpoint: Annotated[Place, place("Checkpoint file or folder.", h.MAIN, name="CHECKPOINT")],
    /,
    *,
    backbone: o.BackboneOptions = o.BackboneOptions(),
    config: ConfigOption = None,
) -> int:
    """Say whether a checkpoint loads."""
    from densescope.features.checking import STEPS, check_checkpoint

    report = check_checkpoint(checkpoint, backbone.spec())
    console = make_console()
    failed_at = STEPS.index(report.step) if report.step in STEPS else len(STEPS)
    for index, step in enumerate(STEPS):
        mark = "ok" if index < failed_at else "FAILED" if index == failed_at else "not reached"
        console.print(f"{step:>13}  {mark}")
    console.print(Text(report.text))
    if report.loaded is not None:
        console.print(_coverage(report.loaded.to_json()))
    if report.fits:
        return 0
    return WRONG_USAGE if report.step == "architecture" else REFUSED


def protocols() -> None:
    """List the probes there are."""
    from densescope.evaluation.probes import PROTOCOLS

    made = table("protocols", ["name", "what it is", "head", "task", "pixels", "source"], 9)
    for row in PROTOCOLS.values():
        pixels = str(row.image_size)
        made.add_row(row.name, Text(row.title), Text(row.head), row.task, pixels, Text(row.source))
    make_console().print(made)


def metrics(
    name: Annotated[
        str | None, option("Metric to show in full (default: a list of all).", h.MAIN, name="NAME")
    ] = None,
    /,
) -> None:
    """List the metrics that a sweep computes."""
    from densescope.metrics import METRICS
    from densescope.metrics.chosen import find_metric, groups

    console = make_console()
    if name is not None:
        for line in from_options(find_metric)(name).lines:
            console.print(line, soft_wrap=True)
        return
    made = table("metrics", ["name", "title", "good is", "what it measures"], 9)
    for row in METRICS.values():
        made.add_row(row.name, row.title, row.better, Text(row.summary))
    console.print(made)
    named = "; ".join(f"{group}: {', '.join(rows)}" for group, rows in groups().items())
    console.print(f"groups, each computed together ({named})", soft_wrap=True)
    console.print("densescope metrics NAME shows one of them in full")


def methods(
    name: Annotated[
        str | None, option("Method to show in full (default: a list of all).", h.MAIN, name="NAME")
    ] = None,
    /,
) -> None:
    """List the methods that pretrain can train."""
    from densescope.pretraining.methods import METHODS, find_method, method_lines

    console = make_console()
    if name is not None:
        for line in method_lines(from_options(find_method)(name)):
            console.print(line)
        return
    made = table("methods", ["name", "method", "learns from", "backbones", "source"], 9)
    for row in METHODS.values():
        made.add_row(row.name, row.title, row.kind, ", ".join(row.families), Text(row.source))
    console.print(made)
    console.print("densescope methods NAME shows the recipe of one of them")


def _listed(names: FileNames) -> str:
    return "any file with a number" if names.loose else names.written


def _coverage(document: dict[str, object]) -> Table:
    made = table("what was used", ["", ""], 9)
    coverage = document.pop("coverage")
    assert isinstance(coverage, dict)
    training = document.get("training")
    if isinstance(training, dict) and "settings" in training:
        training["settings"] = f"{len(training['settings'])} values"
    for key, value in {**document, **coverage}.items():
        if value not in (None, "", (), [], {}):
            made.add_row(key.replace("_", " "), Text(_words(value)))
    return made


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, tuple | list):
        return "; ".join(_words(item) for item in value)
    return str(value)
