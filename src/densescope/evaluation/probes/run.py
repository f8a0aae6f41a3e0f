"""A backbone and labelled images go in, the number a protocol finds comes out."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from densescope.errors import InputError
from densescope.evaluation.cache import FeatureCache
from densescope.evaluation.datasets import SegmentationSet
from densescope.evaluation.probes.data import ProbeData
from densescope.evaluation.probes.layers import probe_of_layer, with_features
from densescope.evaluation.probes.repeated import default_seeds, run_engine
from densescope.evaluation.probes.row import EngineResult, ProbeProtocol, ProbeTask
from densescope.evaluation.probes.table import find_protocol
from densescope.evaluation.uncertainty import ProbedImages
from densescope.features.backbones import Backbone
from densescope.features.batching import Batching
from densescope.features.extraction import PRECISIONS
from densescope.features.loaded import LoadedBackbone
from densescope.layers import Layers, resolve_layers
from densescope.records import plain


@dataclass(frozen=True)
class ProbeOutcome:
    """What a protocol found.

    Attributes:
        protocol: row of ``PROTOCOLS``.
        dataset: name of the data.
        measure: row of ``MEASURES``.
        values: the measure for each seed; fractions, for RMSE meters.
        details: per-class values, chosen hyper-parameters, notes; plain values.
        settings: all that must agree for two values to compare; plain values.
        seconds: how long it took.
        classes: names of the classes, in the order of per-class values; empty for depth.
        images: what each test image gave, for a record (see
            :class:`~densescope.evaluation.uncertainty.ProbedImages`); empty where masks are not
            asked for.
        layers: layer (as text) -> ``"values"`` and ``"counts"`` of a probe that reads this layer
            alone, as in a record.
        head: the trained reader of the first seed, where the protocol has one that can be used
            again (see :func:`~densescope.evaluation.probes.predict.predict_masks`).
    """

    protocol: str
    dataset: str
    measure: str
    values: tuple[float, ...]
    details: Mapping[str, Any]
    settings: Mapping[str, Any]
    seconds: float
    classes: tuple[str, ...] = ()
    images: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    head: Any = field(default=None, compare=False, repr=False)

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds, ``None`` for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def protocol_settings(
    protocol: str,
    data: ProbeData,
    *,
    seeds: Sequence[int] | None = None,
    changes: Mapping[str, Any] | None = None,
    precision: str = "float32",
) -> dict[str, Any]:
    """What a record says two values must share to compare: for ``ProbeRecord.provenance``.

    The same for every checkpoint of a run, and known before the first one is probed.

    Returns:
        Plain values: every number of the row, what was changed, seeds, precision, and name and
        fingerprints of the data.
    """
    row = find_protocol(protocol).adapted(**(changes or {}))
    return _settings(row, data, _seeds(row, data, seeds), precision)


def run_protocol(
    protocol: str,
    backbone: Backbone,
    data: ProbeData,
    *,
    seeds: Sequence[int] | None = None,
    changes: Mapping[str, Any] | None = None,
    layers: Layers = (),
    cache: FeatureCache | None = None,
    identity: Mapping[str, Any] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    workers: int | None = None,
) -> ProbeOutcome:
    """Ask one protocol what a backbone's frozen features are worth.

    Hyper-parameters are chosen on a held-out part of the training half; the test half is read
    once. Chance comes from the seeds alone, so every checkpoint meets the same chance.

    Args:
        protocol: row of :data:`~densescope.evaluation.probes.table.PROTOCOLS`.
        backbone: loaded at the row's ``image_size``.
        data: what :func:`~densescope.evaluation.probes.data.probe_data` made.
        seeds: the row's by default.
        changes: numbers to use in place of the row's, such as ``{"steps": 100}``; the settings and
            the details say so.
        layers: layers that are probed one by one, beside those that the protocol reads;
            ``"all"`` for every block. All of them are read in one forward pass.
        cache: where features are kept; in memory by default.
        identity: what tells this backbone's features from others' (sha256, weights, ...);
            required with a cache folder.
        device: of the forward pass and of heads trained on crops.
        batch_size: images per forward pass; found out where it is left out (see
            :class:`~densescope.features.batching.Batching`). Does not change the result beyond
            rounding.
        precision: ``"float32"`` or ``"bfloat16"`` of the forward pass.
        workers: threads that decode images; all processors by default.

    Returns:
        The outcome.

    Raises:
        InputError: no such protocol, or backbone, data or numbers do not fit it.
        OptionError: a layer does not exist.
        DataError: an image or label is damaged.
    """
    row = find_protocol(protocol).adapted(**(changes or {}))
    chosen = _seeds(row, data, seeds)
    cache = cache or FeatureCache()
    _check(row, backbone, data, chosen, precision)
    if cache.folder is not None and not identity:
        raise InputError("a cache folder needs to know whose features these are: give identity")
    started = time.perf_counter()
    task = ProbeTask(
        row,
        backbone,
        data,
        chosen,
        cache,
        identity or {},
        device=device,
        batching=Batching(batch_size),
        precision=precision,
        workers=workers,
    )
    each = resolve_layers(layers, getattr(backbone, "depth", None))
    task = with_features(task, each) if each else task
    found = run_engine(task)
    notes = [*_note(found.details), *data.notes, *_change_notes(row)]
    details = {**found.details, "notes": notes}
    details.pop("note", None)
    return ProbeOutcome(
        row.name,
        data.name,
        row.measure,
        found.values,
        plain(details),
        _settings(row, data, chosen, precision),
        time.perf_counter() - started,
        tuple(getattr(data.test, "classes", ())),
        _images(found, data),
        {str(layer): probe_of_layer(task, layer, found) for layer in each},
        found.head,
    )


def probe_checkpoint(
    loaded: LoadedBackbone,
    protocol: str,
    data: ProbeData,
    *,
    cache_folder: str | os.PathLike[str] | None = None,
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    image_size: int | None = None,
    layers: Layers = (),
    device: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    workers: int | None = None,
) -> ProbeOutcome:
    """:func:`run_protocol` for a loaded checkpoint; its features are cached by what it is.

    Args:
        loaded: from ``load_backbone(..., image_size=PROTOCOLS[protocol].image_size)``.
        protocol: as in :func:`run_protocol`.
        data: as in :func:`run_protocol`.
        cache_folder: where features are kept between calls.
        seeds: as in :func:`run_protocol`.
        steps: optimizer steps in place of the published number.
        image_size: side of what the backbone sees in place of the published one.
        layers: as in :func:`run_protocol`.
        device: as in :func:`run_protocol`.
        batch_size: as in :func:`run_protocol`.
        precision: as in :func:`run_protocol`.
        workers: as in :func:`run_protocol`.

    Raises:
        InputError: as :func:`run_protocol`; a protocol without steps cannot be shortened.
        DataError: as :func:`run_protocol`.
    """
    changes = {"steps": steps, "image_size": image_size}
    return run_protocol(
        protocol,
        loaded.backbone,
        data,
        seeds=seeds,
        changes={name: value for name, value in changes.items() if value is not None},
        layers=layers,
        cache=FeatureCache(cache_folder),
        identity=identity_of(loaded),
        device=device,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
    )


def identity_of(loaded: LoadedBackbone) -> dict[str, Any]:
    """What a loaded checkpoint's features depend on besides the images, in plain values."""
    return {
        "sha256": loaded.sha256,
        "format": loaded.format,
        "architecture": loaded.architecture,
        "options": dict(loaded.options),
        "weights": loaded.coverage.weights,
        "mean": list(loaded.backbone.mean),
        "std": list(loaded.backbone.std),
    }


def _settings(
    row: ProbeProtocol, data: ProbeData, seeds: tuple[int, ...], precision: str
) -> dict[str, Any]:
    return {
        **row.to_json(),
        "seeds": list(seeds),
        "precision": precision,
        "data": {"name": data.name, **data.fingerprints, **_drawn(data), **_variant(data)},
    }


def _variant(data: ProbeData) -> dict[str, Any]:
    """Folds or few labels, where either was asked for."""
    if data.folds:
        return {"folds": max(data.folds) + 1}
    return {} if data.labels is None else {"labels": data.labels}


def _drawn(data: ProbeData) -> dict[str, Any]:
    """How flat folders were split, where they were."""
    halves = [getattr(half, "drawn", None) or {} for half in (data.train, data.test)]
    split = {**halves[0], **halves[1]}
    return {"split": split} if split else {}


def _check(
    row: ProbeProtocol,
    backbone: Backbone,
    data: ProbeData,
    seeds: tuple[int, ...],
    precision: str,
) -> None:
    if data.task != row.task:
        raise InputError(
            f"protocol {row.name} is for {row.task}, this data is for {data.task}: choose another"
        )
    if backbone.image_size != row.image_size:
        raise InputError(
            f"protocol {row.name} shows the backbone {row.image_size} pixels, it was loaded for "
            f"{backbone.image_size}: load it with image_size={row.image_size}"
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {list(seeds)} are impossible: at least one, and none twice")
    if precision not in PRECISIONS:
        raise InputError(f"no precision {precision!r}: use {' or '.join(PRECISIONS)}")


def _seeds(row: ProbeProtocol, data: ProbeData, seeds: Sequence[int] | None) -> tuple[int, ...]:
    return default_seeds(row, data.labels) if seeds is None else tuple(seeds)


def _images(found: EngineResult, data: ProbeData) -> Mapping[str, Any]:
    if not found.counts or not isinstance(data.test, SegmentationSet):
        return {}
    return ProbedImages(data.test.names, data.test.blocks, data.folds, found.counts).to_json()


def _change_notes(row: ProbeProtocol) -> list[str]:
    return [
        f"{name} is {used} where {row.name} has {published}: this value does not compare with "
        "those of the unchanged protocol"
        for name, (published, used) in row.changes.items()
        if not (row.any_size and name in ("image_size", "label_size"))
    ]


def _note(details: Mapping[str, Any]) -> list[str]:
    return [details["note"]] if "note" in details else []
