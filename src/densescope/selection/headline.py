"""The one sentence a reader acts on: a clear winner, or which checkpoints are tied."""

from __future__ import annotations

from collections.abc import Sequence

from densescope.definitions import DEFINITIONS
from densescope.errors import RecordError
from densescope.selection.result import Selection, SelectionRow
from densescope.selection.run_table import RunTable
from densescope.selection.words import listed, phrase


def headline(selection: Selection) -> str:
    """What to do with the choice, as far as the noise allows.

    A checkpoint is recommended only where it is told apart from all others. Otherwise the tied ones
    are named, and the earliest peak among them.

    Args:
        selection: of the run.

    Returns:
        ``"Use checkpoint0004.pth (epoch 4)."``, or ``"No clear winner: epochs 1-21 are tied; the
        earliest peak is checkpoint0004.pth (epoch 4)."``, or what stands in the way of a choice.
    """
    if selection.pick is None:
        return "No checkpoint is picked."
    pick = selection.row(selection.pick)
    if len(selection.rows) == 1:
        return f"Only {phrase(pick)} was scored: there is nothing to choose from yet."
    if selection.tied:
        peak = selection.row(str(selection.earliest_peak))
        return f"No clear winner: {tie(selection)}; the earliest peak is {phrase(peak)}."
    if len(selection.rows) == 2:
        return f"Only two checkpoints were scored; {phrase(pick)} has the higher DSE."
    if not selection.noise_known:
        return f"The pick is {phrase(pick)}; whether others are as good is not known."
    return f"Use {phrase(pick)}."


def by_definitions(table: RunTable, *, layer: int = -1) -> str | None:
    """Whether the pick depends on the definition of DSE, as a sentence.

    Args:
        table: of the run.
        layer: whose scores.

    Returns:
        ``None`` where fewer than two definitions name a pick.
    """
    picks: dict[str, list[str]] = {}
    for definition, chosen in selections_by_definition(table, layer=layer).items():
        if chosen.pick is not None:
            at = phrase(chosen.row(chosen.pick))
            picks.setdefault(at, []).append(definition)
    count = sum(map(len, picks.values()))
    if count < 2:
        return None
    if len(picks) == 1:
        which = "Both" if count == 2 else f"All {count}"
        return f"{which} definitions of DSE pick the same checkpoint."
    each = "; ".join(f"{' and '.join(names)}: {at}" for at, names in picks.items())
    return f"The pick depends on the definition of DSE: {each}."


def selections_by_definition(table: RunTable, *, layer: int = -1) -> dict[str, Selection]:
    """Definition -> the choice by it, for all that were scored."""
    chosen = {}
    for definition in DEFINITIONS:
        try:
            chosen[definition] = table.selection(definition=definition, layer=layer)
        except RecordError:
            continue
    return chosen


def tie(selection: Selection) -> str:
    """``epochs 1-21 are tied``, ``all 12 checkpoints (epochs 1-12) are tied``."""
    tied = [row.name in selection.tied for row in selection.rows]
    spans = _spans(selection.rows, tied)
    if all(tied):
        return f"all {len(tied)} checkpoints ({spans}) are tied"
    return f"{spans} are tied"


def _spans(rows: Sequence[SelectionRow], kept: Sequence[bool]) -> str:
    """``epochs 1-21 and 30``; a range is a stretch of checkpoints without one left out."""
    stretches: list[list[int]] = []
    for index, row in enumerate(rows):
        if not kept[index]:
            continue
        if stretches and index and kept[index - 1]:
            stretches[-1].append(row.step)
        else:
            stretches.append([row.step])
    parts = [
        part
        for steps in stretches
        for part in ([f"{steps[0]}-{steps[-1]}"] if len(steps) > 2 else [str(s) for s in steps])
    ]
    return f"{rows[0].unit}s {listed(parts, most=8)}"
