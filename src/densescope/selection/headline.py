"""The one sentence a reader acts on: a clear winner, or which checkpoints are tied."""

from __future__ import annotations

from collections.abc import Sequence

from densescope.definitions import DEFINITIONS
from densescope.errors import RecordError
from densescope.metrics.lambdas import LAMBDAS, LEAST_CHECKPOINTS, lambda_rule
from densescope.selection.alarm import find_alarm, first_alarm
from densescope.selection.falls import LEAST_POINTS, AlarmSettings
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
        ``"Use checkpoint0004.pth (epoch 4)."``, or ``"DSE picks checkpoint0004.pth (epoch 4), but
        no alarm came: without labels take the last checkpoint."``, or the same with the checkpoint
        that an alarm goes back to, or ``"No clear winner: epochs 1-21 are tied; the earliest peak
        is checkpoint0004.pth (epoch 4)."``, or what stands in the way of a choice.
        Where at least as many checkpoints failed as were scored, the sentence says of how many.
    """
    said, scored, failed = _headline(selection), len(selection.rows), len(selection.failed)
    if scored == 1 or failed < scored:
        return said
    of = f"Of the {scored} checkpoints that could be scored ({failed} failed), "
    return f"{of}{said[0].lower()}{said[1:]}"


def answer(selection: Selection) -> tuple[str, str, str]:
    """The :func:`headline` in three parts: before the name it ends in, the name, and the rest."""
    said = headline(selection)
    name = selection.earliest_peak if selection.tied else selection.pick
    if name is None:
        return said, "", ""
    place = phrase(selection.row(name))
    before, found, after = said.partition(place)
    return (before, name, place[len(name) :] + after) if found else (said, "", "")


def _headline(selection: Selection) -> str:
    if selection.pick is None:
        return "No checkpoint is picked."
    pick = selection.row(selection.pick)
    if len(selection.rows) == 1:
        failed = f" ({len(selection.failed)} failed)" if selection.failed else ""
        return f"Only {phrase(pick)} was scored{failed}: there is nothing to choose from yet."
    if selection.tied:
        peak = selection.row(str(selection.earliest_peak))
        return f"No clear winner: {tie(selection)}; the earliest peak is {phrase(peak)}."
    if len(selection.rows) == 2:
        return f"Only two checkpoints were scored; {phrase(pick)} has the higher DSE."
    if not selection.noise_known:
        return f"The pick is {phrase(pick)}; whether others are as good is not known."
    if selection.advised == selection.last:
        return (
            f"DSE picks {phrase(pick)}, but no alarm came: without labels take the last checkpoint."
        )
    if selection.advised is not None:
        back = phrase(selection.row(selection.advised))
        return f"DSE picks {phrase(pick)}, but an alarm came: without labels go back to {back}."
    return f"Use {phrase(pick)}."


def selections_by_definition(table: RunTable, *, layer: int = -1) -> dict[str, Selection]:
    """Definition -> the choice by it, for all that were scored."""
    chosen = {}
    for definition in DEFINITIONS:
        try:
            chosen[definition] = table.selection(definition=definition, layer=layer)
        except RecordError:
            continue
    return chosen


def across_choices(table: RunTable, *, layer: int = -1) -> str | None:
    """Whether the pick depends on the definition of DSE, or on the rule for lambda: one sentence.

    Args:
        table: of the run.
        layer: whose scores.

    Returns:
        ``None`` where fewer than two ways name a pick. With fewer than three checkpoints all rules
        for lambda are one, and are not compared.
    """
    found = selections_by_definition(table, layer=layer)
    by_definition = [one for one in found.values() if one.pick is not None]
    by_lambda = [
        table.selection(definition=one.definition, layer=layer, lambda_choice=rule)
        for one in by_definition
        if DEFINITIONS[one.definition].lambda_by_default is not None
        and len(one.rows) >= LEAST_CHECKPOINTS
        for rule in LAMBDAS
    ]
    kinds = {"definition of DSE": by_definition, "rule for lambda": by_lambda}
    kinds = {kind: ways for kind, ways in kinds.items() if len(ways) > 1}
    if not kinds:
        return None
    picks: dict[str, dict[str, None]] = {}
    for one in (way for ways in kinds.values() for way in ways):
        picks.setdefault(phrase(one.row(str(one.pick))), {})[_way(one)] = None
    if len(picks) == 1:
        which = " and ".join(_all(len(ways), kind) for kind, ways in kinds.items())
        return f"{which[0].upper()}{which[1:]} pick the same checkpoint."
    differing = [kind for kind, ways in kinds.items() if len({way.pick for way in ways}) > 1]
    each = "; ".join(f"{listed(list(ways))}: {at}" for at, ways in picks.items())
    sentence = f"The pick depends on the {' and on the '.join(differing)}: {each}."
    named = {way.pick for ways in kinds.values() for way in ways}
    tied = all(named <= set(way.tied) for ways in kinds.values() for way in ways)
    return f"{sentence} None of them tells these checkpoints apart." if tied else sentence


def pick_or_last(table: RunTable, selection: Selection) -> str | None:
    """What the alarm says for the pick or for the last checkpoint: one or two sentences.

    Returns:
        ``None`` where they are one checkpoint, the choice is not the one that the study looked at
        (released definition, lambda 1), the run is too short for an alarm by noise, or the alarm
        stands at the end of the run and says itself where to go back to.
    """
    if not _studied(selection):
        return None
    settings, last = AlarmSettings(definition=selection.definition), selection.row(selection.last)
    came = first_alarm(table, settings, layer=selection.layer)
    if selection.advised == selection.last:
        return (
            "The alarm came at no checkpoint. In the study of this package the pick was then no "
            f"better than the last checkpoint: with labels compare it with {phrase(last)}, without "
            "labels take that one."
        )
    if came is None:
        return (
            f"No alarm came, and none could come for a fall from here on: it needs {LEAST_POINTS} "
            f"checkpoints before the fall, and the pick is number {_number(selection)}. With "
            f"labels compare the pick with {phrase(last)}."
        )
    if find_alarm(table, settings, layer=selection.layer) is not None:
        return None
    back = phrase(selection.row(came.back_to))
    return (
        f"An alarm came at {came.last} ({came.unit} {came.last_step}) and does not stand at the "
        f"end of the run. In the study of this package {back}, to which it goes back, was then "
        "better than the last checkpoint."
    )


def advised(table: RunTable, selection: Selection) -> str | None:
    """What :attr:`Selection.advised` says."""
    if not _studied(selection):
        return None
    settings = AlarmSettings(definition=selection.definition)
    came = first_alarm(table, settings, layer=selection.layer)
    if came is not None:
        return None if came.back_to == selection.pick else came.back_to
    return selection.last if _number(selection) >= LEAST_POINTS else None


def _number(selection: Selection) -> int:
    """The place of the pick in the run, from 1 on."""
    return [row.name for row in selection.rows].index(str(selection.pick)) + 1


def _studied(selection: Selection) -> bool:
    """Whether the study says whether to take the pick or the last, which differ."""
    if (selection.definition, selection.lambda_choice) != ("released", "1"):
        return False
    if selection.pick in (None, selection.last) or selection.unscored_after:
        return False
    return len(selection.rows) >= LEAST_POINTS + AlarmSettings().patience


def _all(count: int, kind: str) -> str:
    """``all 3 definitions of DSE``, ``both rules for lambda``."""
    first, *rest = kind.split()
    return f"{'both' if count == 2 else f'all {count}'} {' '.join([f'{first}s', *rest])}"


def _way(chosen: Selection) -> str:
    """``paper``, ``released with shrunk lambda (0.71)``."""
    if chosen.lambda_choice == lambda_rule(chosen.definition).name:
        return chosen.definition
    label = LAMBDAS[chosen.lambda_choice].label
    return f"{chosen.definition} with {label} ({chosen.lambda_:.3g})"


def tie(selection: Selection) -> str:
    """``epochs 1-21 are tied``, ``all 12 checkpoints (epochs 1-12) are tied``.

    Where some failed, all are those that could be scored.
    """
    names = set(selection.tied)
    tied = [row.name in names for row in selection.rows]
    spans = _spans(selection.rows, tied)
    if all(tied):
        scored = " that could be scored" if selection.failed else ""
        return f"all {len(tied)} checkpoints{scored} ({spans}) are tied"
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
