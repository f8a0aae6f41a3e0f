"""Options that several verbs share, and the settings they become."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from densescope.errors import InputError

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A TOML file of these options (format = \"dino\", images-count = 512, ...).",
        is_eager=True,
        callback=lambda context, value: _read_config(context, value),
        rich_help_panel="Other",
    ),
]
FormatOption = Annotated[
    str, typer.Option("--format", help="The training code's layout; see: densescope formats.")
]
ArchitectureOption = Annotated[
    str | None,
    typer.Option("--architecture", help="A timm model name; the format's own by default."),
]
ArchitectureOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--architecture-option",
        metavar="KEY=VALUE",
        help="An option of that model (img_size=64, patch_size=8, ...); may be repeated.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option("--weights", help="Which of the file's networks: teacher, student, ..."),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option("--image-size", min=1, help="Pixels; the training size by default."),
]
LoaderOption = Annotated[
    Path | None,
    typer.Option("--loader", help="A Python file with load_backbone, for --format custom."),
]
ImagesOption = Annotated[
    Path,
    typer.Option("--images", help="A folder of images, tar shards, or a saved image set."),
]
ImagesCountOption = Annotated[
    int, typer.Option("--images-count", min=2, help="Size of the fixed subset of images.")
]
LayersOption = Annotated[
    str, typer.Option("--layers", help="Blocks to score, e.g. -1 or -4,-1.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the subset and of clusterings.")]
NormalizeOption = Annotated[
    bool,
    typer.Option("--normalize/--no-normalize", help="L2-normalize patch vectors first."),
]
LocalClustersOption = Annotated[
    int, typer.Option("--local-clusters", help="k of the k-means within one image.")
]
GlobalClustersOption = Annotated[
    int, typer.Option("--global-clusters", help="k of the k-means within a group of images.")
]
GroupSizeOption = Annotated[int, typer.Option("--group-size", help="Images per group.")]
ImagesPerBatchOption = Annotated[
    int, typer.Option("--images-per-batch", help="Images per effective dimensionality.")
]
LidarImagesOption = Annotated[
    int, typer.Option("--lidar-images", help="Images for LiDAR; 0 leaves it out.")
]
LidarViewsOption = Annotated[int, typer.Option("--lidar-views", help="Views of each of them.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per forward.")]
PrecisionOption = Annotated[
    Literal["float32", "bfloat16"], typer.Option("--precision", help="Of the forward pass.")
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Threads decoding images.")]
DefinitionOption = Annotated[
    Literal["released", "paper"], typer.Option("--definition", help="Which DSE to choose by.")
]
LayerOption = Annotated[int, typer.Option("--layer", help="The block to choose by.")]


def architecture_options(pairs: list[str] | None) -> dict[str, Any]:
    """``["img_size=64", "global_pool=avg"]`` as keyword arguments; Python literals are read.

    Raises:
        InputError: an entry is not of the form ``key=value``.
    """
    options: dict[str, Any] = {}
    for pair in pairs or []:
        key, sign, text = pair.partition("=")
        if not sign or not key.isidentifier():
            raise InputError(
                f"--architecture-option {pair!r} is not of the form key=value, "
                "e.g. --architecture-option img_size=64"
            )
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    return options


def layers(text: str) -> tuple[int, ...]:
    """``"-4,-1"`` as ``(-4, -1)``.

    Raises:
        InputError: an entry is not a whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--layers {text!r} is not a list of whole numbers such as -1 or -4,-1"
        ) from None


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    if path is None:
        return None
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise InputError(f"cannot read --config {path}: {cause.strerror}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise InputError(f"--config {path} is not TOML: {cause}") from cause
    names = _option_names(context)
    unknown = sorted(set(document) - set(names))
    if unknown:
        raise InputError(
            f"--config {path} has unknown keys: {', '.join(unknown)}; "
            f"known are: {', '.join(sorted(names))}"
        )
    context.default_map = {names[key]: value for key, value in document.items()}
    return path


def _option_names(context: typer.Context) -> dict[str, str]:
    names: dict[str, str] = {}
    for parameter in context.command.params:
        if parameter.name is None or parameter.name == "config":
            continue
        option = max(parameter.opts, key=len).lstrip("-")
        names[option] = parameter.name
    return names
