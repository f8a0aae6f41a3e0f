"""The training loss of each checkpoint, from the log that the training code wrote."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densescope.errors import RecordError
from densescope.records import ProbeRecord, ScoreRecord

LOSS_NAMES = (
    "train_loss",
    "train_total_loss",
    "train_loss_epoch",
    "train/loss",
    "total_loss",
    "loss",
    "train_loss_step",
)
POSITION_NAMES = ("epoch", "step", "global_step", "iteration", "iter", "itr")


def read_losses(
    path: Path | str,
    *,
    loss: str | None = None,
    position: str | None = None,
    unit: str = "epoch",
) -> dict[int, float]:
    """Read ``position -> training loss`` from a log.

    Two layouts: one JSON object a line, as the ``log.txt`` of DINO, iBOT and MAE or the
    ``stats.txt`` of Barlow Twins and VICReg; or CSV with a header, as I-JEPA and Lightning write.
    Rows that lack a position or a loss, or whose loss is not finite, are passed over; several rows
    of one position in a row are averaged. Where a position comes back later, after a run was
    resumed, the later rows replace the earlier.

    Args:
        path: the log.
        loss: name of the loss; by default the first of ``LOSS_NAMES`` that is there.
        position: name of the epoch or step; by default the first of ``POSITION_NAMES``.
        unit: what the checkpoints count: with ``"step"``, steps are looked for before epochs.

    Returns:
        By position, rising.

    Raises:
        RecordError: the log cannot be read, or holds no such columns or no finite loss.
    """
    path = Path(path)
    rows = _rows(path)
    names = list(dict.fromkeys(name for row in rows for name in row))
    known = sorted(POSITION_NAMES, key=lambda name: (name == "epoch") != (unit != "step"))
    where = _column(path, names, "position", position, known)
    what = _column(path, names, "loss", loss, LOSS_NAMES)
    found: dict[int, list[float]] = {}
    previous: int | None = None
    for row in rows:
        value, place = _number(row.get(what)), _number(row.get(where))
        if value is None or place is None:
            continue
        if place != int(place):
            raise RecordError(
                f"{path} has {where} {place:g}, which is not whole; name the column of steps "
                "with position=..."
            )
        if int(place) != previous:
            found[int(place)] = []
        found[int(place)].append(value)
        previous = int(place)
    if not found:
        raise RecordError(f"{path} has no row with a {where} and a finite {what}")
    return {place: math.fsum(values) / len(values) for place, values in sorted(found.items())}


def losses_by_checkpoint(
    losses: Mapping[int, float],
    records: Iterable[ScoreRecord | ProbeRecord],
    *,
    offset: int = 0,
) -> dict[str, float]:
    """The loss of each checkpoint by its file name.

    The loss at position ``p`` of the log belongs to the checkpoint whose step is ``p + offset``.
    The file number of DINO and MAE, and of code grown from DINO's, is the ``epoch`` in their log:
    ``offset=0``. I-JEPA's log counts from 1 and its files one more: ``-ep2`` holds one finished
    epoch, the log's 1: ``offset=1``.

    Args:
        losses: of :func:`read_losses`.
        records: of the checkpoints; each once or more.
        offset: step of a checkpoint minus its position in the log.

    Raises:
        RecordError: no checkpoint has a loss.
    """
    steps = {record.name: record.step for record in records}
    found = {name: losses[s - offset] for name, s in steps.items() if s - offset in losses}
    if not found:
        raise RecordError(
            f"no checkpoint has a loss: their steps are {_some(sorted(steps.values()))}, the log's "
            f"positions {_some(sorted(losses))}; name another column or an offset"
        )
    return found


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as cause:
        raise RecordError(
            f"cannot read the log {path} ({cause.strerror}): check the path"
        ) from cause
    except UnicodeDecodeError as cause:
        raise RecordError(f"cannot read the log {path}: it is not a text in UTF-8") from cause
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise RecordError(f"{path} is empty; give the log of a training run")
    if lines[0].lstrip().startswith("{"):
        return _json_rows(path, lines)
    reader = csv.DictReader(lines, skipinitialspace=True)
    return [{key: value for key, value in row.items() if key} for row in reader]


def _json_rows(path: Path, lines: Sequence[str]) -> list[Mapping[str, Any]]:
    """One object a line; the last line may be cut off, as a run may be writing it."""
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as cause:
            if number == len(lines) > 1:
                break
            raise RecordError(f"line {number} of {path} is not a JSON object: {cause}") from cause
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _column(
    path: Path, names: Sequence[str], kind: str, wanted: str | None, known: Sequence[str]
) -> str:
    for name in known if wanted is None else (wanted,):
        if name in names:
            return name
    expected = f"one of {', '.join(known)}" if wanted is None else repr(wanted)
    raise RecordError(
        f"{path} has no {kind} under {expected}; it has: {_some(names)}. "
        f"Name the column with {kind}=..."
    )


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _some(values: Sequence[Any], most: int = 8) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return f"{shown}, ..." if len(values) > most else shown or "nothing"
