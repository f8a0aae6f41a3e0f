"""Positions of a run's records: what the numbers in names count, once the files have been read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from densescope.features.discovery import RunCheckpoint
from densescope.features.names import counts_steps
from densescope.records import ScoreRecord
from densescope.runs.store import RunStore


def at_position(record: ScoreRecord, checkpoint: RunCheckpoint) -> ScoreRecord:
    """A record at the position that the checkpoint's name tells.

    A number of which neither the name nor the user says what it counts is taken for what the format
    counts. Where that is epochs, and the file's own counter says that far fewer have passed
    (number 10,000, epoch 4), the number counts steps.
    """
    unit, inside = checkpoint.unit, record.checkpoint.get("epoch_inside")
    if not checkpoint.is_unit_known and isinstance(inside, int):
        unit = "step" if counts_steps(checkpoint.step, inside) else unit
    return replace(record, step=checkpoint.step, unit=unit)


def renumber(
    store: RunStore, checkpoints: Sequence[RunCheckpoint]
) -> Callable[[ScoreRecord], ScoreRecord]:
    """Bring the positions of a run's records in line with each other; no number changes.

    More names or files may tell more of what all of them count: one that counts steps for sure
    makes the others of its kind steps too.

    Args:
        store: holds the records.
        checkpoints: of the run, also those whose files are gone.

    Returns:
        A function that puts a record of one of them at its position.
    """
    held = [(one, store.record(one.name)) for one in checkpoints]
    old = [(one, record) for one, record in held if record is not None]
    new = [at_position(record, one) for one, record in old]
    if any(record.unit == "step" for record in new):
        new = [
            record if one.is_unit_known else replace(record, unit="step")
            for record, (one, _) in zip(new, old, strict=True)
        ]
    for record, (_, before) in zip(new, old, strict=True):
        if record != before:
            store.write(record)
    moved = {record.name: record for record in new}

    def placed(record: ScoreRecord) -> ScoreRecord:
        at = moved.get(record.name, record)
        return replace(record, step=at.step, unit=at.unit)

    return placed
