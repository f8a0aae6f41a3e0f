"""How a checkpoint file becomes a backbone: one object that loaders, checks and sweeps share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densescope.errors import CheckpointError
from densescope.features.architectures import architecture_normalization, build_architecture
from densescope.features.formats import find_format
from densescope.features.formats.row import Format
from densescope.features.normalization import IMAGENET, Normalization, parse_normalization

AUTO = "auto"  # in the place of a row of FORMATS: the file decides


@dataclass(frozen=True)
class BackboneSpec:
    """How a checkpoint file becomes a backbone; the same for all checkpoints of a run.

    Attributes:
        format: name of a row of ``FORMATS``, or ``"auto"``, see
            :mod:`~densescope.features.detection`.
        architecture: timm model name; ``None`` takes the row's own, or finds it by the shapes of
            the tensors where the row has none.
        architecture_options: arguments of that model (``img_size``, ``patch_size``, ...), over the
            row's. Without these and without an architecture, those that ``densescope pretrain``
            noted in the file, if it wrote it.
        weights: which of the file's networks, such as ``"student"``; ``None`` takes the row's
            first. For ``lightning`` the name of the sub-module, such as ``"model.backbone."``.
        loader: a Python file with ``load_backbone(path, **options)``, for ``format="custom"``.
        image_size: side in pixels of the images; ``None`` takes the size the backbone was trained
            at.
        normalization: ``"imagenet"``, ``"architecture"`` (the timm architecture's own) or
            ``"MEAN/STD"`` such as ``"0.5,0.5,0.5/0.5,0.5,0.5"``; ``None`` follows the rule of
            :mod:`~densescope.features.normalization`.
    """

    format: str = AUTO
    architecture: str | None = None
    architecture_options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    loader: Path | str | None = None
    image_size: int | None = None
    normalization: str | None = None

    @property
    def row(self) -> Format:
        """The row of the format.

        Raises:
            CheckpointError: no such format.
        """
        return find_format(self.format)

    def check(self) -> None:
        """Refuse what the format does not know or has no use for; no file is read.

        Raises:
            CheckpointError: no such format, it has no such weights, an argument would have no
                effect, or the loader is missing.
        """
        if self.normalization is not None:
            parse_normalization(self.normalization)
        if self.format == AUTO:
            return
        row = self.row
        if self.loader is not None and row.reader != "custom":
            raise CheckpointError(
                f"a loader file goes with format=custom, not with format={row.name}"
            )
        if self.architecture is not None and row.reader != "weights":
            raise CheckpointError(
                f"format={row.name} takes no architecture: it comes with the model"
            )
        says = {"huggingface": "the folder's config.json", "released": "the release"}.get(
            row.reader
        )
        if says and (self.architecture_options or self.weights):
            raise CheckpointError(
                f"format={row.name} takes neither architecture options nor weights: {says} says "
                "what it is"
            )
        if self.loader is None and row.reader == "custom":
            raise CheckpointError(
                "format=custom needs a loader: a Python file with load_backbone(path, **options)"
            )
        if row.reader == "weights":
            row.choose(self.weights)
        if self.normalization is not None:
            self._check_normalization(row, self.normalization)

    def _check_normalization(self, row: Format, text: str) -> None:
        if row.reader == "custom":
            raise CheckpointError(
                "format=custom takes no normalization: the backbone that the loader returns has "
                "its own mean and std"
            )
        if parse_normalization(text) is None and row.reader == "huggingface":
            raise CheckpointError(
                f"normalization=architecture goes with timm architectures, not with format="
                f"{row.name}: give imagenet or MEAN/STD"
            )

    def normalization_of(
        self, architecture: str, stored: Normalization | None = None
    ) -> Normalization:
        """By the rule of :mod:`~densescope.features.normalization`.

        Args:
            architecture: the timm model that is filled with the weights.
            stored: what is stored with them.
        """
        if self.normalization is None:
            return stored or self.row.normalization or IMAGENET
        return self.asked_normalization() or architecture_normalization(architecture)

    def asked_normalization(self) -> Normalization | None:
        """The numbers that were asked for; ``None`` where none or the architecture's were."""
        return None if self.normalization is None else parse_normalization(self.normalization)

    def check_architecture(self) -> None:
        """Build the architecture that every checkpoint of a run shares, and drop it again.

        Where none is named and the format has several, only the files tell which it is; then the
        options must be those of one of them.

        Raises:
            CheckpointError: no such format or architecture, or it refuses an option.
        """
        if self.format == AUTO:
            return
        row = self.row
        if row.reader != "weights":
            return
        refused: list[CheckpointError] = []
        for name in (self.architecture,) if self.architecture else row.architectures:
            one = row.of(name)
            try:
                build_architecture(name, {**one.options, **self.architecture_options})
            except CheckpointError as error:
                refused.append(error)
            else:
                return
        raise refused[0]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            "format": self.format,
            "architecture": self.architecture,
            "architecture_options": dict(self.architecture_options),
            "weights": self.weights,
            "image_size": self.image_size,
            "loader": None if self.loader is None else str(self.loader),
            "normalization": self.normalization,
        }
