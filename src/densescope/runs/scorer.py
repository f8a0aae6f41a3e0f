"""Checkpoint files of one run become records, one at a time: what a sweep and a watch share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from densescope.errors import DataError, DensescopeError, DiskError, OptionError
from densescope.evaluation.backbone import (
    PREVIEW_IMAGES,
    BackboneFeatures,
    BackboneScore,
    ScoringImages,
    backbone_features,
    score_features,
)
from densescope.evaluation.prepared import prepare_images
from densescope.features.backbones import load_backbone
from densescope.features.batching import Batching
from densescope.features.discovery import RunCheckpoint
from densescope.features.extraction import resolve_device
from densescope.features.images import ImageSubset
from densescope.features.spec import BackboneSpec
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord, plain
from densescope.runs.environment import device_description, versions
from densescope.runs.extension import extended, missing_metrics
from densescope.runs.identity import at_position, is_of_run
from densescope.runs.prefetch import CheckpointInMemory, load_checkpoint
from densescope.runs.store import RunStore


@dataclass(frozen=True)
class Compute:
    """Where and how the work is done; none of it changes what a number means.

    Attributes:
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or any torch device.
        batch_size: images per forward pass; found out where it is left out, see
            :class:`~densescope.features.batching.Batching`.
        workers: threads that decode images.
        image_cache: folder in which processes and later calls share decoded images; each process
            holds its own in memory by default.
    """

    device: str = "auto"
    batch_size: int | None = None
    workers: int = 4
    image_cache: Path | None = None


def manifest(spec: BackboneSpec, subset: ImageSubset, settings: ScoreSettings) -> dict[str, Any]:
    """What all records of a run share; a run folder refuses to go on with another one."""
    return {
        **without_images(spec, settings),
        "images": {
            "source": subset.source.location,
            "seed": subset.seed,
            "count": len(subset),
            "fingerprint": subset.fingerprint,
            **({"skipped": dict(subset.skipped)} if subset.skipped else {}),
        },
    }


def without_images(spec: BackboneSpec, settings: ScoreSettings) -> dict[str, Any]:
    """The part of a manifest that is known before any image is read."""
    return {"backbone": spec.to_json(), "settings": settings.to_json()}


@dataclass(frozen=True)
class ExtractedCheckpoint:
    """A checkpoint that has been shown the images; its weights are no longer needed.

    Attributes:
        features: what it says of them.
        image_size: pixels of their sides.
        checkpoint: what its record says of the file.
        modified: when the file that was read had last been changed, in nanoseconds.
        batch_size: images per forward pass.
    """

    features: BackboneFeatures
    image_size: int
    checkpoint: Mapping[str, Any]
    modified: int
    batch_size: int | None


class CheckpointScorer:
    """Scores checkpoint files of one run on images decoded once; to be closed in the end.

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
        self._batching = Batching(compute.batch_size)
        self._images: dict[int, ScoringImages] = {}

    def read(self, path: Path) -> CheckpointInMemory:
        """One checkpoint in memory."""
        return load_checkpoint(path, lambda path: load_backbone(path, self.spec))

    def prepare(self) -> None:
        """Begin to decode the images where their size is known before any checkpoint is read."""
        if self.spec.image_size is not None:
            self._prepare(self.spec.image_size)

    def close(self) -> None:
        """Decode no further images; a checkpoint that is being shown them stops."""
        for images in self._images.values():
            images.close()

    def extract(
        self, path: Path, read: Callable[[], CheckpointInMemory] | None = None
    ) -> ExtractedCheckpoint:
        """Show the images to one checkpoint.

        Args:
            path: of the checkpoint.
            read: gives it where something else reads it.

        Raises:
            CheckpointError: it cannot be read.
            InputError: its features are NaN, infinite or misshapen.
            DataError: an image cannot be read.
        """
        checkpoint = self.read(path) if read is None else read()
        loaded = checkpoint.loaded
        began = time.perf_counter()
        images = self._prepare(loaded.backbone.image_size)
        prepared = time.perf_counter() - began
        features = backbone_features(
            loaded.backbone,
            images,
            self.settings,
            batch_size=self._batching,
            device=self.compute.device,
        )
        seconds = {"load": checkpoint.seconds, "images": 0.0, **features.seconds}
        seconds["images"] += prepared
        return ExtractedCheckpoint(
            replace(features, seconds=seconds),
            loaded.backbone.image_size,
            plain(loaded.to_json()),
            checkpoint.modified,
            self._batching.size,
        )

    def score(
        self, checkpoint: RunCheckpoint, extracted: Callable[[], ExtractedCheckpoint] | None = None
    ) -> ScoreRecord:
        """The record of one checkpoint; one that cannot be scored gets a failed record.

        Args:
            checkpoint: its file, and its name and position in the record.
            extracted: gives what :meth:`extract` makes of it where that is done elsewhere.

        Raises:
            DataError: the images cannot be read, which no other checkpoint would mend.
            DiskError: the disk takes no more, which is no checkpoint's fault either.
            OptionError: an option fits no checkpoint of the run.
        """
        try:
            return self.score_or_raise(checkpoint, extracted)
        except (DataError, DiskError):
            raise
        except Exception as error:  # the rest of the run must go on; the reason is recorded
            self.refuse_option(error)
            return self.failed(checkpoint, error)

    def refuse_option(self, error: Exception) -> None:
        """Stop at the first checkpoint where the reason is an option, which all of a run share.

        Once one was scored, the option fits the run, and the checkpoint is another network.

        Raises:
            OptionError: the same reason.
        """
        of_option = isinstance(error, DensescopeError) and error.is_of_option
        if of_option and not (self.store is not None and self.store.anything_scored()):
            raise OptionError(str(error)) from error

    def failed(self, checkpoint: RunCheckpoint, error: Exception) -> ScoreRecord:
        """The record of a checkpoint that could not be scored."""
        reason = str(error)
        if not isinstance(error, DensescopeError):
            reason = f"unexpected {type(error).__name__}: {error}"
        return ScoreRecord(
            name=checkpoint.name,
            step=checkpoint.step,
            unit=checkpoint.unit,
            status="failed",
            error=reason,
            provenance=self._provenance(None),
        )

    def score_or_raise(
        self, checkpoint: RunCheckpoint, extracted: Callable[[], ExtractedCheckpoint] | None = None
    ) -> ScoreRecord:
        """Like :meth:`score`, but lets every error through."""
        extracted_checkpoint = self.extract(checkpoint.path) if extracted is None else extracted()
        held = self._held(checkpoint.name, extracted_checkpoint.checkpoint)
        missing = () if held is None else missing_metrics(held, self.settings)
        settings = replace(self.settings, metrics=missing or self.settings.stored)
        score = score_features(extracted_checkpoint.features, settings, device=self.compute.device)
        self._keep_preview(checkpoint.name, self._images[extracted_checkpoint.image_size], score)
        record = ScoreRecord(
            name=checkpoint.name,
            step=checkpoint.step,
            scores=score.scores,
            checkpoint=extracted_checkpoint.checkpoint,
            provenance={
                **self._provenance(extracted_checkpoint.image_size),
                "grid": list(score.grid),
                "shapes": plain(score.shapes),
            },
            timing={
                "checkpoint_modified": extracted_checkpoint.modified,
                "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "batch_size": extracted_checkpoint.batch_size,
                **{f"{stage}_seconds": round(value, 3) for stage, value in score.seconds.items()},
            },
        )
        return at_position(extended(held, record, settings.stored), checkpoint)

    def _held(self, name: str, checkpoint: Mapping[str, Any]) -> ScoreRecord | None:
        """The record of the same weights, images and settings, if there is one."""
        record = None if self.store is None else self.store.record(name)
        if record is None or record.status != "scored":
            return None
        made = plain(manifest(self.spec, self.subset, self.settings))
        same = record.checkpoint.get("sha256") == checkpoint.get("sha256")
        return record if same and is_of_run(record, made) else None

    def _prepare(self, image_size: int) -> ScoringImages:
        if image_size not in self._images:
            self._images[image_size] = prepare_images(
                self.subset,
                image_size,
                self.settings,
                workers=self.compute.workers,
                folder=self.compute.image_cache,
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
            "device": device_description(resolve_device(self.compute.device)),
            "versions": versions(),
        }
        return dict(plain(provenance))
