"""State of a run inside its checkpoints, from which a killed run resumes bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densescope.errors import CheckpointError, InputError
from densescope.features.backbones import load_backbone
from densescope.features.checkpoints import read_checkpoint
from densescope.features.discovery import find_checkpoints
from densescope.features.layouts import StepError, unpack
from densescope.features.spec import BackboneSpec
from densescope.features.stored import in_memory, tensors_sha256
from densescope.pretraining.learner import Learner, Method
from densescope.pretraining.settings import flat
from densescope.writing import replacing

# Readers of the original files look at other keys and never at this one. Its tensors are those
# of the layout, and torch.save stores a tensor once.
KEY = "densescope"
# The setting that tells which weights a run began with; a resumed run keeps it.
ORIGIN = "start_from"
# The setting that tells the pixels of a run's images, known once they are decoded.
IMAGES = "images"


@dataclass(frozen=True)
class RunState:
    """Where a run stood when a checkpoint was written.

    Chance needs no place here: it is a function of seed and step.

    Attributes:
        step: finished steps.
        settings: of the run, with the fingerprint of its images.
        learner: every tensor of the method: networks, heads, teachers, centers, queues.
        optimizer: its state.
        regularizer: its state, empty where there is none.
        precision: the state of a loss scaler, empty where there is none.
    """

    step: int
    settings: dict[str, Any]
    learner: dict[str, Tensor]
    optimizer: dict[str, Any]
    regularizer: dict[str, Any]
    precision: dict[str, Any]

    def to_content(self) -> dict[str, Any]:
        """Plain containers, which the safe reader of checkpoints takes."""
        return {**vars(self), "settings": json.dumps(self.settings)}


def stored_state(path: Path) -> RunState | None:
    """The run's state in a checkpoint, or ``None`` where the method's own code wrote it.

    Raises:
        CheckpointError: the file cannot be read.
    """
    content = read_checkpoint(path).content
    found = content.get(KEY) if isinstance(content, Mapping) else None
    if found is None:
        return None
    found = in_memory(found)
    return RunState(**{**found, "settings": json.loads(found["settings"])})


def newest_state(folder: Path, method: Method, settings: Mapping[str, Any]) -> RunState:
    """The state of a run's last checkpoint.

    Args:
        folder: of the checkpoints.
        method: of the run.
        settings: what the run must have been begun with; the fingerprint of its images is
            compared only if it is among them.

    Raises:
        DataError: there is no checkpoint.
        InputError: the run had other settings.
        CheckpointError: it cannot be read, or another code wrote it.
    """
    path = find_checkpoints(folder, method.name).checkpoints[-1].path
    state = stored_state(path)
    if state is None:
        raise CheckpointError(
            f"{path} does not hold the state of its run: only checkpoints that densescope wrote "
            "can be resumed; begin a new run from it with --start-from"
        )
    kept = {key: state.settings[key] for key in (ORIGIN, IMAGES) if key in state.settings}
    _refuse_differences(path, state.settings, {**kept, **settings})
    return state


def _refuse_differences(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    before, now = flat(old), flat(new)
    differing = [
        _difference(key, before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise InputError(
            f"{path} belongs to a run with other settings: {'; '.join(differing)}. Resume with "
            "those it had, or begin a new run from it with --start-from"
        )


def _difference(key: str, old: Any, new: Any) -> str:
    if key == IMAGES:
        return f"the images differ (their fingerprint was {str(old)[:12]} and is {str(new)[:12]})"
    return f"{key} was {old} and is {new}"


def start_from(
    path: Path, learner: Learner[Any], method: Method, checkpoint_format: str | None = None
) -> str:
    """Fill a new learner with the weights of a checkpoint.

    Of a file of the same method that densescope wrote everything is taken: networks, heads,
    teachers, centers. Of one that the method's own code wrote the backbones are taken and heads
    stay fresh. Of a file of another method its backbone fills every backbone of the learner.

    Args:
        path: the checkpoint.
        learner: with fresh weights.
        method: of the learner.
        checkpoint_format: row of ``FORMATS``, or ``"auto"``; ``None``: the method's own.

    Returns:
        What was taken from which file, for the record.

    Raises:
        CheckpointError: the file cannot be read or does not fit.
    """
    if checkpoint_format not in (None, method.name):
        taken = _fill_from_another(path, learner, str(checkpoint_format))
        return f"backbone of {path.name} ({checkpoint_format}), sha256 {tensors_sha256(taken)}"
    state = stored_state(path)
    what = "backbones" if state is None else "all weights"
    if state is None:
        taken = _fill_backbones(path, learner, method)
    else:
        taken = state.learner
        _fill(path, learner, taken)
    return f"{what} of {path.name}, sha256 {tensors_sha256(taken)}"


def _fill_from_another(path: Path, learner: Learner[Any], name: str) -> dict[str, Tensor]:
    shape = learner.settings.backbone
    spec = BackboneSpec(name, shape.architecture, shape.loader_options)
    model = getattr(load_backbone(path, spec).backbone, "model", None)
    if model is None:
        raise CheckpointError(f"{path} ({name}) does not hold a timm network to begin with")
    taken: dict[str, Tensor] = dict(model.state_dict())
    for encoder in learner.backbones().values():
        _fill(path, encoder.model, taken)
    return taken


def _fill_backbones(path: Path, learner: Learner[Any], method: Method) -> dict[str, Tensor]:
    container, row = read_checkpoint(path), method.format
    taken: dict[str, dict[str, Tensor]] = {}
    for name, encoder in learner.backbones().items():
        try:
            tensors, _ = unpack(container, row, row.choose(name))
        except StepError:
            if not taken:
                raise
            # A released file may hold one network: the student then begins as the teacher.
            tensors = next(iter(taken.values()))
        taken[name] = in_memory(dict(tensors))
        if row.conversion is not None:
            tensors = row.conversion(tensors, encoder.model)
        _fill(path, encoder.model, tensors)
    return {f"{name}.{key}": value for name, of in taken.items() for key, value in of.items()}


def _fill(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as cause:
        first = " ".join(str(cause).split())[:300]
        raise CheckpointError(f"{path} does not fit these settings: {first}") from cause


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Save so that a reader sees the whole file or none (a temporary file beside it, renamed)."""
    with replacing(path) as temporary:
        torch.save(content, temporary)
