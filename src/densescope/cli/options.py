"""Options that several verbs share, and the settings they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from densescope.cli import headings as h
from densescope.cli.failures import UsageError
from densescope.cli.parsing import (
    Only,
    Place,
    count_or_auto,
    file,
    from_options,
    layers_option,
    names,
    option,
    place,
)
from densescope.definitions import DefinitionName
from densescope.layers import Layers

if TYPE_CHECKING:
    from densescope.features.names import CheckpointNames
    from densescope.features.spec import BackboneSpec
    from densescope.metrics import ScoreSettings
    from densescope.runs.scorer import Compute
    from densescope.selection.race import Race

_RACE = Only("--images-count", "auto")

ScoresArgument = Annotated[
    Place, place("Folder that a sweep wrote: the records of one run.", h.MAIN, name="SCORES")
]
DefinitionOption = Annotated[DefinitionName, option("Definition of DSE that decides.", h.CHOICE)]
LayerOption = Annotated[
    int, option("Block whose metrics decide; negative numbers count from the last.", h.CHOICE)
]
DeviceOption = Annotated[
    str, option("Device: auto, cpu, cuda, cuda:1, ...", h.COMPUTE, metavar="DEVICE")
]
BatchSizeOption = Annotated[
    Literal["auto"] | int,
    option(
        "Images per forward pass; auto finds what fits.",
        h.COMPUTE,
        least=1,
        metavar="auto|COUNT",
        converter=count_or_auto,
    ),
]
SkipOption = Annotated[bool, option("Skip images that cannot be decoded; name them.", h.MAIN)]
WorkersOption = Annotated[int, option("Threads that decode images.", h.COMPUTE, least=1)]
_SETTING = "KEY=VALUE"
_KINDS = {int: "a whole number", bool: "true or false"}


@Parameter(name="*", group=h.BACKBONE)
@dataclass(frozen=True)
class BackboneOptions:
    """How a checkpoint file becomes a backbone."""

    format: Annotated[
        str,
        option("Layout of the checkpoint files (list: densescope formats); auto finds it.", h.MAIN),
    ] = "auto"
    architecture: Annotated[
        str | None,
        option(
            "Model name in timm (default: found in the file, else the format's own).",
            metavar="NAME",
        ),
    ] = None
    architecture_option: Annotated[
        list[str] | None,
        option(
            "Option of that model, such as img_size=64 or patch_size=8; may be repeated.",
            metavar=_SETTING,
        ),
    ] = None
    weights: Annotated[
        str | None,
        option("Network of the file, such as teacher or student (default: the format's first)."),
    ] = None
    image_size: Annotated[
        int | None,
        option("Side of the images in pixels (default: the training size).", least=1),
    ] = None
    normalization: Annotated[
        str | None,
        option(
            "Mean and deviation of the images: imagenet, architecture, or numbers such as "
            "0.5,0.5,0.5/0.5,0.5,0.5 (default: what the training code used).",
            metavar="MEAN/STD",
        ),
    ] = None
    loader: Annotated[
        Path | None,
        file("Python file with a function load_backbone, for a network of your own."),
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


@Parameter(name="*", group=h.CHECKPOINTS)
@dataclass(frozen=True)
class FolderOptions:
    """Which checkpoints belong to the run, and whether records of it may be replaced."""

    pattern: Annotated[
        str | None,
        option(
            "Names of the checkpoints: group 1 is the number, or groups named epoch and step are "
            "(default: the format's names).",
            metavar="REGEX",
        ),
    ] = None
    unit: Annotated[
        Literal["epoch", "step"] | None,
        option("Number that orders the checkpoints where their names leave it open."),
    ] = None
    recursive: Annotated[bool, option("Search sub-folders too.")] = False
    moved: Annotated[
        bool, option("Continue with the records of this run after its folder has moved.")
    ] = False
    rescore: Annotated[
        bool, option("Score files again that have changed since they were scored.")
    ] = False

    @from_options
    def names(self) -> CheckpointNames:
        """How the checkpoints are named."""
        from densescope.features.names import CheckpointNames

        return CheckpointNames(self.pattern, self.unit, self.recursive)


@Parameter(name="*", group=h.METRICS)
@dataclass(frozen=True)
class ScoringOptions:
    """What is scored, and how."""

    images: Annotated[
        Path,
        file("Images without labels: a folder, tar shards, or a saved image set.", h.MAIN),
    ]
    skip_broken_images: SkipOption = False
    layers: Annotated[
        Layers,
        layers_option("Blocks whose features are scored, such as -4,-1; -1 is the last."),
    ] = (-1,)
    metrics: Annotated[
        tuple[str, ...] | None,
        option(
            "Metrics to compute, or groups of them such as dense_structure (list: densescope "
            "metrics; default: all); a later sweep adds others to the records.",
            converter=names,
            metavar="NAME,NAME,...",
        ),
    ] = None
    seed: Annotated[int, option("Seed of the drawn images and of the clusterings.")] = 0
    set: Annotated[
        list[str] | None,
        option(
            "Setting of the metrics (normalize=true, local_clusters=3, global_clusters=24, "
            "group_size=8, images_per_batch=1024, clustering_seeds=2, blocks=16, "
            "lidar_images=256, lidar_views=10); may be repeated. lidar_images=0 leaves out LiDAR "
            "and its forward passes of augmented views.",
            metavar=_SETTING,
        ),
    ] = None
    device: DeviceOption = "auto"
    batch_size: BatchSizeOption = "auto"
    workers: WorkersOption = 4
    precision: Annotated[
        Literal["float32", "bfloat16"], option("Precision of the forward pass.", h.COMPUTE)
    ] = "float32"
    image_cache: Annotated[
        Path | None, file("Folder that keeps decoded images for later calls.", h.COMPUTE)
    ] = None

    @from_options
    def settings(self) -> ScoreSettings:
        """What the numbers depend on."""
        from densescope.metrics import ScoreSettings

        own = {
            "layers": self.layers,
            "seed": self.seed,
            "precision": self.precision,
            "metrics": self.metrics,
        }
        defaults = {f.name: f.default for f in fields(ScoreSettings) if f.name not in own}
        return ScoreSettings(**own, **_changed(defaults, self.set or ()))  # type: ignore[arg-type]

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
        int, option("Images to score on, drawn once for all checkpoints.", h.MAIN, least=3)
    ] = 2048


@dataclass(frozen=True)
class SweepOptions(ScoringOptions):
    """The same, on a fixed number of images or on as many as the choice needs."""

    images_count: Annotated[
        Literal["auto"] | int,
        option(
            "Images to score on, drawn once for all checkpoints; auto scores them in rounds and "
            "stops checkpoints that no longer matter for the choice.",
            h.MAIN,
            least=3,
            metavar="auto|COUNT",
            converter=count_or_auto,
        ),
    ] = 2048
    round_size: Annotated[
        int,
        option(
            "Images of a round, from which one value of the effective rank is computed; with "
            "fewer than 128 the intervals rest on fewer than 16 blocks.",
            h.RACE,
            least=2,
        ),
        _RACE,
    ] = 256
    rounds: Annotated[int, option("Largest number of rounds.", h.RACE, least=1), _RACE] = 8
    alpha: Annotated[
        float,
        option("Largest probability of stopping the best checkpoint wrongly.", h.RACE),
        _RACE,
    ] = 0.05

    @from_options
    def count(self) -> int | Race:
        """How many images, or how to find out."""
        from densescope.selection.race import Race

        if self.images_count == "auto":
            return Race(self.round_size, self.rounds, self.alpha)
        return self.images_count


def _changed(defaults: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The settings of ``--set``, each of the kind of its default."""
    from densescope.features.architectures import parse_architecture_options

    changed = parse_architecture_options(assignments)
    for key, value in changed.items():
        if key not in defaults:
            raise UsageError(f"--set has no {key!r}; there are {', '.join(defaults)}")
        kind = type(defaults[key])
        if kind is bool:
            changed[key] = value = {"true": True, "false": False}.get(str(value).lower(), value)
        if type(value) is not kind:
            raise UsageError(f"--set {key}={value} is not {_KINDS[kind]}, as {key} has to be")
    return changed


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


def images_at_once(given: Literal["auto"] | int) -> int | None:
    """A batch size as typed; ``None`` for ``auto``."""
    return None if given == "auto" else given
