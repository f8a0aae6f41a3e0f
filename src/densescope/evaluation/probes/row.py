"""What a protocol is, what it is given, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from densescope.errors import InputError
from densescope.evaluation.cache import FeatureCache
from densescope.evaluation.pixel_counts import PixelCounts
from densescope.evaluation.probes.data import ProbeData, Task
from densescope.features.backbones import Backbone
from densescope.features.batching import Batching
from densescope.records import plain

PIECE = 64
PROSE = ("title", "source", "deviations", "engine", "changes", "any_size")


@dataclass(frozen=True)
class EngineResult:
    """What an engine measured on the test images.

    Attributes:
        values: the row's measure for each seed.
        details: plain values: per-class IoU, chosen hyper-parameters, other measures.
        head: the trained reader, where it can be used again.
        counts: of the test images in order, for each seed; empty where masks are not asked for.
    """

    values: tuple[float, ...]
    details: Mapping[str, Any]
    head: Any = None
    counts: tuple[PixelCounts, ...] = ()


def measured(
    counts: Sequence[PixelCounts], details: Mapping[str, Any], head: Any = None
) -> EngineResult:
    """What an engine of masks found, from its pixel counts for each seed.

    The details get per-class IoU (mean over seeds, NaN for an absent class) and pixel accuracy.
    """
    ious = torch.stack([part.class_iou for part in counts]).nanmean(0)
    measures = {
        "class_iou": ious.tolist(),
        "pixel_accuracy": [part.pixel_accuracy for part in counts],
    }
    values = tuple(part.mean_iou for part in counts)
    return EngineResult(values, {**details, **measures}, head, tuple(counts))


def edge_note(what: str, chosen: Sequence[float], tried: Sequence[float]) -> dict[str, Any]:
    """The details ``note`` and ``at_edge`` where a value is at the edge of a protocol's grid."""
    low, high = min(tried), max(tried)
    # One neighbor is the fewest there are, and no edge that a wider grid would move.
    at_edge = sorted({value for value in chosen if value in (low, high)} - {1})
    if not at_edge or low == high:
        return {}
    listed = " and ".join(f"{value:.3g}" for value in at_edge)
    grid = f"the edge of the protocol's grid, {low:.3g} to {high:.3g}"
    return {"note": f"the chosen {what} {listed} is at {grid}", "at_edge": True}


@dataclass(frozen=True)
class ProbeProtocol:
    """One way of asking what features are worth; numbers of two rows never compare.

    Attributes:
        name: what the user writes.
        title: in words.
        task: what labels it needs.
        measure: row of ``MEASURES``.
        head: the reader in words.
        engine: what runs it.
        settings: frozen dataclass of the engine: optimizer, schedule, neighbors, ...
        image_size: side in pixels of what the backbone sees; load the backbone at this size.
        resize: how an image becomes that: ``"squash"``, ``"short-side-crop"``, or
            ``"slide"`` (windows over the image at its own aspect ratio).
        label_size: side in pixels of the masks that are compared; ``None`` for the mask as stored.
        layers: blocks that are read, concatenated.
        cached: features are computed once per image; else anew for every random crop.
        seeds: default seeds of what is left to chance.
        source: where the settings come from.
        deviations: what differs from the source.
        any_size: ``image_size`` is a default and no published number: a model is probed at its own
            size where that is known.
        changes: what a caller changed: name -> (published, used).
    """

    name: str
    title: str
    task: Task
    measure: str
    head: str
    engine: Callable[[ProbeTask], EngineResult]
    settings: Any
    image_size: int
    resize: str
    label_size: int | None
    source: str
    deviations: tuple[str, ...]
    layers: tuple[int, ...] = (-1,)
    cached: bool = True
    seeds: tuple[int, ...] = (0,)
    any_size: bool = False
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def adapted(self, **changes: Any) -> ProbeProtocol:
        """This protocol with other numbers; the record says which, and tables keep them apart.

        Args:
            **changes: fields of the row or of its settings, such as ``steps`` or ``image_size``;
                ``None`` and the published value change nothing. Where masks are as large as
                images, ``label_size`` goes with ``image_size``.

        Raises:
            InputError: no such number, or its name belongs to what identifies the row.
        """
        row = self
        if self.label_size == self.image_size and changes.get("image_size"):
            changes = {"label_size": changes["image_size"], **changes}
        for name, value in changes.items():
            where = row._place_of(name)
            current = getattr(where, name)
            if value is None or value == current:
                continue
            published = row.changes.get(name, (current,))[0]
            changed = {**row.changes, name: (published, value)}
            if value == published:
                del changed[name]
            if where is row:
                row = replace(row, **{name: value}, changes=changed)
            else:
                row = replace(row, settings=replace(where, **{name: value}), changes=changed)
        return row

    def to_json(self) -> dict[str, Any]:
        """Every number of the protocol in plain values."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        kept = {name: value for name, value in own.items() if name not in PROSE}
        changes = {name: list(pair) for name, pair in self.changes.items()}
        return dict(plain({**kept, "settings": asdict(self.settings), "changes": changes}))

    def _place_of(self, name: str) -> Any:
        if name in ("image_size", "label_size", "layers"):
            return self
        if name in {item.name for item in fields(self.settings)}:
            return self.settings
        known = [item.name for item in fields(self.settings)]
        raise InputError(
            f"protocol {self.name} has no {name} to change; it has: image_size, label_size, "
            f"layers, {', '.join(known)}"
        )


@dataclass(frozen=True)
class ProbeTask:
    """Everything an engine needs.

    Attributes:
        row: the protocol, with the caller's changes.
        backbone: frozen, in evaluation mode.
        data: training and test half.
        seeds: of what is left to chance; each engine makes its generators from them.
        cache: where features are kept.
        identity: what the features depend on besides data and row (sha256, weights, ...).
        device: name of a device.
        batching: images per forward pass; does not change results.
        precision: ``"float32"`` or ``"bfloat16"`` of the forward pass.
        workers: threads that decode images.
        known: features of ``"train"`` and ``"test"`` that need not be computed.
    """

    row: ProbeProtocol
    backbone: Backbone
    data: ProbeData
    seeds: tuple[int, ...]
    cache: FeatureCache
    identity: Mapping[str, Any]
    device: str = "auto"
    batching: Batching = field(default_factory=Batching)
    precision: str = "float32"
    workers: int | None = None
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def piece(self) -> int:
        """Images that are decoded and handed on together."""
        return self.batching.asked or PIECE
