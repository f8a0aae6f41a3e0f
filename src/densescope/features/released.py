"""Released weights, which timm finds and keeps in its cache: ``timm:NAME``, ``hf-hub:ORG/NAME``."""

from __future__ import annotations

from typing import Any, cast

import torch

from densescope.features.architectures import closest_names, resize
from densescope.features.formats.row import RELEASED, is_released
from densescope.features.layouts import Coverage, StepError, with_positions
from densescope.features.loaded import LoadedBackbone
from densescope.features.normalization import of_architecture
from densescope.features.protocol import Backbone
from densescope.features.spec import BackboneSpec
from densescope.features.stored import tensors_sha256
from densescope.features.timm_backbone import TimmBackbone

_TIMM, _HUB = RELEASED


def load_released(location: str, spec: BackboneSpec) -> LoadedBackbone:
    """Load released weights through timm, from its cache or over the network.

    Architecture, image size and normalization are those of the release, unless the spec has an
    image size or a normalization. No code of a hub is run,
    and pickled weights are read as torch reads weights only.

    Args:
        location: ``"timm:NAME"``, any name of ``timm.list_pretrained()``, or ``"hf-hub:ORG/NAME"``,
            a timm model on Hugging Face's hub.
        spec: what the user takes it for, and the image size to evaluate at.

    Raises:
        CheckpointError: there is no such model, or it is neither in the cache nor can be fetched.
    """
    name = _name(location, spec.format)
    try:
        with torch.random.fork_rng(devices=[]):  # timm draws initial weights, then fills them
            model = _create(name)
    except Exception as cause:
        raise StepError("read", _why(location, name, cause)) from cause
    if not hasattr(model, "forward_intermediates"):
        kind = type(model).__name__
        raise StepError("architecture", f"{location} is a {kind}, of which timm takes no patches")
    config = model.pretrained_cfg
    trained_size = int(config["input_size"][-1])
    size = spec.image_size or trained_size
    tensors = model.state_dict()
    sha256, held = tensors_sha256(tensors), sum(value.nbytes for value in tensors.values())
    coverage = Coverage("model", (), "", len(tensors))
    if resize(model, trained_size, size, name):
        coverage = with_positions(coverage, trained_size, size)
    normalization = spec.asked_normalization() or of_architecture(config)
    backbone = TimmBackbone(model, image_size=size, mean=normalization.mean, std=normalization.std)
    return LoadedBackbone(
        backbone=cast(Backbone, backbone.eval().requires_grad_(False)),
        coverage=coverage,
        sha256=sha256,
        bytes=held,
        epoch_inside=None,
        format="released",
        architecture=".".join(filter(None, (config["architecture"], config.get("tag")))),
        options={},
    )


def _name(location: str, format: str) -> str:
    """What timm calls the model.

    Raises:
        StepError: it has no released weights, or is taken for something else.
    """
    import timm

    if format != "released":
        raise StepError(
            "read",
            f"{location} is a released model, not a file of format {format}: leave --format out",
        )
    if not is_released(location):
        raise StepError(
            "read",
            f"{location} is not a released model: --format released takes timm:NAME or "
            "hf-hub:ORG/NAME, and a file takes the format of the code that wrote it",
        )
    if location.startswith(_HUB):
        return location
    name = location.removeprefix(_TIMM)
    if not timm.models.is_model_pretrained(name):
        what = "no released weights" if timm.is_model(name) else "no model"
        close = closest_names(name, timm.list_pretrained())
        hint = f"; did you mean {' or '.join(_TIMM + other for other in close)}?" if close else ""
        raise StepError("read", f"timm has {what} of the name {name!r}{hint}")
    return name


def _create(name: str) -> Any:
    import timm

    return timm.create_model(name, pretrained=True, num_classes=0)


def _why(location: str, name: str, cause: Exception) -> str:
    from huggingface_hub import constants, errors

    unknown = isinstance(cause, errors.RepositoryNotFoundError | errors.EntryNotFoundError)
    absent = isinstance(cause, errors.LocalEntryNotFoundError)
    if absent or (isinstance(cause, OSError) and not unknown):
        return (
            f"{location} is not in the cache ({constants.HF_HUB_CACHE}) and cannot be downloaded "
            'from here. On a machine with a connection run python -c "import timm; '
            f"timm.create_model('{name}', pretrained=True)\" and copy its cache, or set HF_HOME "
            "to a folder that holds the model"
        )
    if unknown:
        return (
            f"{location} is not a timm model on Hugging Face's hub, or it is private: a timm "
            "model has a config.json that names its architecture; log in for a private one"
        )
    first = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    return f"timm cannot load {location}: {first}"
