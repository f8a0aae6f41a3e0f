"""Score every checkpoint of a run: resumable, one record at once, the broken ones named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from types import NoneType

from densescope.errors import InputError
from densescope.features.detection import resolve_spec
from densescope.features.discovery import RunCheckpoint, find_checkpoints, position_of
from densescope.features.folder_remarks import folder_remarks
from densescope.features.formats.row import is_released
from densescope.features.images import draw_subset, open_images
from densescope.features.names import CheckpointNames as CheckpointNames
from densescope.features.spec import BackboneSpec
from densescope.files import Remote, location
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord
from densescope.runs.executors import Executor, InProcess
from densescope.runs.identity import check_files, renumber
from densescope.runs.passes import Sweep, score_pass
from densescope.runs.passes import SweepEvent as SweepEvent
from densescope.runs.race import of_rounds, race_run
from densescope.runs.resolve_spec import resolve_run_spec
from densescope.runs.scorer import CheckpointScorer, Compute
from densescope.runs.store import RunStore
from densescope.selection.race import Race as Race

NO_SHARDS = (
    "a race cannot be run in parts: after every round it is decided over all checkpoints which of "
    "them go on. Leave --shard away, or give --images-count a number"
)


def sweep(
    run_folder: Path | str,
    spec: BackboneSpec,
    *,
    images: Path | str,
    output: Path | str,
    images_count: int | Race = 2048,
    settings: ScoreSettings | None = None,
    compute: Compute | None = None,
    executor: Executor | None = None,
    shard: Shard | None = None,
    names: CheckpointNames | None = None,
    moved: bool = False,
    rescore: bool = False,
    skip_broken_images: bool = False,
    on_event: Callable[[SweepEvent], None] | None = None,
) -> list[ScoreRecord]:
    """Score every checkpoint in a folder and keep one record of each in ``output``.

    A checkpoint whose record is there and whose file has not changed is not scored again, so
    a second call goes on where a first one was stopped and takes up new checkpoints. Where a file
    has changed, or the records are of another folder, nothing is scored: it may be another run. A
    checkpoint that cannot be scored gets a record with status ``"failed"`` and its reason, is tried
    again by the next call, and does not stop the others.

    Args:
        run_folder: the folder of checkpoints.
        spec: how a file becomes a backbone.
        images: a folder of images, tar shards or a Hugging Face image set on disk.
        output: folder for the records; made when missing.
        images_count: size of the fixed subset of images, drawn with ``settings.seed``; or a
            :class:`~densescope.selection.race.Race`, which scores it in rounds and stops
            checkpoints that no longer matter for the choice.
        settings: what the numbers depend on, and which are computed. A record that was scored with
            fewer metrics gets those that it lacks.
        compute: device, batch size and threads.
        executor: where the work is done: :class:`~densescope.runs.executors.InProcess` (the
            default), ``Processes`` or ``Ray``. The numbers are the same up to what the number of
            threads does to their last digits.
        shard: the part of the checkpoints this call scores; all of them by default.
        names: how checkpoints are named; what the format knows of it by default.
        moved: the records are of the same run, whose checkpoints lie elsewhere now; those that were
            scored are compared by their hashes.
        rescore: score checkpoints again whose files have changed since they were scored.
        skip_broken_images: leave images that cannot be decoded out of the draw instead of stopping;
            the next ones take their place, and the records name them.
        on_event: called with a :class:`SweepEvent` as the work goes on.

    Returns:
        The records of the checkpoints in order of step, old and new ones.

    Raises:
        DataError: no checkpoint in the folder, or the images cannot be read.
        CheckpointError: an unknown format or architecture.
        RecordError: ``output`` holds a run made with other settings or of another folder, or files
            that were scored have changed.
        InputError: an argument of another kind, a race in parts, or images or settings that do not
            make one.
        OptionError: layers, an image size or weights that no checkpoint of the run has.
    """
    _check_kinds(
        run_folder=run_folder,
        spec=spec,
        images=images,
        output=output,
        images_count=images_count,
        settings=settings,
        compute=compute,
        executor=executor,
        shard=shard,
        names=names,
    )
    store = RunStore(output)
    store.expect_place(location(run_folder), moved=moved)
    source = open_images(images, skip_broken=skip_broken_images)
    found = resolve_run_spec(location(run_folder), spec, names, store)
    spec = found.spec
    spec.check_architecture()
    run = Sweep(
        location(run_folder),
        spec,
        settings or ScoreSettings(),
        compute or Compute(),
        executor or InProcess(),
        on_event or (lambda event: None),
        moved,
    )
    files = find_checkpoints(run.folder, spec.format, names, gone=store.names())
    files.check_doubles()
    if found.sentence:
        run.report(SweepEvent("note", found.sentence, 0, len(files.checkpoints)))
    for remark in folder_remarks(files, run.folder, spec.row):
        kind = "left out" if remark.is_loss else "note"
        run.report(SweepEvent(kind, remark.text, 0, len(files.checkpoints)))
    races = isinstance(images_count, Race)
    if races and shard is not None and shard.count > 1:
        raise InputError(NO_SHARDS)
    jobs = (shard or Shard()).of(files.checkpoints)
    run = of_rounds(run, images_count) if isinstance(images_count, Race) else run
    run.expect(store, **({} if races else {"race": None}))
    has_moved = store.has_moved(run.folder)
    to_check = files.checkpoints if has_moved else jobs
    check_files(store, to_check, spec, is_moved=has_moved, rescore=rescore)
    if isinstance(images_count, Race):
        records = race_run(run, jobs, source, store, images_count)
    else:
        subset = draw_subset(source, images_count, run.settings.seed)
        run.note_images(subset)
        scored = score_pass(run, jobs, subset, store)
        records = [scored[job.name] for job in jobs]
    placed = renumber(store, (*files.checkpoints, *files.gone))
    return [placed(record) for record in records]


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a run, for jobs that share a folder of records.

    Attributes:
        number: from 1 to ``count``.
        count: how many parts there are.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(
                f"shard {self.number}/{self.count} does not exist; they are numbered from 1/"
                f"{self.count} to {self.count}/{self.count}"
            )

    def of(self, checkpoints: Sequence[RunCheckpoint]) -> Sequence[RunCheckpoint]:
        """Every ``count``-th checkpoint: each part sees the whole length of the run."""
        return checkpoints[self.number - 1 :: self.count]


def score_checkpoint(
    path: Path | str,
    spec: BackboneSpec,
    *,
    images: Path | str,
    images_count: int = 2048,
    settings: ScoreSettings | None = None,
    compute: Compute | None = None,
    skip_broken_images: bool = False,
) -> ScoreRecord:
    """Score one checkpoint file; the record that :func:`sweep` would write for it.

    Raises:
        CheckpointError: the file cannot be read, or does not fit its format or architecture.
        DataError: the images cannot be read.
        InputError: features that cannot be scored.
    """
    _check_kinds(spec=spec, images=images, settings=settings, compute=compute)
    settings, path = settings or ScoreSettings(), location(path)
    source = open_images(images, skip_broken=skip_broken_images)
    spec = resolve_spec(path, spec).spec
    subset = draw_subset(source, images_count, settings.seed)
    with closing(CheckpointScorer(spec, subset, settings, compute or Compute(), None)) as scorer:
        one = position_of(path, spec.row)
        name = str(path) if is_released(path) else path.name
        return scorer.score_or_raise(replace(one, name=name))


_PATHS = (str, os.PathLike, Remote)
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "run_folder": (_PATHS, "the folder of checkpoints"),
    "spec": ((BackboneSpec,), 'BackboneSpec(format="dino")'),
    "images": ((str, os.PathLike), "a folder of images, tar shards or a Hugging Face image set"),
    "output": (_PATHS, "a folder for the records"),
    "images_count": ((Integral, Race), "a number such as 2048, or Race()"),
    "settings": ((ScoreSettings, NoneType), "ScoreSettings(layers=(-1,))"),
    "compute": ((Compute, NoneType), "Compute(batch_size=64)"),
    "executor": ((Executor, NoneType), "Processes(2) or Ray()"),
    "shard": ((Shard, NoneType), "Shard(1, 2) for the first of two parts"),
    "names": ((CheckpointNames, NoneType), "CheckpointNames(recursive=True)"),
}


def _check_kinds(**given: object) -> None:
    """Refuse arguments of kinds that only a later line would stumble over."""
    for name, value in given.items():
        kinds, wanted = _KINDS[name]
        if isinstance(value, type) or not isinstance(value, kinds):
            raise InputError(f"{name} is {value!r}: give {wanted}")
