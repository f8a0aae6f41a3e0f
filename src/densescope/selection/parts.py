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
from densescope.selection.weight import run_lambda


def weighted_sum(separability: Estimate, effective_rank: Estimate, lambda_: float) -> Estimate:
    """``separability + lambda * effective_rank`` replicate by replicate, lambda held fixed.

    The spreads over clustering seeds add like independent ones; the notes are joined.
    """
    replicates = tuple(
        a + lambda_ * b
        for a, b in zip(separability.replicates, effective_rank.replicates, strict=True)
    )
    return Estimate(
        separability.value + lambda_ * effective_rank.value,
        replicates,
        _joint_spread(separability.seed_spread, effective_rank.seed_spread, lambda_),
        _joint_note(separability.note, effective_rank.note),
    )


def measured_rows(
    scored: Sequence[ScoreRecord], definition: str, layer: int
) -> tuple[tuple[SelectionRow, ...], float | None, str]:
    """Rows with their numbers, lambda and its note; marks are still to come."""
    parts = [parts_of(record, definition, layer) for record in scored]
    _check_blocks(scored, parts)
    lambda_, note = run_lambda(
        [separability.value for separability, _ in parts],
        [effective_rank.value for _, effective_rank in parts],
        definition=definition,
    )
    rows = tuple(
        SelectionRow(
            name=record.name,
            step=record.step,
            unit=record.unit,
            separability=separability,
            effective_rank=effective_rank,
            dse=None if lambda_ is None else weighted_sum(separability, effective_rank, lambda_),
            is_candidate=False,
            rank_in_shortlist=None,
            is_pick=False,
            below_noise_of_pick=False,
            images=images_of(record),
        )
        for record, (separability, effective_rank) in zip(scored, parts, strict=True)
    )
    return rows, lambda_, note


def parts_of(record: ScoreRecord, definition: str, layer: int) -> tuple[Estimate, Estimate]:
    """Separability and effective rank of one checkpoint."""
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
    return separability, record.estimate(f"{definition}.effective_rank", layer)


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


def _joint_spread(first: float | None, second: float | None, lambda_: float = 1.0) -> float | None:
    if first is None and second is None:
        return None
    return math.hypot(first or 0.0, lambda_ * (second or 0.0))


def _joint_note(first: str | None, second: str | None) -> str | None:
    return "; ".join(dict.fromkeys(note for note in (first, second) if note)) or None
