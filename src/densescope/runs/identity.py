"""Whether records still speak of the files in a run's folder, and the positions they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from densescope.errors import DensescopeError, RecordError
from densescope.features.backbones import load_backbone
from densescope.features.checkpoints import size_of
from densescope.features.discovery import RunCheckpoint
from densescope.features.layouts import listing
from densescope.features.names import PLAIN, counts_steps
from densescope.features.spec import BackboneSpec
from densescope.records import ScoreRecord
from densescope.runs.differences import FINGERPRINT
from densescope.runs.prefetch import checkpoint_modified
from densescope.runs.store import RunStore


def is_current(record: ScoreRecord, path: Path, spec: BackboneSpec) -> bool:
    """Whether a record still speaks of the checkpoint as it is now.

    Size and time of change decide; where they differ (a copied folder, a file that lost its
    optimizer), the backbone is read and its hash compared. A record whose hash is of the whole
    file, as they were before, is of no use beside later ones.
    """
    if not _is_comparable(record):
        return False
    return _is_seen(record, path) or has_same_hash(record, path, spec)


def is_of_run(record: ScoreRecord, manifest: Mapping[str, Any]) -> bool:
    """Whether a record was made with the images and settings of a run, as far as it says so.

    A record that somebody copied into the folder may be of another run.
    """
    made = record.provenance
    images, settings = made.get("images", {}), made.get("settings")
    of_images = images.get(FINGERPRINT) if isinstance(images, Mapping) else None
    return of_images in (None, manifest["images"][FINGERPRINT]) and settings in (
        None,
        manifest["settings"],
    )


def has_same_hash(record: ScoreRecord, path: Path, spec: BackboneSpec) -> bool:
    """Whether the weights of a checkpoint are those that were scored, whatever its file says."""
    try:
        return bool(record.checkpoint.get("sha256") == load_backbone(path, spec).sha256)
    except DensescopeError:
        return False


def check_files(
    store: RunStore,
    checkpoints: Sequence[RunCheckpoint],
    spec: BackboneSpec,
    *,
    is_moved: bool,
    rescore: bool,
) -> None:
    """Refuse checkpoints whose files are others than those that were scored.

    Args:
        store: holds the records.
        checkpoints: that are to be scored or kept.
        spec: how a file becomes a backbone.
        is_moved: the checkpoints lie elsewhere than when they were scored: then hashes are
            compared whatever sizes and times say.
        rescore: changed files are to be scored again.

    Raises:
        RecordError: files have changed; or, of a run that has moved, none of its names is there.
    """
    scored = [
        (record, one.path)
        for one in checkpoints
        if not one.is_overwritten
        and (record := store.record(one.name)) is not None
        and _is_comparable(record)
    ]
    if is_moved and not scored:
        raise RecordError(
            f"none of the checkpoints that {store.folder} holds the scores of is in the folder: "
            "this is not the same run at another place. Use another --output"
        )
    if rescore and not is_moved:
        return
    changed = []
    for record, path in scored:
        if _is_seen(record, path) and not is_moved:
            continue
        if not has_same_hash(record, path, spec):
            changed.append(record.name)
        elif record.checkpoint.get("bytes") == size_of(path):
            # so that the next check need not read it
            timing = {**record.timing, "checkpoint_modified": checkpoint_modified(path)}
            store.write(replace(record, timing=timing))
    if not changed:
        return
    is_one = len(changed) == 1
    what = "is another file than the one" if is_one else "are other files than those"
    if is_moved:
        raise RecordError(
            f"{listing(changed)} {what} that {'was' if is_one else 'were'} scored: this is not the "
            f"run whose scores {store.folder} holds. Use another --output"
        )
    raise RecordError(
        f"{listing(changed)} {what} that {'was' if is_one else 'were'} scored, and nothing is "
        "scored before it is known whether this is the same run. If it is, for it was restarted "
        "and wrote them again, say --rescore; if it is another one, use another --output"
    )


def _is_seen(record: ScoreRecord, path: Path) -> bool:
    """Whether size and time of change are those of the file that was scored."""
    seen = (record.checkpoint.get("bytes"), record.timing.get("checkpoint_modified"))
    return seen == (size_of(path), checkpoint_modified(path))


def _is_comparable(record: ScoreRecord) -> bool:
    return record.status == "scored" and "hashed" in record.checkpoint


def at_position(record: ScoreRecord, checkpoint: RunCheckpoint) -> ScoreRecord:
    """A record at the position that the checkpoint's name tells.

    A number of which neither the name nor the user says what it counts is taken for what the
    training code counts that writes such names. Where the file's own counter says that far fewer
    epochs have passed (number 10,000, epoch 4), the number counts steps; where no code is known and
    the counter agrees with the number, it counts epochs.
    """
    unit, inside = checkpoint.unit, record.checkpoint.get("epoch_inside")
    if not checkpoint.is_unit_known and isinstance(inside, int):
        if counts_steps(checkpoint.step, inside):
            unit = "step"
        elif unit == PLAIN and inside in (checkpoint.step, checkpoint.step + 1):
            unit = "epoch"
    return replace(record, step=checkpoint.step, unit=unit)


def _shared_unit(records: Sequence[ScoreRecord]) -> str:
    """What the plain numbers of a run count; a failed checkpoint knows nothing of it."""
    units = {r.unit for r in records if r.status == "scored"} or {r.unit for r in records}
    if "step" in units:
        return "step"
    return units.pop() if len(units) == 1 else PLAIN


def renumber(
    store: RunStore, checkpoints: Sequence[RunCheckpoint]
) -> Callable[[ScoreRecord], ScoreRecord]:
    """Bring the positions of a run's records in line with each other; no number changes.

    More names or files may tell more of what all of them count: one that counts steps for sure
    makes the others of its kind steps too. Probes of the checkpoints move with their scores.

    Args:
        store: holds the records.
        checkpoints: of the run, also those whose files are gone.

    Returns:
        A function that puts a record of one of them at its position.
    """
    held = [(one, store.record(one.name)) for one in checkpoints]
    old = [(one, record) for one, record in held if record is not None]
    new = [at_position(record, one) for one, record in old]
    guessed = [record for record, (one, _) in zip(new, old, strict=True) if not one.is_unit_known]
    if guessed:
        unit = _shared_unit(guessed)
        new = [
            record if one.is_unit_known else replace(record, unit=unit)
            for record, (one, _) in zip(new, old, strict=True)
        ]
    moved = {record.name: record for record in new}
    changed = {r.name for r, (_, before) in zip(new, old, strict=True) if r != before}
    for name in changed:
        store.write(moved[name])
    for probe_set, probes in (store.probes() if changed else {}).items():
        for probe in probes:
            if probe.name in changed:
                at = moved[probe.name]
                store.write_probe(probe_set, replace(probe, step=at.step, unit=at.unit))

    def placed(record: ScoreRecord) -> ScoreRecord:
        at = moved.get(record.name, record)
        return replace(record, step=at.step, unit=at.unit)

    return placed
