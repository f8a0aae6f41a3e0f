"""A user's own model: a Python file with ``load_backbone(path, **options)``."""

from __future__ import annotations

import importlib.util
import os
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from densescope.errors import CheckpointError
from densescope.features.checkpoints import fingerprint, size_of
from densescope.features.layouts import Coverage
from densescope.features.loaded import LoadedBackbone
from densescope.features.protocol import Backbone, Features
from densescope.features.spec import BackboneSpec

_NEEDED = ("features", "patch_size", "mean", "std", "image_size")


class LoaderError(CheckpointError):
    """The loader file is missing or has no loader; no checkpoint is to blame."""

    is_of_option = True


def load_custom(path: Path, spec: BackboneSpec) -> LoadedBackbone:
    """Run the user's loader file and check what it returns with one blank image.

    Args:
        path: checkpoint, given to the loader as it is.
        spec: its loader is executed, because the user named it; its architecture options are
            passed on to ``load_backbone`` there, with ``image_size`` and ``weights`` if given.

    Raises:
        LoaderError: no such loader, or it has no ``load_backbone``.
        CheckpointError: ``load_backbone`` failed, or what it returned is not a backbone.
    """
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}")
    given = {"image_size": spec.image_size, "weights": spec.weights}
    passed = {
        **spec.architecture_options,
        **{name: value for name, value in given.items() if value is not None},
    }
    loader = Path(str(spec.loader))
    function = _function(loader)
    try:
        backbone = function(path, **passed)
    except Exception as cause:
        where = traceback.extract_tb(cause.__traceback__)[-1]
        raise CheckpointError(
            f"load_backbone of {loader} failed on {path}: {type(cause).__name__}: {cause} "
            f"({Path(where.filename).name}, line {where.lineno})"
        ) from cause
    if isinstance(backbone, nn.Module):
        backbone.eval().requires_grad_(False)
    _check(backbone, loader)
    held = len(backbone.state_dict()) if isinstance(backbone, nn.Module) else 0
    return LoadedBackbone(
        backbone=backbone,
        coverage=Coverage(spec.weights or "custom", (), "", held),
        sha256=fingerprint(path),
        hashed="file",
        bytes=size_of(path),
        epoch_inside=None,
        format="custom",
        architecture=f"{loader.name} sha256 {fingerprint(loader)[:12]}",
        options=passed,
    )


def _function(loader: Path) -> Any:
    if not os.path.isfile(loader):  # also where the name is too long for a file
        raise LoaderError(f"there is no loader file {loader}: check the path")
    specification = importlib.util.spec_from_file_location("densescope_custom_loader", loader)
    if specification is None or specification.loader is None:
        raise LoaderError(f"the loader {loader} is not a Python file: name one that ends in .py")
    module: ModuleType = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as cause:
        raise LoaderError(
            f"the loader {loader} cannot be imported: {type(cause).__name__}: {cause}"
        ) from cause
    function = getattr(module, "load_backbone", None)
    if not callable(function):
        raise LoaderError(f"the loader {loader} has no function load_backbone(path, **options)")
    return function


def _check(backbone: Any, loader: str | Path) -> None:
    lacking = [name for name in _NEEDED if not hasattr(backbone, name)]
    if lacking:
        raise CheckpointError(
            f"load_backbone of {loader} returned a {type(backbone).__name__} without "
            f"{', '.join(lacking)}: a backbone has {', '.join(_NEEDED)}"
        )
    if len(backbone.mean) != len(backbone.std) or not backbone.mean:
        raise CheckpointError(
            f"the backbone of {loader} needs mean and std of the same length, one per channel"
        )
    _check_features(backbone, loader)


def _check_features(backbone: Backbone, loader: str | Path) -> None:
    size = backbone.image_size
    blank = torch.zeros(2, len(backbone.mean), size, size)
    try:
        with torch.no_grad():
            found: Any = backbone.features(blank)
    except Exception as cause:
        raise CheckpointError(
            f"features() of the backbone of {loader} failed on {tuple(blank.shape)}: "
            f"{type(cause).__name__}: {cause}"
        ) from cause
    patches: Any = getattr(found, "patches", None)
    if not isinstance(found, Features) and not hasattr(found, "image"):
        raise CheckpointError(f"features() of {loader} must return Features(patches, image)")
    cells = size // backbone.patch_size
    grids = list(patches) if isinstance(patches, tuple | list) else []
    shapes = [tuple(grid.shape) for grid in grids]
    if len(shapes) != 1 or (*shapes[0][:1], *shapes[0][2:]) != (2, cells, cells):
        raise CheckpointError(
            f"features() of {loader} gave patches {shapes} for 2 images of {size} pixels with "
            f"patch_size {backbone.patch_size}: (2, dim, {cells}, {cells}) was expected, one grid "
            "per layer"
        )
    if found.image.ndim != 2 or found.image.shape[0] != 2:
        raise CheckpointError(
            f"features() of {loader} gave an image vector {tuple(found.image.shape)}: (2, dim) "
            "was expected"
        )
