"""Checkpoints and differences as a reader meets them in a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Protocol

from densescope.estimate import Estimate
from densescope.metrics.lambdas import linear_combination


class Placed(Protocol):
    """Anything with a name and a place in a run."""

    @property
    def name(self) -> str:
        """File name of the checkpoint."""

    @property
    def step(self) -> int:
        """Its position in the run."""

    @property
    def unit(self) -> str:
        """Of ``step``."""


def phrase(row: Placed, name: str = "") -> str:
    """``checkpoint0030.pth (epoch 30)``; what is named for its place is not told it twice."""
    shown, at = name or row.name, f"{row.unit} {row.step}"
    return shown if shown == at else f"{shown} ({at})"


def is_called(row: Placed, text: str) -> bool:
    """Whether a reader may mean this checkpoint: its name, its step, or both as in a sentence."""
    return text in (row.name, str(row.step), phrase(row))


def no_such(rows: Sequence[Placed], text: str, allowed: str) -> str:
    """The refusal of a text that no checkpoint is called by.

    Args:
        rows: the checkpoints, at least one.
        text: what was given.
        allowed: what else could have been, before the list of the checkpoints.
    """
    close = difflib.get_close_matches(text, [row.name for row in rows], n=1, cutoff=0.4)
    meant = f"did you mean {close[0]}? " if close else ""
    return (
        f"no scored checkpoint has the name or the {rows[0].unit} {text!r}: {meant}{allowed}: "
        f"{listed([phrase(row) for row in rows], most=20)}"
    )


SINGLE_LAMBDA = 1.0  # of a checkpoint by itself; a run has its own


def dse_title(lambda_: float) -> str:
    """``DSE (lambda = 0.43)``: no DSE is shown without the lambda it has."""
    return f"DSE (lambda = {lambda_:.3g})"


def parts_line(row: Mapping[str, Estimate]) -> str:
    """Separability, effective rank and DSE of one checkpoint by itself, on one line.

    Args:
        row: its numbers by name, those of the released definition among them.
    """
    separability = linear_combination(row["released.inter"], row["released.intra"], -1.0)
    return (
        f"separability {with_error(separability)}, "
        f"effective rank {with_error(row['released.effective_rank'])}, "
        f"{dse_title(SINGLE_LAMBDA)} {with_error(row['released.dse_lambda_1'])}"
    )


def with_error(estimate: Estimate | None, digits: int = 4) -> str:
    """``0.6203 ± 0.0012``: a number and the half-width of its 95 % interval."""
    if estimate is None or estimate.value != estimate.value:
        return "–"
    bounds = estimate.interval()
    value = f"{estimate.value:.{digits}g}"
    return value if bounds is None else f"{value} ± {(bounds[1] - bounds[0]) / 2:.2g}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """``a, b and c``; of many, the first few and how many more."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def to_try(*, is_finite: bool) -> str:
    """What may hold dense features when training goes on from before a fall.

    Args:
        is_finite: whether the features still have numbers.
    """
    if not is_finite:
        return (
            "To try from there: a lower learning rate or a longer warm-up, and float32 where half "
            "precision overflows."
        )
    return (
        "To try from there: a lower learning rate, or a term that holds on to the patches of that "
        "checkpoint (Gram anchoring: pretrain --regularizer gram --beta 100); neither is sure to "
        "help. In the study of this package the DSE term weakened a fall at best."
    )


def size(difference: Estimate, level: float) -> str:
    """Size of a difference, with the interval of its absolute value."""
    interval = difference.interval(level)
    if interval is None:
        return f"{abs(difference.value):.3g}"
    low, high = sorted(interval) if difference.value >= 0 else sorted(-end for end in interval)
    return f"{abs(difference.value):.3g} [{low:.3g}, {high:.3g}]"


def signed(difference: Estimate, level: float) -> str:
    """A difference with its sign and its interval."""
    interval = difference.interval(level)
    if interval is None:
        return f"{difference.value:+.3g}"
    return f"{difference.value:+.3g} [{interval[0]:+.3g}, {interval[1]:+.3g}]"
