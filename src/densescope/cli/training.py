"""``pretrain`` and ``methods``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from densescope.cli.grouping import Only, from_options, grouped
from densescope.cli.options import device_name
from densescope.cli.resuming import KeptOptions, OutputOption, ResumeOption
from densescope.cli.tables import console as make_console
from densescope.cli.tables import table
from densescope.cli.watching import ALARM_STANDS
from densescope.selection.words import parts_line

if TYPE_CHECKING:
    from densescope.monitoring import Observation
    from densescope.monitoring.pretraining import PretrainingMonitor
    from densescope.pretraining.recipe import Recipe
    from densescope.pretraining.settings import (
        BackboneSettings,
        PretrainSettings,
        RegularizerSettings,
    )


_ADDED = Only("regularizer")
_MONITORED = Only("monitor")


@dataclass(frozen=True)
class NetworkOptions:
    """What is trained."""

    architecture: Annotated[
        str | None, typer.Option(help="A timm ViT, ResNet or Swin; a small one by default.")
    ] = None
    architecture_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of that model (patch_size=8, output_stride=8, ...); may be repeated.",
        ),
    ] = None
    image_size: Annotated[int, typer.Option(min=1, help="Pixels of a training image.")] = 64

    def settings(self, method: str) -> BackboneSettings:
        """The network these options stand for."""
        from densescope.features.architectures import parse_architecture_options
        from densescope.pretraining.methods import default_backbone, find_method
        from densescope.pretraining.settings import BackboneSettings

        options = parse_architecture_options(self.architecture_option or ())
        if self.architecture is not None:
            return BackboneSettings(self.architecture, options, self.image_size)
        small = default_backbone(find_method(method))
        return replace(small, options={**small.options, **options}, image_size=self.image_size)


@dataclass(frozen=True)
class RecipeOptions:
    """How the method is set."""

    recipe: Annotated[
        Literal["small", "published"],
        typer.Option(help="For thousands of small images, or the paper's; see: methods NAME."),
    ] = "small"
    set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Change the recipe (learning_rate=5e-4, first.blur=0.5, ...); may be repeated.",
        ),
    ] = None
    regularizer: Annotated[
        Literal["dse", "paka", "gram"] | None, typer.Option(help="What is added to the loss.")
    ] = None
    beta: Annotated[float | None, typer.Option(help="Its weight; its own by default."), _ADDED] = (
        None
    )
    regularizer_images: Annotated[
        int, typer.Option(min=0, help="Views of a batch that it sees; 0 for all."), _ADDED
    ] = 0
    regularizer_every: Annotated[
        int, typer.Option(min=1, help="Steps between two uses."), _ADDED
    ] = 1

    def chosen(self, method: str) -> Recipe:
        """The recipe these options stand for."""
        from densescope.pretraining.methods import find_method
        from densescope.pretraining.recipe import change_recipe

        row = find_method(method)
        return change_recipe(row.small if self.recipe == "small" else row.published, self.set or ())

    def added(self) -> RegularizerSettings | None:
        """The regularizer these options stand for."""
        from densescope.pretraining.settings import RegularizerSettings

        if self.regularizer is None:
            return None
        return RegularizerSettings(
            self.regularizer, self.beta, self.regularizer_images, self.regularizer_every
        )


@dataclass(frozen=True)
class RunOptions:
    """How long, on what, and with what chance."""

    images_count: Annotated[int, typer.Option(min=2, help="Images to train on.")] = 100_000
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 340
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step, over all devices.")] = 64
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between them.")] = 20
    seed: Annotated[int, typer.Option(help="Of weights, order, views and masks.")] = 0
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the forward pass.")
    ] = "float32"
    accumulate: Annotated[int, typer.Option(min=1, help="Parts a batch is cut into.")] = 1
    devices: Annotated[int, typer.Option(min=1, help="GPUs that share a batch.")] = 1
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    logger: Annotated[
        Literal["none", "csv", "tensorboard"], typer.Option(help="Where the loss goes too.")
    ] = "none"

    @from_options
    def settings(
        self, method: str, network: NetworkOptions, how: RecipeOptions
    ) -> PretrainSettings:
        """The run these options stand for."""
        from densescope.pretraining.settings import PretrainSettings

        return PretrainSettings(
            method=method,
            recipe=how.chosen(method),
            backbone=network.settings(method),
            steps=self.steps,
            batch_size=self.batch_size,
            checkpoint_every=self.checkpoint_every,
            seed=self.seed,
            precision=self.precision,
            accumulate=self.accumulate,
            devices=self.devices,
            device=device_name(self.device),
            regularizer=how.added(),
        )

    def loggers(self, folder: Path) -> list[Any]:
        """Lightning's loggers."""
        if self.logger == "none":
            return []
        from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

        made = CSVLogger if self.logger == "csv" else TensorBoardLogger
        return [made(folder, name="log", version="")]


@dataclass(frozen=True)
class MonitorOptions:
    """Looking at the run while it goes."""

    monitor: Annotated[
        Path | None, typer.Option(help="Held-out images: score the network on them on the way.")
    ] = None
    monitor_count: Annotated[int, typer.Option(min=2, help="How many of them."), _MONITORED] = 512
    monitor_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between two looks; checkpoints by default."),
        _MONITORED,
    ] = None
    monitor_output: Annotated[
        Path | None,
        typer.Option(help="Folder for its records; OUTPUT/monitor by default."),
        _MONITORED,
    ] = None
    stop_on_alarm: Annotated[
        bool,
        typer.Option("--stop-on-alarm", help=f"End with exit code {ALARM_STANDS} on one."),
        _MONITORED,
    ] = False

    def folder(self, output: Path) -> Path:
        """Where the records go."""
        return self.monitor_output or output / "monitor"

    def watchers(
        self,
        settings: PretrainSettings,
        output: Path,
        resumed: Path | None,
        say: Callable[[str], None],
    ) -> list[PretrainingMonitor]:
        """The monitor, if one was asked for; a line of every look goes to ``say``."""
        if self.monitor is None:
            return []
        from densescope.monitoring import DenseMonitor
        from densescope.monitoring.pretraining import PretrainingMonitor

        made = DenseMonitor(
            self.monitor,
            count=self.monitor_count,
            image_size=settings.backbone.image_size,
            mean=settings.mean,
            std=settings.std,
            output=self.folder(output),
            stop_on_alarm=self.stop_on_alarm,
        )
        watcher = PretrainingMonitor(made, self.monitor_every, resumed=resumed)
        watcher.on_look = lambda seen: say(look_line(len(made.records), seen))
        return [watcher]


def look_line(number: int, seen: Observation) -> str:
    """One look of a monitor: its number and place, DSE and its parts, and the alarm."""
    at = f"step {seen.step}"
    where = at if seen.name == at else f"{at} ({seen.name})"
    if seen.reading is None:
        said = f"no numbers: {'; '.join(seen.problems)}"
    else:
        said = parts_line(seen.reading.scores["-1"])
    alarm = "no alarm" if seen.alarm is None else f"ALARM since {seen.alarm.since}"
    return f"look {number} at {where}: {said}; {alarm}"


@grouped
def pretrain(
    context: typer.Context,
    images: Annotated[
        Path,
        typer.Option(
            help="A folder of images, tar shards, or a saved image set; --resume knows its own."
        ),
    ],
    output: OutputOption,
    network: NetworkOptions,
    how: RecipeOptions,
    run: RunOptions,
    looking: MonitorOptions,
    method: Annotated[str, typer.Option(help="See: densescope methods.")] = "dino",
    resume: ResumeOption = False,
    start_from: Annotated[
        Path | None, typer.Option(help="Begin with the weights of this checkpoint.")
    ] = None,
) -> None:
    """Pretrain with any method and leave checkpoints in the layout of its own code.

    A run that was stopped goes on with --output RUN --resume.
    """
    from densescope.cli.progress import TrainingProgress
    from densescope.features.images import decode_subset, draw_subset, open_images
    from densescope.monitoring import TrainingStopped
    from densescope.pretraining.methods import find_method, settled
    from densescope.pretraining.resume import newest_state
    from densescope.pretraining.trainer import Start, check_folder, is_first_process
    from densescope.pretraining.trainer import pretrain as run_pretraining
    from densescope.runs.environment import settle_threads

    console = make_console()
    console.quiet = not is_first_process()
    settings = from_options(settled)(run.settings(method, network, how))
    start = from_options(Start)(resume, start_from)
    row = find_method(settings.method)
    resumed = check_folder(output, row, start)
    if resumed is not None:
        state = newest_state(output, row, settings.to_json())  # refuses other settings
        if state.step >= settings.steps:
            console.print(f"already finished: {output} has done its {settings.steps:,} steps")
            _finish(console, settings.method, output, looking)
            return
    console.print(f"working with {settle_threads()} thread(s)")
    size = settings.backbone.image_size
    subset = draw_subset(open_images(images), run.images_count, run.seed)
    pixels = decode_subset(subset, image_size=size, resize_size=size)
    console.print(f"training on {len(subset)} images of {images}")
    say = partial(console.print, soft_wrap=True)
    watchers = looking.watchers(settings, output, resumed, say)
    loggers = run.loggers(output)
    try:
        with TrainingProgress(console) as progress:
            run_pretraining(
                settings,
                pixels,
                output,
                progress,
                start=start,
                watchers=[KeptOptions(output, context.params), *watchers],
                loggers=loggers,
            )
    except TrainingStopped as stopped:
        say(f"ALARM: {stopped}")
        raise typer.Exit(ALARM_STANDS) from None
    except KeyboardInterrupt:
        again = f"stopped; go on with: densescope pretrain --output {quote(str(output))} --resume"
        raise KeyboardInterrupt(again) from None
    _finish(console, settings.method, output, looking)


def _finish(console: Console, method: str, output: Path, looking: MonitorOptions) -> None:
    from densescope.features.discovery import find_checkpoints
    from densescope.features.format_words import sweep_command
    from densescope.features.formats import find_format

    console.print(f"{len(find_checkpoints(output, method).checkpoints)} checkpoints in {output}")
    if looking.monitor is not None:
        console.print(f"seen on the way: densescope select {quote(str(looking.folder(output)))}")
    # no architecture: these files say what they hold
    command = sweep_command(find_format(method), run=output)
    console.print(f"next: {command}", soft_wrap=True)


def methods(
    name: Annotated[
        str | None, typer.Argument(help="Show one method in full; all of them by default.")
    ] = None,
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
