"""The parts of DSE of each checkpoint, and their sum, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from densescope.errors import RecordError
from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.selection.result import SelectionRow
from densescope.selection.rounds import images_of
from densescope.selection.weight import run_weight


def weighted_sum(separability: Estimate, dim: Estimate, weight: float) -> Estimate:
    """``separability + weight * dim`` replicate by replicate, the weight held fixed.

    The spreads over clustering seeds add like independent ones; the notes are joined.
    """
    replicates = tuple(
        a + weight * b for a, b in zip(separability.replicates, dim.replicates, strict=True)
    )
    return Estimate(
        separability.value + weight * dim.value,
        replicates,
        _joint_spread(separability.seed_spread, dim.seed_spread, weight),
        _joint_note(separability.note, dim.note),
    )


def measured_rows(
    scored: Sequence[ScoreRecord], definition: str, layer: int
) -> tuple[tuple[SelectionRow, ...], float | None, str]:
    """Rows with their numbers, the weight and its note; marks are still to come."""
    parts = [parts_of(record, definition, layer) for record in scored]
    _check_blocks(scored, parts)
    weight, note = run_weight(
        [separability.value for separability, _ in parts],
        [dim.value for _, dim in parts],
        definition=definition,
    )
    rows = tuple(
        SelectionRow(
            name=record.name,
            step=record.step,
            unit=record.unit,
            separability=separability,
            dim=dim,
            dse=None if weight is None else weighted_sum(separability, dim, weight),
            is_candidate=False,
            rank_in_shortlist=None,
            is_pick=False,
            below_noise_of_pick=False,
            images=images_of(record),
        )
        for record, (separability, dim) in zip(scored, parts, strict=True)
    )
    return rows, weight, note


def parts_of(record: ScoreRecord, definition: str, layer: int) -> tuple[Estimate, Estimate]:
    """Separability and dimension of one checkpoint."""
    inter = record.estimate(f"{definition}.inter", layer)
    intra = record.estimate(f"{definition}.intra", layer)
    if len(inter.replicates) != len(intra.replicates):
        raise RecordError(
            f"{record.name} has {len(inter.replicates)} replicates of {definition}.inter and "
            f"{len(intra.replicates)} of {definition}.intra; score the checkpoint again"
        )
    separability = replace(
        inter.minus(intra),
        seed_spread=_joint_spread(inter.seed_spread, intra.seed_spread),
        note=_joint_note(inter.note, intra.note),
    )
    return separability, record.estimate(f"{definition}.dim", layer)


def _check_blocks(
    scored: Sequence[ScoreRecord], parts: Sequence[tuple[Estimate, Estimate]]
) -> None:
    """All numbers must come in equally many replicates, or they cannot be paired."""
    expected = len(parts[0][0].replicates)
    for record, pair in zip(scored, parts, strict=True):
        for estimate in pair:
            if len(estimate.replicates) != expected:
                raise RecordError(
                    f"{scored[0].name} has {expected} replicates and {record.name} "
                    f"{len(estimate.replicates)}; score all on the same images with the same "
                    "settings"
                )


def _joint_spread(first: float | None, second: float | None, weight: float = 1.0) -> float | None:
    if first is None and second is None:
        return None
    return math.hypot(first or 0.0, weight * (second or 0.0))


def _joint_note(first: str | None, second: str | None) -> str | None:
    return "; ".join(dict.fromkeys(note for note in (first, second) if note)) or None
