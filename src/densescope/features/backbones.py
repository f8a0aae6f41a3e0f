"""A checkpoint becomes a backbone: images in, a grid of patch features and one image vector out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from densescope.errors import NOT_FINITE, CheckpointError
from densescope.features.advice import GivenOptions, prefix_hint, refuse_other_heads, shape_hint
from densescope.features.architectures import build_architecture, resize
from densescope.features.checkpoints import Container, of_file, read_checkpoint, size_of
from densescope.features.detection import layout_advice, resolve_spec
from densescope.features.fitting import for_network
from densescope.features.flat_parameters import unflatten
from densescope.features.formats import Format, Weights
from densescope.features.formats.row import is_released
from densescope.features.inert import InertTensor
from densescope.features.interpretations import stored_architecture, stored_normalization
from densescope.features.layouts import (
    StepError,
    listing,
    unpack,
    with_positions,
)
from densescope.features.loaded import LoadedBackbone, network_facts
from densescope.features.names import counts_steps
from densescope.features.protocol import Backbone as Backbone
from densescope.features.protocol import Features as Features
from densescope.features.shapes import weights_of
from densescope.features.sharded import settings_of, timm_model_of
from densescope.features.spec import BackboneSpec as BackboneSpec
from densescope.features.stored import in_memory, tensors_sha256
from densescope.features.timm_backbone import TimmBackbone
from densescope.features.training import training_facts
from densescope.features.wrappers import as_named
from densescope.files import location
from densescope.text import named

_TIMES, _SPARE = 4, 1 << 27  # a file may lack tensors, and is refused by name then
_PACKED = {"torch.float4_e2m1fn_x2"}  # several numbers in a byte


def load_backbone(path: str | Path, spec: BackboneSpec) -> LoadedBackbone:
    """Load every tensor of a checkpoint's backbone, or refuse.

    The architecture is built at its training size (``img_size`` of the options, else its default)
    and filled strictly: a missing, an unexpected or a misshapen tensor is an error. Only then is
    it resized to the spec's ``image_size``, and the coverage says so.

    Args:
        path: checkpoint file, or folder for formats that save folders.
        spec: how it becomes a backbone.

    Returns:
        The backbone in evaluation mode on the CPU without gradients, and its provenance.

    Raises:
        CheckpointError: the file cannot be read, or does not fit its format or architecture; the
            sentence says which step failed, what was found, and which formats would fit.
    """
    path = location(path)
    spec = resolve_spec(path, spec).spec
    row = spec.row
    if row.reader == "custom":
        from densescope.features.custom import load_custom

        return load_custom(path, spec)
    if row.reader == "huggingface":
        from densescope.features.huggingface import load_huggingface

        return load_huggingface(path, spec)
    if row.reader == "released" or is_released(path):
        from densescope.features.released import load_released

        return load_released(str(path), spec)
    if "model_type" in settings_of(path) and not timm_model_of(path):
        raise StepError(
            "read", f"{path} is the folder of a Transformers model: give --format huggingface"
        )
    container = read_checkpoint(path)
    chosen = row.choose(spec.weights)
    try:
        row = for_network(container, row, chosen, spec.architecture)
        name, options = row.architecture, {**row.options, **spec.architecture_options}
        if spec.architecture is None and not spec.architecture_options:
            name, options = _noted_architecture(container) or (name, options)
        return _load(container, row, chosen, name, options, spec)
    except StepError as error:
        raise error.with_advice(layout_advice(error, container, spec)) from error


def _load(
    container: Container,
    row: Format,
    chosen: Weights,
    architecture: str,
    options: Mapping[str, Any],
    spec: BackboneSpec,
) -> LoadedBackbone:
    if container.ranks:
        model, trained_size = build_architecture(architecture, options)
        whole = unflatten(container, row, chosen, model, architecture)
        tensors, coverage = unpack(whole, row, chosen)
    else:
        tensors, coverage = unpack(container, row, chosen)
        _refuse_larger(container.path, tensors, architecture, options)
        model, trained_size = build_architecture(architecture, options)
    held = tensors
    if row.conversion is not None:
        tensors = row.conversion(tensors, model)
    tensors = as_named(tensors, model.state_dict())

    def hint(unexpected: list[str], missing: list[str]) -> str:
        prefix = prefix_hint(unexpected, missing, coverage.beginning_of(row))
        given = GivenOptions(spec.architecture_options)
        return prefix or shape_hint(held, row, model.state_dict(), given)

    tensors = _fill(model, tensors, container, architecture, hint)
    coverage = replace(coverage, matched=len(tensors))
    size = spec.image_size or trained_size
    if resize(model, trained_size, size, architecture):
        coverage = with_positions(coverage, trained_size, size)
    normalization = spec.normalization_of(architecture, stored_normalization(container))
    backbone = TimmBackbone(model, image_size=size, mean=normalization.mean, std=normalization.std)
    given = options if stored_architecture(container) else spec.architecture_options
    refuse_other_heads(held, network_facts(backbone), given, container.path)
    inside = _counter(container, row)
    return LoadedBackbone(
        backbone=cast(Backbone, backbone.eval().requires_grad_(False)),
        coverage=coverage,
        sha256=tensors_sha256(tensors),
        bytes=size_of(container.path),
        epoch_inside=inside,
        format=row.name,
        architecture=architecture,
        options=dict(options),
        foreign=container.foreign,
        note=_counter_note(container.path, row, inside),
        training=training_facts(container.content),
    )


def _noted_architecture(container: Container) -> tuple[str, dict[str, Any]] | None:
    """What a file notes of its network, if it can be built."""
    noted = stored_architecture(container)
    try:
        if noted is not None:
            weights_of(*noted)
    except CheckpointError as error:
        raise StepError(
            "load", f"{container.path} notes a network that there cannot be: {error}"
        ) from error
    return noted


def _refuse_larger(
    path: Path, tensors: Mapping[str, Tensor], architecture: str, options: Mapping[str, Any]
) -> None:
    """Refuse a network that the file cannot fill before memory is taken for it."""
    wanted = weights_of(architecture, options)
    there = sum(tensor.numel() for tensor in tensors.values())
    if wanted > _TIMES * there + _SPARE:
        raise StepError(
            "load",
            f"{path} does not fill {architecture}: it holds {there:,} weights, and the network has "
            f"{wanted:,}; check the architecture and its options",
        )


def _refuse_types(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse what is no real number where a network computes with real numbers."""
    hollow = {
        name: tensor.reason
        for name, tensor in tensors.items()
        if isinstance(tensor, InertTensor) and tensor.reason
    }
    if hollow:
        name, reason = next(iter(hollow.items()))
        raise StepError("load", f"{path} holds {named(name)} as {reason}")
    odd = [
        f"{name} ({str(tensors[name].dtype).removeprefix('torch.')})"
        for name in wanted
        if name in tensors and not _is_fit(tensors[name].dtype, wanted[name].dtype)
    ]
    if odd:
        raise StepError(
            "load",
            f"{path} holds weights that are no real numbers: {listing(odd)}; save them as float32, "
            "whole numbers of a quantized network times their scales",
        )


def _is_fit(held: torch.dtype, wanted: torch.dtype) -> bool:
    if wanted.is_floating_point:
        return held.is_floating_point and str(held) not in _PACKED
    return not held.is_complex


def _fill(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    container: Container,
    architecture: str,
    hint: Callable[[list[str], list[str]], str],
) -> dict[str, Tensor]:
    """Load the tensors of a file, which are read now that their shapes are found to fit."""
    wanted = model.state_dict()
    _refuse_types(container.path, tensors, wanted)
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
        raise StepError(
            "load",
            f"{container.path} does not fill {architecture}: of its {len(wanted)} tensors "
            f"{'; '.join(complaints)}{hint(unexpected, missing)}",
        )
    try:
        filled = {name: _in_memory(tensor) for name, tensor in tensors.items()}
    except CheckpointError as error:
        raise of_file(container.path, error) from error
    broken = [name for name, value in filled.items() if not bool(value.isfinite().all())]
    if broken:
        raise StepError(
            "load",
            f"{container.path} holds {NOT_FINITE} weights ({listing(broken)}): the run diverged",
        )
    model.load_state_dict(filled, strict=True)
    return filled


def _in_memory(tensor: Tensor) -> Tensor:
    """A weight, in a type that torch computes with: of one byte it only has types to store."""
    found = in_memory(tensor)
    return found.float() if found.is_floating_point() and found.itemsize == 1 else found


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
    if row.unit == "epoch" and counts_steps(number, inside):
        return None
    return (
        f"{path.name} says {row.unit} {inside} inside, its name leads to expect "
        f"{number + row.counter_offset}: renamed, or resumed with another schedule"
    )
