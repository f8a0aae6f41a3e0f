"""A checkpoint becomes a backbone: images in, a grid of patch features and one image vector out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from densescope.errors import NOT_FINITE, CheckpointError
from densescope.features.architectures import build_architecture, visible_options
from densescope.features.checkpoints import Container, read_checkpoint, size_of
from densescope.features.flat_parameters import unflatten
from densescope.features.format_row import IMAGENET_MEAN, IMAGENET_STD
from densescope.features.formats import Format, Weights, find_format
from densescope.features.layouts import (
    LAYOUT_STEPS,
    StepError,
    fitting_formats,
    for_network,
    listing,
    prefix_in_the_way,
    unpack,
    with_positions,
)
from densescope.features.loaded import LoadedBackbone
from densescope.features.protocol import Backbone as Backbone
from densescope.features.protocol import Features as Features
from densescope.features.stored import identity, in_memory
from densescope.features.timm_backbone import TimmBackbone
from densescope.features.wrappers import as_named

_NONE_FITS = (
    "No known format fits: format custom reads it, by a short Python file of yours that takes the "
    "tensors out (--format custom --loader LOADER.py)"
)


def load_backbone(
    path: str | Path,
    *,
    format: str,
    architecture: str | None = None,
    architecture_options: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    weights: str | None = None,
    loader: str | Path | None = None,
) -> LoadedBackbone:
    """Load every tensor of a checkpoint's backbone, or refuse.

    The architecture is built at its training size (``img_size`` of the options, else its default)
    and filled strictly: a missing, an unexpected or a misshapen tensor is an error. Only then is
    it resized to ``image_size``, and the coverage says so.

    Args:
        path: checkpoint file, or folder for formats that save folders.
        format: name of a row of ``FORMATS``.
        architecture: timm model name; the row's by default.
        architecture_options: arguments of the model, over the row's. Without these and without an
            architecture, those that ``densescope pretrain`` noted in the file, if it wrote it.
        image_size: side in pixels to evaluate at; the training size by default.
        weights: which set of weights, such as ``"student"``; the row's first by default. For
            ``lightning`` the name of the sub-module, such as ``"model.backbone."``.
        loader: Python file with ``load_backbone(path, **options)``, for ``format="custom"``.

    Returns:
        The backbone in evaluation mode on the CPU without gradients, and its provenance.

    Raises:
        CheckpointError: the file cannot be read, or does not fit its format or architecture; the
            sentence says which step failed, what was found, and which formats would fit.
    """
    row = find_format(format)
    path = Path(path)
    check_choices(row, architecture, architecture_options, weights, loader)
    if row.reader == "custom":
        from densescope.features.custom import load_custom

        assert loader is not None
        return load_custom(path, loader, architecture_options or {}, image_size, weights)
    if row.reader == "huggingface":
        from densescope.features.huggingface import load_huggingface

        return load_huggingface(path, row, image_size)
    container = read_checkpoint(path)
    chosen = row.choose(weights)
    try:
        row = row.of(architecture) if architecture else for_network(container, row, chosen)
        name, options = row.architecture, {**row.options, **(architecture_options or {})}
        if architecture is None and not architecture_options:
            name, options = _noted(container) or (name, options)
        return _load(container, row, chosen, name, options, image_size)
    except StepError as error:
        raise StepError(error.step, f"{error}{_advice(error, container)}") from error


def _noted(container: Container) -> tuple[str, dict[str, Any]] | None:
    """Architecture and options that ``densescope pretrain`` keeps in its files."""
    try:
        backbone = json.loads(container.content["densescope"]["settings"])["backbone"]
        options = {"img_size": backbone["image_size"], **backbone["options"]}
        name = str(backbone["architecture"])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    lists = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
    return name, {**options, **lists}


def check_architecture(
    *, format: str, architecture: str | None, options: Mapping[str, Any] | None
) -> None:
    """Build the architecture that every checkpoint of a run shares, and drop it again.

    Raises:
        CheckpointError: no such format or architecture, or the architecture refuses an option.
    """
    row = find_format(format)
    if row.reader in ("custom", "huggingface"):
        return
    row = row.of(architecture or row.architecture)
    build_architecture(row.architecture, {**row.options, **(options or {})})


def check_choices(
    row: Format,
    architecture: str | None,
    options: Mapping[str, Any] | None,
    weights: str | None,
    loader: str | Path | None,
) -> None:
    """Refuse what a format does not know or has no use for; no file is read.

    Args:
        row: the format.
        architecture, options, weights, loader: as for :func:`load_backbone`, ``options`` being
            its ``architecture_options``.

    Raises:
        CheckpointError: the format has no such weights, an argument would have no effect, or the
            loader is missing.
    """
    if loader is not None and row.reader != "custom":
        raise CheckpointError(f"a loader file goes with format=custom, not with format={row.name}")
    if architecture is not None and row.reader != "weights":
        raise CheckpointError(f"format={row.name} takes no architecture: it comes with the model")
    if row.reader == "huggingface" and (options or weights):
        raise CheckpointError(
            "format=huggingface takes neither architecture options nor weights: the folder's "
            "config.json says what it is"
        )
    if loader is None and row.reader == "custom":
        raise CheckpointError(
            "format=custom needs a loader: a Python file with load_backbone(path, **options)"
        )
    if row.reader == "weights":
        row.choose(weights)


def _advice(error: StepError, container: Container) -> str:
    if error.step not in LAYOUT_STEPS:
        return ""
    fits = fitting_formats(container)
    return f". Formats that would fit: {', '.join(fits)}" if fits else f". {_NONE_FITS}"


def _load(
    container: Container,
    row: Format,
    chosen: Weights,
    architecture: str,
    options: Mapping[str, Any],
    image_size: int | None,
) -> LoadedBackbone:
    if container.ranks:
        model, trained_size = build_architecture(architecture, options)
        whole = unflatten(container, row, chosen, model, architecture)
        tensors, coverage = unpack(whole, row, chosen)
    else:
        tensors, coverage = unpack(container, row, chosen)
        model, trained_size = build_architecture(architecture, options)
    if row.conversion is not None:
        tensors = row.conversion(tensors, model)
    tensors = as_named(tensors, model.state_dict())
    tensors = _fill(model, tensors, architecture, container.path)
    coverage = replace(coverage, matched=len(tensors))
    size = image_size or trained_size
    if _resize(model, trained_size, size, architecture):
        coverage = with_positions(coverage, trained_size, size)
    config = cast(Any, model).pretrained_cfg
    backbone = TimmBackbone(
        model,
        image_size=size,
        mean=row.mean or tuple(config.get("mean", IMAGENET_MEAN)),
        std=row.std or tuple(config.get("std", IMAGENET_STD)),
    )
    inside = _counter(container, row)
    return LoadedBackbone(
        backbone=cast(Backbone, backbone.eval().requires_grad_(False)),
        coverage=coverage,
        sha256=identity(tensors),
        bytes=size_of(container.path),
        epoch_inside=inside,
        format=row.name,
        architecture=architecture,
        options=dict(options),
        foreign=container.foreign,
        note=_counter_note(container.path, row, inside),
    )


def _fill(
    model: nn.Module, tensors: Mapping[str, Tensor], architecture: str, path: Path
) -> dict[str, Tensor]:
    """Load the tensors of a file, which are read now that their shapes are found to fit."""
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    complaints = [
        f"{len(names)} {what} ({listing(names)})"
        for names, what in (
            (missing, "are missing"),
            (unexpected, "have no place in it"),
            (misshapen, "have another shape"),
        )
        if names
    ]
    if complaints:
        hint = _prefix_hint(unexpected, missing) or _option_hint(tensors, wanted)
        raise StepError(
            "load",
            f"{path} does not fill {architecture}: of its {len(wanted)} tensors "
            f"{'; '.join(complaints)}{hint}",
        )
    held = in_memory(dict(tensors))
    broken = [name for name, value in held.items() if not bool(value.isfinite().all())]
    if broken:
        raise StepError(
            "load", f"{path} holds {NOT_FINITE} weights ({listing(broken)}): the run diverged"
        )
    model.load_state_dict(held, strict=True)
    return held


def _prefix_hint(unexpected: list[str], missing: list[str]) -> str:
    prefix = prefix_in_the_way(unexpected, missing)
    if not prefix:
        return ""
    return (
        f". The names in the file begin with {prefix!r}, which is in the way: save the tensors "
        f"without it, or take it off with --format lightning --weights {prefix} (of a file with a "
        "'state_dict') or in a loader of yours (--format custom --loader LOADER.py)"
    )


def _option_hint(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    seen, built = visible_options(tensors), visible_options(wanted)
    if not seen:
        return ""
    hint = f". By its shapes the file has {_assigned(seen)} (heads cannot be seen)"
    other = {key: value for key, value in seen.items() if built.get(key) != value}
    give = f": give --architecture-option {_assigned(other, ',')}" if built and other else ""
    return f"{hint}{give}"


def _assigned(options: Mapping[str, int], between: str = ", ") -> str:
    return between.join(f"{key}={value}" for key, value in options.items())


def _resize(model: Any, trained_size: int, size: int, architecture: str) -> bool:
    """Prepare a model for another input size; whether any tensor had to be resampled for it.

    Swin keeps its windows, which slide over more of them, so its relative positions stay as they
    are; rotary positions are computed anew.
    """
    cell = int(model.feature_info[-1]["reduction"])
    if not hasattr(model, "set_input_size"):
        return False
    if size % cell:
        raise StepError(
            "architecture",
            f"{architecture} cannot be evaluated at {size} pixels: its cells have {cell} pixels, "
            f"take {size // cell * cell or cell} or {(size // cell + 1) * cell}",
        )
    if size == trained_size:
        return False
    before = {name: value.shape for name, value in model.state_dict().items()}
    layers = getattr(model, "layers", None)
    windows = {"window_size": layers[0].blocks[0].window_size} if layers else {}
    try:
        with torch.no_grad():
            model.set_input_size(img_size=(size, size), **windows)
    except Exception as cause:
        raise StepError(
            "architecture", f"{architecture} cannot be evaluated at {size} pixels: {cause}"
        ) from cause
    return any(value.shape != before[name] for name, value in model.state_dict().items())


def _counter(container: Container, row: Format) -> int | None:
    content = container.content
    value = content.get(row.counter) if row.counter and isinstance(content, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _counter_note(path: Path, row: Format, inside: int | None) -> str | None:
    from densescope.features.discovery import number_of

    number = number_of(path, row)
    if number is None or inside is None or row.counter_offset is None:
        return None
    if inside == number + row.counter_offset:
        return None
    return (
        f"{path.name} says {row.unit} {inside} inside, its name leads to expect "
        f"{number + row.counter_offset}: renamed, or resumed with another schedule"
    )
