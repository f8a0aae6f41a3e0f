"""Options that several verbs share, and the settings they become."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from densescope.cli.failures import UsageError
from densescope.cli.grouping import Only, from_options

if TYPE_CHECKING:
    from densescope.evaluation.scoring import ScoreSettings
    from densescope.features.names import CheckpointNames
    from densescope.features.spec import BackboneSpec
    from densescope.runs.cluster import Ray
    from densescope.runs.executors import Executor
    from densescope.runs.scorer import Compute
    from densescope.runs.sweep import Shard
    from densescope.selection.race import Race

DefinitionOption = Annotated[
    Literal["released", "paper"], typer.Option("--definition", help="Which DSE to choose by.")
]
BatchSizeOption = Annotated[
    str, typer.Option(metavar="N|auto", help="Images per forward pass; auto finds out.")
]


def place(text: str) -> Path:
    """What is given for a folder or file that may lie in an object store, too."""
    from densescope.files import fresh, location

    return fresh(from_options(location)(text))


_RACE = Only("images_count", "auto")
_RAY = Only("executor", "ray")
LayerOption = Annotated[int, typer.Option("--layer", help="The block to choose by.")]


@dataclass(frozen=True)
class BackboneOptions:
    """How a checkpoint file becomes a backbone."""

    format: Annotated[
        str,
        typer.Option(help="The training code's layout, see: densescope formats; auto finds it."),
    ] = "auto"
    architecture: Annotated[
        str | None, typer.Option(help="A timm model name; the format's own by default.")
    ] = None
    architecture_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An option of that model (img_size=64, patch_size=8, ...); may be repeated.",
        ),
    ] = None
    weights: Annotated[
        str | None, typer.Option(help="Which of the file's networks: teacher, student, ...")
    ] = None
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels; the training size by default.")
    ] = None
    loader: Annotated[
        Path | None, typer.Option(help="A Python file with load_backbone, for --format custom.")
    ] = None
    normalization: Annotated[
        str | None,
        typer.Option(
            metavar="imagenet|architecture|MEAN/STD",
            help="Mean and std of the images, e.g. 0.5,0.5,0.5/0.5,0.5,0.5 "
            "(default: what the training code of the format used).",
        ),
    ] = None

    @from_options
    def spec(self) -> BackboneSpec:
        """The settings these options stand for."""
        from densescope.features.architectures import parse_architecture_options
        from densescope.features.spec import BackboneSpec

        spec = BackboneSpec(
            format=self.format,
            architecture=self.architecture,
            architecture_options=parse_architecture_options(self.architecture_option or ()),
            weights=self.weights,
            loader=self.loader,
            image_size=self.image_size,
            normalization=self.normalization,
        )
        spec.check()
        return spec


@dataclass(frozen=True)
class FolderOptions:
    """Which checkpoints belong to the run, and whether records of it may be replaced."""

    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Names of the checkpoints, in place of the format's: group 1 is the number, or "
            "named groups epoch and step are.",
        ),
    ] = None
    unit: Annotated[
        Literal["epoch", "step"] | None,
        typer.Option(help="What orders the checkpoints, where their names can be read both ways."),
    ] = None
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive", help="Look into sub-folders too; the path becomes the checkpoint's name."
        ),
    ] = False
    moved: Annotated[
        bool,
        typer.Option(
            "--moved",
            help="OUTPUT holds this run, which lies in another folder now; the files are compared.",
        ),
    ] = False
    rescore: Annotated[
        bool,
        typer.Option(
            "--rescore", help="Score files again that have changed since they were scored."
        ),
    ] = False

    @from_options
    def names(self) -> CheckpointNames:
        """How the checkpoints are named."""
        from densescope.features.names import CheckpointNames

        return CheckpointNames(self.pattern, self.unit, self.recursive)


@dataclass(frozen=True)
class ScoringOptions:
    """What is scored, and how."""

    images: Annotated[
        Path, typer.Option(help="A folder of images, tar shards, or a saved image set.")
    ]
    layers: Annotated[str, typer.Option(help="Blocks to score, e.g. -1 or -4,-1.")] = "-1"
    seed: Annotated[int, typer.Option(help="Seed of the subset and of clusterings.")] = 0
    normalize: Annotated[
        bool,
        typer.Option("--normalize/--no-normalize", help="L2-normalize patch vectors first."),
    ] = True
    local_clusters: Annotated[int, typer.Option(help="k of the k-means within one image.")] = 3
    global_clusters: Annotated[
        int, typer.Option(help="k of the k-means within a group of images.")
    ] = 24
    group_size: Annotated[int, typer.Option(help="Images per group.")] = 8
    images_per_batch: Annotated[
        int, typer.Option(help="Images per value of the effective dimensionality.")
    ] = 1024
    clustering_seeds: Annotated[int, typer.Option(help="Clusterings averaged per number.")] = 2
    blocks: Annotated[int, typer.Option(help="Jackknife blocks behind an interval.")] = 16
    lidar_images: Annotated[int, typer.Option(help="Images for LiDAR; 0 leaves it out.")] = 256
    lidar_views: Annotated[
        int, typer.Option(help="Augmented views of each of them."), Only("lidar_images")
    ] = 10
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the forward pass.")
    ] = "float32"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    batch_size: BatchSizeOption = "auto"
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode images.")] = 4
    image_cache: Annotated[
        Path | None, typer.Option(help="Keep decoded images in this folder for later calls.")
    ] = None

    @from_options
    def settings(self) -> ScoreSettings:
        """What the numbers depend on."""
        from densescope.evaluation.scoring import ScoreSettings

        shared = {field.name for field in fields(self)} & {f.name for f in fields(ScoreSettings)}
        values = {name: getattr(self, name) for name in shared - {"layers"}}
        return ScoreSettings(layers=whole_numbers(self.layers, "--layers"), **values)

    @from_options
    def compute(self) -> Compute:
        """Where and how the work is done."""
        from densescope.runs.scorer import Compute

        return Compute(
            device=device_name(self.device),
            batch_size=images_at_once(self.batch_size),
            workers=self.workers,
            image_cache=self.image_cache,
        )


@dataclass(frozen=True)
class ScoreOptions(ScoringOptions):
    """The same, on a fixed number of images."""

    images_count: Annotated[
        int, typer.Option(min=2, help="Size of the fixed subset of images.")
    ] = 2048


@dataclass(frozen=True)
class SweepOptions(ScoringOptions):
    """The same, on a fixed number of images or on as many as the choice needs."""

    images_count: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Size of the fixed subset of images; auto scores it in rounds and stops "
            "checkpoints that no longer matter for the choice.",
        ),
    ] = "2048"
    round_size: Annotated[
        int,
        typer.Option(
            min=2,
            help="auto: images of a round, and per value of the effective rank; with fewer than "
            "128 intervals rest on less than 16 blocks.",
        ),
        _RACE,
    ] = 256
    rounds: Annotated[int, typer.Option(min=1, help="auto: rounds at most."), _RACE] = 8
    alpha: Annotated[
        float,
        typer.Option(help="auto: the chance, at most, of stopping the best one wrongly."),
        _RACE,
    ] = 0.05

    @from_options
    def count(self) -> int | Race:
        """How many images, or how to find out."""
        from densescope.selection.race import Race

        if self.images_count == "auto":
            return Race(self.round_size, self.rounds, self.alpha)
        if not self.images_count.isdecimal() or int(self.images_count) < 2:
            raise UsageError(
                f"--images-count {self.images_count} is neither auto nor a number of at least 2"
            )
        return int(self.images_count)


@dataclass(frozen=True)
class ClusterOptions:
    """On which machines the work is done."""

    executor: Annotated[
        Literal["local", "ray"],
        typer.Option(help="This machine, or a Ray cluster."),
        Only("summary_only", False),
    ] = "local"
    task_cpus: Annotated[float, typer.Option(help="Ray: cores of a task."), _RAY] = 1.0
    task_gpus: Annotated[float, typer.Option(help="Ray: its share of a GPU."), _RAY] = 0.0
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray: the cluster; RAY_ADDRESS or a local one by default."),
        _RAY,
    ] = None

    def ray(self) -> Ray | None:
        """The cluster, if one was asked for."""
        from densescope.runs.cluster import Ray

        if self.executor == "local":
            return None
        return Ray(self.task_cpus, self.task_gpus, self.ray_address)


@dataclass(frozen=True)
class ExecutorOptions(ClusterOptions):
    """Where the checkpoints of a sweep are scored."""

    processes: Annotated[
        int,
        typer.Option(min=1, help="Of this machine, each with its share of the cores."),
        Only("executor", "local"),
    ] = 1
    shard: Annotated[
        str,
        typer.Option(metavar="I/N", help="Score one of N parts of the run, e.g. in an array job."),
    ] = "1/1"

    @from_options
    def chosen(self) -> Executor:
        """The executor these options stand for."""
        from densescope.runs.executors import Here, Processes

        beside = Here() if self.processes == 1 else Processes(self.processes)
        return self.ray() or beside

    @from_options
    def part(self) -> Shard:
        """The part of the run."""
        from densescope.runs.sweep import Shard

        number, slash, count = self.shard.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise UsageError(f"--shard {self.shard!r} is not a part such as 1/4")
        return Shard(int(number), int(count))


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """``"-4,-1"`` as ``(-4, -1)``.

    Raises:
        UsageError: an entry is not a whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} {text!r} is not a list of whole numbers such as -1 or 0,1"
        ) from None


def device_name(text: str) -> str:
    """A device as typed; whether this machine has it, shows when it is used.

    Raises:
        UsageError: it is no device of any machine.
    """
    import torch

    try:
        return text if text == "auto" else str(torch.device(text))
    except RuntimeError:
        raise UsageError(f"--device {text!r} is no device: use auto, cpu or cuda") from None


def images_at_once(text: str) -> int | None:
    """A batch size as typed; ``None`` for ``auto``.

    Raises:
        UsageError: neither ``auto`` nor a number above 0.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text!r} is neither auto nor a whole number from 1")
    return int(text)
