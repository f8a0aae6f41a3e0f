"""Probe the checkpoints of a scored run with labels: resumable, one record at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from densescope.errors import (
    DataError,
    DensescopeError,
    DiskError,
    OptionError,
    RecordError,
)
from densescope.evaluation.backbone import PREVIEW_IMAGES
from densescope.evaluation.datasets import SegmentationSet, decode_split
from densescope.evaluation.probes import (
    ProbeData,
    ProbeOutcome,
    find_protocol,
    probe_checkpoint,
    protocol_settings,
)
from densescope.evaluation.probes.patch_head import PatchHead
from densescope.evaluation.probes.predict import predict_masks
from densescope.evaluation.probes.repeated import check_label_count
from densescope.features.backbones import load_backbone
from densescope.features.detection import resolve_spec
from densescope.features.extraction import resolve_device
from densescope.features.formats.descriptions import sweep_command
from densescope.features.loaded import LoadedBackbone
from densescope.features.spec import BackboneSpec
from densescope.files import location
from densescope.layers import Layers, resolve_layers
from densescope.records import ProbeRecord, ScoreRecord, plain
from densescope.runs.environment import device_description, versions
from densescope.runs.identity import is_current
from densescope.runs.labels import FOLDERS, LabelledData
from densescope.runs.scorer import Compute
from densescope.runs.store import LIVE, RunStore
from densescope.runs.sweep import SweepEvent
from densescope.selection.asked import ALL, SHORTLIST, asked_for

CHANGED = (
    "{path} is another file than the one that was scored: sweep its folder again, with --rescore "
    "if it is still a checkpoint of this run"
)


@dataclass(frozen=True)
class ProbeRequest:
    """What is asked of every checkpoint.

    Attributes:
        protocol: row of ``PROTOCOLS``.
        seeds: of the probe; the row's by default.
        steps: optimizer steps in place of the published number.
        image_size: pixels the backbone sees in place of the published number. By default a
            protocol of ``any_size`` takes the size of the model: that of the sweep, or of the file.
        cache_folder: where features are kept between calls; nowhere by default.
        layers: layers that are probed one by one, beside those that the protocol reads.
    """

    protocol: str = "linear"
    seeds: tuple[int, ...] | None = None
    steps: int | None = None
    image_size: int | None = None
    cache_folder: Path | None = None
    layers: Layers = ()

    @property
    def pixels(self) -> int:
        """Side of the images the backbone sees."""
        return self.image_size or find_protocol(self.protocol).image_size

    def at_size_of(self, own: int | None) -> ProbeRequest:
        """The same at a model's own size, where that is known and the protocol leaves it open."""
        is_open = self.image_size is None and find_protocol(self.protocol).any_size
        return replace(self, image_size=own) if is_open and own not in (None, self.pixels) else self

    @property
    def changes(self) -> dict[str, Any]:
        """Numbers in place of the protocol's."""
        asked = {"steps": self.steps, "image_size": self.image_size}
        return {name: value for name, value in asked.items() if value is not None}

    def probe_set(self, dataset: str) -> str:
        """Folder of the records; changed numbers have a probe_set of their own."""
        changed = "".join(f"-{name}{value}" for name, value in self.changes.items())
        return f"{dataset}-{self.protocol}{changed}".replace("_", "-")


def probe_file(
    path: Path | str,
    spec: BackboneSpec,
    data: LabelledData,
    request: ProbeRequest,
    *,
    compute: Compute | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> ProbeOutcome:
    """Probe one checkpoint file; ``say`` is told what is about to be done, before it takes time.

    Raises:
        CheckpointError: the file cannot be read, or does not fit its format.
        DataError: the labelled images cannot be read.
        InputError: no such protocol, or data and numbers do not fit it.
    """
    path = location(path)
    found = resolve_spec(path, spec)
    if found.sentence:
        say(found.sentence)
    spec, opened = found.spec, _open(data, request, say)
    loaded = load_backbone(path, spec)
    own = loaded.backbone.image_size
    request = request.at_size_of(own)
    say(_words(path.name, opened, request, own))
    if own != request.pixels:
        loaded = load_backbone(path, replace(spec, image_size=request.pixels))
    return _probe(loaded, opened, request, compute or Compute())


def probe_run(
    output: Path | str,
    data: LabelledData,
    request: ProbeRequest,
    *,
    only: str = ALL,
    compute: Compute | None = None,
    on_event: Callable[[SweepEvent], None] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> list[ProbeRecord]:
    """Add a probe to every scored checkpoint of a run, to its shortlist, or to some by name.

    A checkpoint whose record is there, made of the same file with the same settings, is not
    probed again. One that cannot be probed gets a record with status ``"failed"`` and its
    reason, is tried again by the next call, and does not stop the others.

    Args:
        output: the folder a sweep wrote.
        data: where labels come from.
        request: the protocol and what is changed in it.
        only: ``"all"``, ``"shortlist"`` (that of DSE and the last checkpoint), ``"every-4"`` (each
            fourth, counted back from the last), or names or steps with commas between them.
        compute: device, batch size and threads.
        on_event: called as the work goes on.
        say: told in sentences what is about to be done, before it takes time.

    Returns:
        The records in order of step, old and new ones.

    Raises:
        RecordError: the folder holds no scored run, or its checkpoints have moved, or none has
            such a name or step.
        DataError: the labelled images cannot be read.
        InputError: no such protocol, or data and numbers do not fit it.
    """
    store, compute = RunStore(output), compute or Compute()
    store.tidy()
    report = on_event or (lambda event: None)
    spec = spec_of(store)
    found = [record for record in store.records() if record.status == "scored"]
    if not found:
        raise RecordError(f"no checkpoint in {store.folder} was scored; there is none to probe")
    scored = asked_for(found, only)
    own = scored[0].provenance.get("image_size")
    request = request.at_size_of(own)
    opened = _open(data, request, say)
    settings = protocol_settings(
        request.protocol, opened, seeds=request.seeds, changes=request.changes
    )
    probe_set = request.probe_set(data.dataset + opened.variant)
    records, total = [], len(scored)
    kept = {
        score.name: record
        for score in scored
        if (record := store.probe(probe_set, score.name))
        and _is_current(record, score, settings)
        and _has_layers(record, request.layers)
    }
    if len(kept) < total:
        which = f"checkpoints{' (the shortlist and the last)' if only == SHORTLIST else ''}"
        say(_words(f"{total - len(kept)} of {total} {which}", opened, request, own))
    report(SweepEvent("start", "", 0, total))
    for index, score in enumerate(scored):
        record = kept.get(score.name)
        if record is not None:
            report(SweepEvent("kept", score.name, index + 1, total))
        else:
            report(SweepEvent("probing", score.name, index, total))
            record = _record(store, score, spec, opened, request, compute)
            store.write_probe(probe_set, record)
            report(SweepEvent(record.status, score.name, index + 1, total, record))
        records.append(record)
    return records


def spec_of(store: RunStore) -> BackboneSpec:
    """How the checkpoints of a run were loaded when they were scored.

    Raises:
        RecordError: the folder holds no run, or one of a model that was in no file.
    """
    stored = store.manifest()["backbone"]
    if stored["format"] == LIVE:
        raise RecordError(
            f"{store.folder} holds what a monitor saw of a model in training: there are numbers, "
            "but no weights to probe. Score the checkpoints of that run, then probe SCORES: "
            f"{sweep_command()}"
        )
    return BackboneSpec(**stored)


def _open(data: LabelledData, request: ProbeRequest, say: Callable[[str], None]) -> ProbeData:
    task = find_protocol(request.protocol).task
    say(f"reading the images and labels of {data.dataset}")
    opened = data.open(task)
    if opened.labels is not None:
        check_label_count(opened.labels, len(opened.train))
    if data.dataset == FOLDERS:
        for note in opened.notes:  # of a data set of the user's own nothing is known beforehand
            say(note)
    return opened


def _words(what: str, data: ProbeData, request: ProbeRequest, own: int | None) -> str:
    train, test = f"{len(data.train):,} training", f"{len(data.test):,} test images"
    if data.labels is not None:
        train = f"{data.labels} of {train}"
    images = f"{train} and {test}"
    if data.folds:
        images = f"{len(data.train):,} images in {max(data.folds) + 1} folds"
    at = f"{images} at {request.pixels} pixels"
    said = f"probing {what} on {data.name} ({request.protocol}): {at}"
    if request.image_size is not None or own in (None, request.pixels):
        return said
    return f"{said}, as the protocol has it; the model's own size is --probe-size {own}"


def _is_current(record: ProbeRecord, score: ScoreRecord, settings: dict[str, Any]) -> bool:
    return (
        record.status == "probed"
        and all(
            record.checkpoint.get(key) == score.checkpoint.get(key)
            for key in ("sha256", "normalization")
        )
        and record.provenance.get("settings") == plain(settings)
    )


def _has_layers(record: ProbeRecord, layers: Layers) -> bool:
    """Whether all layers that are asked for were probed."""
    depth = (record.checkpoint.get("network") or {}).get("depth")
    return {str(layer) for layer in resolve_layers(layers, depth)} <= set(record.layers)


def _probe(
    loaded: LoadedBackbone, data: ProbeData, request: ProbeRequest, compute: Compute
) -> ProbeOutcome:
    return probe_checkpoint(
        loaded,
        request.protocol,
        data,
        cache_folder=request.cache_folder,
        seeds=request.seeds,
        steps=request.steps,
        image_size=request.image_size,
        layers=request.layers,
        device=compute.device,
        batch_size=compute.batch_size,
        workers=compute.workers,
    )


def _keep_masks(
    store: RunStore,
    probe_set: str,
    name: str,
    loaded: LoadedBackbone,
    outcome: ProbeOutcome,
    data: ProbeData,
) -> None:
    """What the probe sees in a few test images, for the report; a reader that can draw only."""
    if not isinstance(outcome.head, PatchHead) or not isinstance(data.test, SegmentationSet):
        return
    few = data.test.subset(range(min(PREVIEW_IMAGES, len(data.test))))
    size = loaded.backbone.image_size
    images, truth = decode_split(few, image_size=size, resize=outcome.settings["resize"])
    if store.preview(f"{probe_set}/truth") is None:
        store.write_preview(f"{probe_set}/truth", {"images": images, "truth": truth})
    predicted = predict_masks(outcome.head, loaded.backbone, images, device="cpu")
    store.write_preview(f"{probe_set}/{name}", {"predicted": predicted.to(torch.uint8)})


def _record(
    store: RunStore,
    score: ScoreRecord,
    spec: BackboneSpec,
    data: ProbeData,
    request: ProbeRequest,
    compute: Compute,
) -> ProbeRecord:
    row = find_protocol(request.protocol)
    blank = ProbeRecord(score.name, score.step, score.unit, row.name, data.name, row.measure)
    path = store.checkpoint_path(score.name)
    if not is_current(score, path, spec):
        return replace(blank, status="failed", error=CHANGED.format(path=path))
    started = time.perf_counter()
    try:
        loaded = load_backbone(path, replace(spec, image_size=request.pixels))
        outcome = _probe(loaded, data, request, compute)
    except (DataError, DiskError):
        raise
    except DensescopeError as error:
        if error.is_of_option:  # all checkpoints of the run share it
            raise OptionError(str(error)) from error
        return replace(blank, status="failed", error=str(error))
    except Exception as error:  # the rest of the run must go on; the reason is recorded
        return replace(blank, status="failed", error=f"unexpected {type(error).__name__}: {error}")
    _keep_masks(
        store, request.probe_set(data.name + data.variant), score.name, loaded, outcome, data
    )
    device = device_description(resolve_device(compute.device))
    return replace(
        blank,
        values=outcome.values,
        details={**outcome.details, "classes": list(outcome.classes)},
        images=outcome.images,
        layers=plain(outcome.layers),
        checkpoint=plain(loaded.to_json()),
        provenance=plain({"settings": outcome.settings, "versions": versions(), "device": device}),
        timing={
            "probe_seconds": round(time.perf_counter() - started, 3),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
