"""``pretrain`` and ``methods``."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from densescope.cli import headings as h
from densescope.cli.options import SkipOption, device_name
from densescope.cli.parsing import ConfigOption, Only, file, from_options, option
from densescope.cli.resuming import KeptOptions
from densescope.cli.screen import console as make_console
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


_ADDED = Only("--regularizer")
_MONITORED = Only("--monitor")
MONITORED = "monitor"  # sub-folder for the records of a monitor


@Parameter(name="*", group=h.NETWORK)
@dataclass(frozen=True)
class NetworkOptions:
    """The network that is trained."""

    architecture: Annotated[
        str | None,
        option("ViT, ResNet or Swin of timm (default: a small ViT or ResNet).", metavar="NAME"),
    ] = None
    architecture_option: Annotated[
        list[str] | None,
        option(
            "Option of that model, such as patch_size=8 or output_stride=8; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None
    image_size: Annotated[int, option("Side of the training images in pixels.", least=1)] = 64

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


@Parameter(name="*", group=h.RECIPE)
@dataclass(frozen=True)
class RecipeOptions:
    """How the method is set."""

    recipe: Annotated[
        Literal["small", "published"],
        option("Recipe for thousands of small images, or the paper's (see: methods NAME)."),
    ] = "small"
    set: Annotated[
        list[str] | None,
        option(
            "Setting of the recipe, such as learning_rate=5e-4 or first.blur=0.5; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None
    regularizer: Annotated[
        Literal["dse", "dse-pooled", "paka", "gram"] | None,
        option("Regularizer added to the loss."),
    ] = None
    beta: Annotated[
        float | None, option("Regularizer weight (default: the published value)."), _ADDED
    ] = None
    regularizer_images: Annotated[
        int, option("Views of a batch that the regularizer uses; 0 for all.", least=0), _ADDED
    ] = 0
    regularizer_every: Annotated[
        int, option("Steps between two uses of the regularizer.", least=1), _ADDED
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


@Parameter(name="*", group=h.COMPUTE)
@dataclass(frozen=True)
class RunOptions:
    """How long, on what, and with what chance."""

    steps: Annotated[int, option("Optimizer steps.", h.MAIN, least=1)] = 340
    batch_size: Annotated[
        int, option("Images per optimizer step, over all devices.", h.MAIN, least=1)
    ] = 64
    checkpoint_every: Annotated[
        int, option("Optimizer steps between two checkpoints.", h.MAIN, least=1)
    ] = 20
    images_count: Annotated[
        int, option("Largest number of images to train on.", h.MAIN, least=2)
    ] = 100_000
    skip_broken_images: SkipOption = False
    seed: Annotated[
        int, option("Seed of the weights, the order of images, the views and the masks.", h.MAIN)
    ] = 0
    device: Annotated[str, option("Device: auto, cpu or cuda.", metavar="DEVICE")] = "auto"
    devices: Annotated[int, option("GPUs that share a batch.", least=1)] = 1
    accumulate: Annotated[
        int, option("Parts that a batch is cut into to save memory.", least=1)
    ] = 1
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"], option("Precision of the forward pass.")
    ] = "float32"
    logger: Annotated[
        Literal["none", "csv", "tensorboard"],
        option("Logger that takes the loss, beside OUTPUT/log.txt."),
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


@Parameter(name="*", group=h.MONITOR)
@dataclass(frozen=True)
class MonitorOptions:
    """Metrics of the network while it is trained."""

    monitor: Annotated[
        Path | None,
        file("Held-out images on which the network is scored during training."),
    ] = None
    monitor_count: Annotated[int, option("Number of these images.", least=2), _MONITORED] = 512
    monitor_every: Annotated[
        int | None,
        option("Optimizer steps between two scores (default: at every checkpoint).", least=1),
        _MONITORED,
    ] = None
    stop_on_alarm: Annotated[
        bool,
        option(f"End with exit code {ALARM_STANDS} when an alarm is on."),
        _MONITORED,
    ] = False

    def callbacks(
        self,
        settings: PretrainSettings,
        output: Path,
        resumed: Path | None,
        say: Callable[[str], None],
    ) -> list[PretrainingMonitor]:
        """The monitor, if one was asked for; a line of every observation goes to ``say``."""
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
            output=output / MONITORED,
            stop_on_alarm=self.stop_on_alarm,
        )
        callback = PretrainingMonitor(made, self.monitor_every, resumed=resumed)
        callback.on_observation = lambda seen: say(observation_line(len(made.records), seen))
        return [callback]


def observation_line(number: int, seen: Observation) -> str:
    """One observation of a monitor: its number and place, DSE and its parts, and the alarm."""
    at = f"step {seen.step}"
    where = at if seen.name == at else f"{at} ({seen.name})"
    if seen.values is None:
        said = f"no numbers: {'; '.join(seen.problems)}"
    else:
        said = parts_line(seen.values.scores["-1"])
    alarm = "no alarm" if seen.alarm is None else f"ALARM since {seen.alarm.since}"
    return f"observation {number} at {where}: {said}; {alarm}"


def pretrain(
    *,
    images: Annotated[
        Path,
        file("Images to train on: a folder, tar shards, or a saved image set.", h.MAIN),
    ],
    output: Annotated[Path, file("Folder for the checkpoints.", h.MAIN)],
    method: Annotated[
        str, option("Method of pretraining (list: densescope methods).", h.MAIN)
    ] = "dino",
    resume: Annotated[
        bool,
        option(
            "Continue from the last checkpoint in --output, with the options of that run.", h.MAIN
        ),
    ] = False,
    start_from: Annotated[
        Path | None, file("Checkpoint whose weights the training begins with.", h.MAIN)
    ] = None,
    start_format: Annotated[
        str | None,
        option(
            "Format of --start-from if another method made it ('auto': the file decides); its "
            "backbone is taken.",
            h.MAIN,
        ),
    ] = None,
    network: NetworkOptions = NetworkOptions(),
    how: RecipeOptions = RecipeOptions(),
    run: RunOptions = RunOptions(),
    monitoring: MonitorOptions = MonitorOptions(),
    config: ConfigOption = None,
) -> int:
    """Pretrain with any method."""
    from densescope.cli.progress import TrainingProgress
    from densescope.features.images import decode_subset, draw_subset, open_images
    from densescope.monitoring import TrainingStopped
    from densescope.pretraining.methods import find_method, resolve_settings
    from densescope.pretraining.resume import newest_state
    from densescope.pretraining.trainer import Start, check_folder, is_first_process
    from densescope.pretraining.trainer import pretrain as run_pretraining
    from densescope.runs.environment import choose_thread_count
    from densescope.writing import remove_abandoned

    console = make_console()
    console.quiet = not is_first_process()
    settings = from_options(resolve_settings)(run.settings(method, network, how))
    start = from_options(Start)(resume, start_from, start_format)
    row = find_method(settings.method)
    resumed = check_folder(output, row, start)
    if resumed is not None:
        state = newest_state(output, row, settings.to_json())  # refuses other settings
        if state.step >= settings.steps:
            remove_abandoned(output)
            console.print(f"already finished: {output} has done its {settings.steps:,} steps")
            _finish(console, settings.method, output, monitoring)
            return 0
    console.print(f"working with {choose_thread_count()} thread(s)")
    size = settings.backbone.image_size
    source = open_images(images, skip_broken=run.skip_broken_images)
    subset = draw_subset(source, run.images_count, run.seed)
    for remark in subset.remarks:
        console.print(remark, soft_wrap=True)
    pixels = decode_subset(subset, image_size=size, resize_size=size)
    console.print(f"training on {len(subset)} images of {images}")
    say = partial(console.print, soft_wrap=True)
    callbacks = monitoring.callbacks(settings, output, resumed, say)
    loggers = run.loggers(output)
    groups = (vars(group) for group in (network, how, run, monitoring))
    kept = {"images": images, "method": method, **dict(ChainMap(*groups))}
    try:
        with TrainingProgress(console) as progress:
            run_pretraining(
                settings,
                pixels,
                output,
                progress,
                start=start,
                callbacks=[KeptOptions(output, kept), *callbacks],
                loggers=loggers,
            )
    except TrainingStopped as stopped:
        say(f"ALARM: {stopped}")
        return ALARM_STANDS
    except KeyboardInterrupt:
        again = f"densescope pretrain --output {quote(str(output))} --resume"
        raise KeyboardInterrupt(f"stopped; continue with: {again}") from None
    _finish(console, settings.method, output, monitoring)
    return 0


def _finish(console: Console, method: str, output: Path, monitoring: MonitorOptions) -> None:
    from densescope.features.discovery import find_checkpoints
    from densescope.features.formats import find_format
    from densescope.features.formats.descriptions import sweep_command

    console.print(f"{len(find_checkpoints(output, method).checkpoints)} checkpoints in {output}")
    if monitoring.monitor is not None:
        console.print(
            f"metrics during training: densescope select {quote(str(output / MONITORED))}"
        )
    # no architecture: these files say what they hold
    command = sweep_command(find_format(method), run=output)
    console.print(f"next: {command}", soft_wrap=True)
