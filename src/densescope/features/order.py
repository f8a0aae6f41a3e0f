"""Which order the numbers in names make, and which of them is a position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from densescope.errors import DataError
from densescope.features.names import UNITS, Numbers


class OrderError(DataError):
    """The numbers in names make no order.

    Attributes:
        names: of the checkpoints in question.
    """

    def __init__(self, message: str, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


@dataclass(frozen=True)
class Placed:
    """A name, its numbers, and which of them is its position.

    Attributes:
        name: of the checkpoint.
        numbers: in it; none of them is plain.
        unit: of the position.
        is_unit_known: whether names or the user say so.
    """

    name: str
    numbers: Numbers
    unit: str
    is_unit_known: bool

    @property
    def position(self) -> int:
        """The number that counts the unit."""
        number = self.numbers.of(self.unit)
        assert number is not None
        return number


def placed(
    numbers: Mapping[str, Numbers], *, unit: str | None, default: str, folder: Path
) -> list[Placed]:
    """Checkpoints in order, each with what its position counts.

    Args:
        numbers: by name.
        unit: the user's wish, or ``None``.
        default: what plain numbers count where neither a name nor the user says so.
        folder: of the run, for errors.

    Raises:
        OrderError: the numbers make no order.
    """
    said = {unit for unit in UNITS for one in numbers.values() if one.of(unit) is not None}
    default = next(iter(said)) if len(said) == 1 else default
    counted = {name: one.counted_in(unit or default) for name, one in numbers.items()}
    known = bool(said) or unit is not None
    unit = unit or _shared_unit(counted, folder)
    held = {name: one for name, one in counted.items() if one.of(unit) is not None}
    if not held:
        raise OrderError(
            f"no name of a checkpoint in {folder} has a number of {unit}s: leave --unit out",
            numbers,
        )
    ordered = [Placed(name, one, unit, known) for name, one in held.items()]
    both = all(None not in (one.epoch, one.step) for one in held.values())
    ordered.sort(key=lambda one: (_both(one) if both else (one.position,), one.name))
    _check_order(ordered, unit)
    return ordered


def _both(one: Placed) -> tuple[int, ...]:
    return (one.numbers.epoch or 0, one.numbers.step or 0)


def _shared_unit(counted: Mapping[str, Numbers], folder: Path) -> str:
    epochs = [one.epoch for one in counted.values()]
    steps = [one.step for one in counted.values()]
    if None not in epochs and (None in steps or len(set(epochs)) == len(epochs)):
        return "epoch"
    if None not in steps:
        return "step"
    epoch = next(name for name, one in counted.items() if one.step is None)
    step = next(name for name, one in counted.items() if one.epoch is None)
    raise OrderError(
        f"some names in {folder} count epochs ({epoch}) and some count steps ({step}), which make "
        "no order: choose with --unit epoch, --unit step or --pattern",
        counted,
    )


def _check_order(ordered: Sequence[Placed], unit: str) -> None:
    """Steps that begin anew in every epoch are no positions of a run."""
    for first, second in pairwise(ordered):
        if second.position < first.position:
            raise OrderError(
                f"the {unit}s in the names begin anew ({second.name} comes after {first.name}), so "
                "they are no positions in the run: choose one checkpoint per epoch with "
                "--pattern, or give --unit epoch",
                [one.name for one in ordered],
            )
