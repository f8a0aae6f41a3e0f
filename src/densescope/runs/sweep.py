"""Score every checkpoint of a run: resumable, one record at once, the broken ones named."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densescope._version import __version__
from densescope.errors import CheckpointError, DataError, DensescopeError, InputError
from densescope.evaluation.scoring import (
    BackboneScore,
    ScoreSettings,
    ScoringImages,
    prepare_images,
    score_backbone,
)
from densescope.features.backbones import LoadedBackbone, load_backbone
from densescope.features.checkpoints import hash_checkpoint
from densescope.features.formats import find_checkpoints
from densescope.features.images import ImageSubset, draw_subset, open_images
from densescope.records import ScoreRecord
from densescope.runs.store import RunStore

PREVIEW_IMAGES = 4


@dataclass(frozen=True)
class BackboneSpec:
    """How a checkpoint file becomes a backbone; the same for all checkpoints of a run.

    Attributes:
        format: row of ``FORMATS``.
        architecture: timm model name; ``None`` takes the row's own.
        architecture_options: options of that model (``img_size``, ``patch_size``, ...).
        weights: which of the file's networks (``teacher``, ``student``, ...); ``None`` takes
            the row's first.
        image_size: pixels of the square the images are cropped to; ``None`` takes the size
            the backbone was trained at.
        loader: a Python file with ``load_backbone``, for ``format="custom"``.
    """

    format: str
    architecture: str | None = None
    architecture_options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    image_size: int | None = None
    loader: Path | None = None

    def load(self, path: Path) -> LoadedBackbone:
        """Read one checkpoint file into a backbone."""
        return load_backbone(
            path,
            format=self.format,
            architecture=self.architecture,
            architecture_options=dict(self.architecture_options),
            image_size=self.image_size,
            weights=self.weights,
            loader=self.loader,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            "format": self.format,
            "architecture": self.architecture,
            "architecture_options": dict(self.architecture_options),
            "weights": self.weights,
            "image_size": self.image_size,
            "loader": None if self.loader is None else str(self.loader),
        }


@dataclass(frozen=True)
class SweepEvent:
    """What a sweep says while it goes on.

    Attributes:
        kind: ``"start"`` (``total`` is known), ``"kept"`` (scored before), ``"scoring"``,
            ``"scored"`` or ``"failed"``.
        name: the checkpoint, empty for ``"start"``.
        index: how many checkpoints are behind it.
        total: how many there are.
        record: the record, once there is one.
    """

    kind: str
    name: str
    index: int
    total: int
    record: ScoreRecord | None = None
