"""A backbone that was loaded, with what its records say of where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from densescope.features.layouts import Coverage
from densescope.features.normalization import Normalization
from densescope.features.protocol import Backbone

_HEADS = ("num_heads", "num_attention_heads")
# What says nothing of the features in evaluation mode, or only how they are computed.
_SILENT = {"training", "num_classes", "global_pool", "dynamic_img_size", "grad_checkpointing"}
_SCALARS = (bool, int, float, str, type(None))


def network_facts(backbone: Any) -> dict[str, Any]:
    """What no tensor, or hardly a tensor, says of a backbone, for people to read.

    Returns:
        ``heads`` (one number, or those of the stages), ``depth``, ``width``, ``patch_size`` in
        pixels and ``norm_eps``, as far as they can be told.
    """
    model = getattr(backbone, "model", backbone)
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    heads = [number for module in modules for number in _numbers(module)]
    config = getattr(model, "config", None)
    facts = {
        "heads": _brief(heads),
        "depth": getattr(backbone, "depth", None),
        "width": getattr(model, "num_features", None) or getattr(config, "hidden_size", None),
        "patch_size": getattr(backbone, "patch_size", None),
        "norm_eps": _brief(module.eps for module in modules if _is_norm(module)),
    }
    return {name: value for name, value in facts.items() if value is not None}


def model_fingerprint(model: nn.Module) -> str:
    """A hash that two models share when the same tensors give the same features in both.

    It covers the kinds, shapes and plain settings of all their parts: heads, epsilons, strides,
    activations, tokens before the patches.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        if type(module).__name__.startswith(("Drop", "Identity")):
            continue
        digest.update(repr((name, type(module).__qualname__, *_settings(module))).encode())
    for name, value in model.state_dict().items():
        digest.update(repr((name, tuple(value.shape))).encode())
    return digest.hexdigest()


def _numbers(module: nn.Module) -> Iterator[int]:
    for name in _HEADS:
        value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            yield value
            return


def _is_norm(module: nn.Module) -> bool:
    return isinstance(getattr(module, "eps", None), float)


def _brief(values: Iterable[Any]) -> Any:
    """The one value, the different ones in order, or ``None``."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different or None


def _settings(module: nn.Module) -> list[tuple[str, Any]]:
    return [
        (key, value)
        for key, value in sorted(vars(module).items())
        if not key.startswith(("_", "drop")) and key not in _SILENT and _is_plain(value)
    ]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _SCALARS)


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
