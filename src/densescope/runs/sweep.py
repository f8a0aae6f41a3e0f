"""Score every checkpoint of a run: resumable, one record at once, the broken ones named."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from densescope.errors import DataError, DensescopeError
from densescope.evaluation.scoring import (
    PREVIEW_IMAGES,
    BackboneScore,
    ScoreSettings,
    ScoringImages,
    prepare_images,
    score_backbone,
)
from densescope.features.backbones import (
    LoadedBackbone,
    check_architecture,
    load_backbone,
    size_of,
)
from densescope.features.checkpoints import files_of, fingerprint
from densescope.features.discovery import find_checkpoints, number_of
from densescope.features.extraction import resolve_device
from densescope.features.formats import find_format
from densescope.features.images import ImageSubset, draw_subset, open_images
from densescope.records import ScoreRecord, plain
from densescope.runs.environment import device_name, versions
from densescope.runs.store import PLACE, RunStore


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


@dataclass(frozen=True)
class Compute:
    """Where and how the work is done; none of it changes what a number means.

    Attributes:
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or any torch device.
        batch_size: images per forward pass.
        workers: threads that decode images.
    """

    device: str = "auto"
    batch_size: int = 64
    workers: int = 4


def sweep(
    run_folder: Path | str,
    *,
    images: Path | str,
    output: Path | str,
    format: str,
    architecture: str | None = None,
    architecture_options: Mapping[str, Any] | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    loader: Path | str | None = None,
    images_count: int = 2048,
    settings: ScoreSettings | None = None,
    compute: Compute | None = None,
    on_event: Callable[[SweepEvent], None] | None = None,
) -> list[ScoreRecord]:
    """Score every checkpoint in a folder and keep one record of each in ``output``.

    A checkpoint whose record is there and whose file has not changed is not scored again, so
    a second call goes on where a first one was stopped and takes up new checkpoints. A
    checkpoint that cannot be scored gets a record with status ``"failed"`` and its reason, is
    tried again by the next call, and does not stop the others.

    Args:
        run_folder: the folder of checkpoints.
        images: a folder of images, tar shards or a Hugging Face image set on disk.
        output: folder for the records; made when missing.
        format: row of ``FORMATS`` (``densescope formats`` lists them).
        architecture: timm model name; the row's own by default.
        architecture_options: options of that model, e.g. ``{"img_size": 64, "patch_size": 8}``.
        weights: which of the file's networks; the row's first by default.
        image_size: pixels; the size the backbone was trained at by default.
        loader: a Python file with ``load_backbone``, for ``format="custom"``.
        images_count: size of the fixed subset of images, drawn with ``settings.seed``.
        settings: what the numbers depend on.
        compute: device, batch size and threads.
        on_event: called with a :class:`SweepEvent` as the work goes on.

    Returns:
        The records of the folder's checkpoints in order of step, old and new ones.

    Raises:
        DataError: no checkpoint in the folder, or the images cannot be read.
        CheckpointError: an unknown format or architecture.
        RecordError: ``output`` holds a run made with other settings.
    """
    spec = BackboneSpec(
        format=format,
        architecture=architecture,
        architecture_options=architecture_options or {},
        weights=weights,
        image_size=image_size,
        loader=None if loader is None else Path(loader),
    )
    return sweep_run(
        run_folder,
        images=images,
        output=output,
        spec=spec,
        images_count=images_count,
        settings=settings,
        compute=compute,
        on_event=on_event,
    )


def sweep_run(
    run_folder: Path | str,
    *,
    images: Path | str,
    output: Path | str,
    spec: BackboneSpec,
    images_count: int = 2048,
    settings: ScoreSettings | None = None,
    compute: Compute | None = None,
    on_event: Callable[[SweepEvent], None] | None = None,
) -> list[ScoreRecord]:
    """:func:`sweep` with the backbone's options in one object."""
    settings = settings or ScoreSettings()
    folder, compute = Path(run_folder), compute or Compute()
    report = on_event or (lambda event: None)
    check_architecture(
        format=spec.format, architecture=spec.architecture, options=spec.architecture_options
    )
    checkpoints = find_checkpoints(folder, spec.format)
    subset = draw_subset(open_images(images), images_count, settings.seed)
    store = RunStore(Path(output))
    store.open(plain({**manifest(spec, subset, settings), PLACE: str(folder.resolve())}))
    scorer = CheckpointScorer(spec, subset, settings, compute, store)
    records, total = [], len(checkpoints)
    report(SweepEvent("start", "", 0, total))
    for index, (path, step) in enumerate(checkpoints):
        name = path.relative_to(folder).as_posix()
        record = store.record(name)
        if record is not None and is_current(record, path):
            report(SweepEvent("kept", name, index + 1, total, record))
        else:
            report(SweepEvent("scoring", name, index, total))
            record = scorer.score(path, name, step)
            store.write(record)
            report(SweepEvent(record.status, name, index + 1, total, record))
        records.append(record)
    return records


def score_checkpoint(
    path: Path | str,
    *,
    images: Path | str,
    spec: BackboneSpec,
    images_count: int = 2048,
    settings: ScoreSettings | None = None,
    compute: Compute | None = None,
) -> ScoreRecord:
    """Score one checkpoint file; the record that :func:`sweep` would write for it.

    Raises:
        CheckpointError: the file cannot be read, or does not fit its format or architecture.
        DataError: the images cannot be read.
        InputError: features that cannot be scored.
    """
    settings, path = settings or ScoreSettings(), Path(path)
    subset = draw_subset(open_images(images), images_count, settings.seed)
    scorer = CheckpointScorer(spec, subset, settings, compute or Compute(), None)
    step = number_of(path, find_format(spec.format))
    return scorer.score_or_raise(path, path.name, 0 if step is None else step)


def manifest(spec: BackboneSpec, subset: ImageSubset, settings: ScoreSettings) -> dict[str, Any]:
    """What all records of a run share; a run folder refuses to go on with another one."""
    return {
        "backbone": spec.to_json(),
        "images": {
            "source": subset.source.location,
            "seed": subset.seed,
            "count": len(subset),
            "fingerprint": subset.fingerprint,
        },
        "settings": settings.to_json(),
    }


def is_current(record: ScoreRecord, path: Path) -> bool:
    """Whether a record still speaks of the file as it is now.

    Size and time of change decide; where only the time differs (a copied folder), the hash.
    """
    if record.status != "scored":
        return False
    stored = record.timing.get("checkpoint_modified")
    if record.checkpoint.get("bytes") != size_of(path):
        return False
    return bool(stored == modified(path) or record.checkpoint.get("sha256") == fingerprint(path))


class CheckpointScorer:
    """Scores checkpoint files of one run on images decoded once.

    Attributes:
        spec: how a file becomes a backbone.
        subset: the run's fixed images.
        settings: what the numbers depend on.
        compute: device, batch size and threads.
        store: takes previews of a few images, or ``None``.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        subset: ImageSubset,
        settings: ScoreSettings,
        compute: Compute,
        store: RunStore | None,
    ) -> None:
        self.spec = spec
        self.subset = subset
        self.settings = settings
        self.compute = compute
        self.store = store
        self._images: dict[int, ScoringImages] = {}

    def score(self, path: Path, name: str, step: int) -> ScoreRecord:
        """The record of one checkpoint; one that cannot be scored gets a failed record.

        Raises:
            DataError: the images cannot be read, which no other checkpoint would mend.
        """
        try:
            return self.score_or_raise(path, name, step)
        except DataError:
            raise
        except DensescopeError as error:
            reason = str(error)
        except Exception as error:  # the rest of the run must go on; the reason is recorded
            reason = f"unexpected {type(error).__name__}: {error}"
        unit = find_format(self.spec.format).unit
        provenance = self._provenance(None)
        return ScoreRecord(name, step, unit, "failed", reason, provenance=provenance)

    def score_or_raise(self, path: Path, name: str, step: int) -> ScoreRecord:
        """Like :meth:`score`, but lets every error through."""
        started = time.perf_counter()
        changed = modified(path)
        loaded = self.spec.load(path)
        loaded_after = time.perf_counter() - started
        images = self._prepare(loaded.backbone.image_size)
        score = score_backbone(
            loaded.backbone,
            images,
            self.settings,
            batch_size=self.compute.batch_size,
            device=self.compute.device,
        )
        self._keep_preview(name, images, score)
        return ScoreRecord(
            name=name,
            step=step,
            unit=find_format(self.spec.format).unit,
            scores=score.scores,
            checkpoint=plain(loaded.to_json()),
            provenance={**self._provenance(loaded.backbone.image_size), "grid": list(score.grid)},
            timing={
                "checkpoint_modified": changed,
                "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "load_seconds": round(loaded_after, 3),
                **{f"{stage}_seconds": round(value, 3) for stage, value in score.seconds.items()},
            },
        )

    def _prepare(self, image_size: int) -> ScoringImages:
        if image_size not in self._images:
            self._images[image_size] = prepare_images(
                self.subset, image_size, self.settings, workers=self.compute.workers
            )
        return self._images[image_size]

    def _keep_preview(self, name: str, images: ScoringImages, score: BackboneScore) -> None:
        if self.store is None:
            return
        if self.store.preview("images") is None:
            self.store.write_preview("images", {"images": images.pixels[:PREVIEW_IMAGES]})
        patches = score.preview[:PREVIEW_IMAGES].to(torch.float16)
        self.store.write_preview(name, {"patches": patches})

    def _provenance(self, image_size: int | None) -> dict[str, Any]:
        provenance = {
            **manifest(self.spec, self.subset, self.settings),
            "image_size": image_size,
            "device": device_name(resolve_device(self.compute.device)),
            "versions": versions(),
        }
        return dict(plain(provenance))


def modified(path: Path) -> int:
    """When a checkpoint was last changed, in nanoseconds; of several files, the youngest."""
    return max(item.stat().st_mtime_ns for item in files_of(path))
