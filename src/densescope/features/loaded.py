"""A backbone that was loaded, with what its records say of where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from densescope.features.layouts import Coverage
from densescope.features.network import network_facts
from densescope.features.normalization import Normalization
from densescope.features.protocol import Backbone


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone and where it came from.

    Attributes:
        backbone: in evaluation mode, without gradients.
        coverage: what of the file was used.
        sha256: of the names, dtypes, shapes and values of the tensors that fill the backbone, so
            the same weights have the same in any file; with a loader of the user's, of the file.
        bytes: size of the file, or of the files of a folder or of all ranks.
        epoch_inside: the file's own counter, or ``None``.
        format, architecture, options: what it was loaded as.
        foreign: classes of the file that were replaced by inert placeholders.
        note: a warning that should travel with the numbers, or ``None``.
        hashed: what ``sha256`` is of, ``"tensors"`` or ``"file"``.
        training: what the file says of how it was trained, see
            :func:`~densescope.features.training.training_facts`.
    """

    backbone: Backbone
    coverage: Coverage
    sha256: str
    bytes: int
    epoch_inside: int | None
    format: str
    architecture: str
    options: Mapping[str, Any]
    foreign: tuple[str, ...] = ()
    note: str | None = None
    hashed: str = "tensors"
    training: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Provenance for a record, in plain values."""
        return {
            "sha256": self.sha256,
            "hashed": self.hashed,
            "bytes": self.bytes,
            "format": self.format,
            "architecture": self.architecture,
            "options": dict(self.options),
            "weights": self.coverage.weights,
            "coverage": self.coverage.to_json(),
            "epoch_inside": self.epoch_inside,
            "foreign": list(self.foreign),
            "network": network_facts(self.backbone),
            "image_size": self.backbone.image_size,
            "normalization": Normalization(
                tuple(self.backbone.mean), tuple(self.backbone.std)
            ).to_json(),
            "note": self.note,
            "training": dict(self.training),
        }
