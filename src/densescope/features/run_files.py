"""Checkpoints of a run, and what else lies in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from densescope.errors import DataError
from densescope.features.layouts import listing
from densescope.features.names import pattern_of


@dataclass(frozen=True)
class RunCheckpoint:
    """One checkpoint of a run.

    Attributes:
        path: the file or folder; of rank files the lowest rank's.
        name: its path below the run's folder, with ``/`` between its parts.
        step: its position in the run, which its name tells.
        unit: what ``step`` counts, ``"epoch"`` or ``"step"``.
        is_unit_known: whether the name or the user says so, and not the format; the counter in the
            file may tell better then.
        is_overwritten: training goes on writing into this file, which has no number of its own.
    """

    path: Path
    name: str
    step: int
    unit: str = "epoch"
    is_unit_known: bool = True
    is_overwritten: bool = False


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds.

    Attributes:
        checkpoints: in order.
        rule: what their names fit: ``"format"``, ``"general"`` (numbers in other names),
            ``"pattern"`` (the user's own), or ``"overwritten"`` (no number).
        gone: checkpoints that were there before, with the positions they have among the others.
        left_out: names that look like numbered checkpoints and are none of them.
        unnumbered: names that end as checkpoints do and have no number, such as ``last.ckpt``.
        doubles: groups of names at one position; of each the first is among the checkpoints.
    """

    checkpoints: tuple[RunCheckpoint, ...]
    rule: str
    gone: tuple[RunCheckpoint, ...] = ()
    left_out: tuple[str, ...] = ()
    unnumbered: tuple[str, ...] = ()
    doubles: tuple[tuple[str, ...], ...] = ()

    def check_doubles(self) -> None:
        """Refuse two checkpoints at one position.

        Raises:
            DataError: there are such; the sentence says how to choose.
        """
        if not self.doubles:
            return
        first = self.doubles[0]
        at = next(one for one in (*self.checkpoints, *self.gone) if one.name == first[0])
        patterns = list(dict.fromkeys(pattern_of(name) for name in first))
        choose = " or ".join(f"--pattern {quote(pattern)}" for pattern in patterns[:2])
        if len(patterns) == 1:
            choose = f"another --unit than {at.unit}, or a --pattern"
        raise DataError(
            f"{listing(list(first))} are all at {at.unit} {at.step}, and a run has one checkpoint "
            f"there: choose with {choose}"
        )
