"""What was found, in words a researcher can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from densescope.agreement.measures import measure_of
from densescope.selection import Change
from densescope.selection.change import is_beyond_noise

if TYPE_CHECKING:
    from densescope.agreement.degradation import Degradation


def degradation_verdict(found: Degradation) -> str:
    """A few sentences: degraded or not, by how much, what moved, and what is not known."""
    sentences = [_claim(found), *_winner(found), *_moved(found)]
    if found.left_out:
        sentences.append(f"Left out without a value: {', '.join(found.left_out)}.")
    return " ".join(sentences)


def _claim(found: Degradation) -> str:
    best = f"{found.best} ({found.unit} {found.best_step})"
    last = f"the last, {found.last} ({found.unit} {found.last_step})"
    measure = measure_of(found.measure)
    sizes = f"{measure.number(found.best_value)} against {measure.text(found.last_value)}"
    if found.checkpoints == 1:
        return f"Only {best} was probed: degradation cannot be seen; probe more checkpoints."
    if found.best == found.last:
        return (
            f"No degradation is seen: the last probed checkpoint, {best}, has the best "
            f"{_what(found)}, {measure.text(found.best_value)}{_at_most(found)}."
        )
    if found.degraded is None:
        return (
            f"{best} has a better {_what(found)} than {last}: {sizes}. {_unknown(found)}, so "
            "whether this is degradation is not known, and the best of "
            f"{found.checkpoints} values is too good by chance alone."
        )
    if found.degraded:
        return (
            f"The run degraded: {_what(found)} fell from {best} to {last}, {sizes}; the drop is "
            f"{_interval(found)} at {found.level:.0%}, with all {found.checkpoints} checkpoints "
            "looked at."
        )
    return (
        f"Degradation is not shown: {best} has a better {_what(found)} than {last}, {sizes}, but "
        f"the best of {found.checkpoints} values would be that far ahead by the noise of the "
        f"probe's seeds in {found.chance:.0%} of runs without degradation{_at_most(found)}."
    )


def _unknown(found: Degradation) -> str:
    if found.seeds < 2:
        return "Each probe has a single seed or too few: its noise is unknown"
    return "The seeds of the probe give the same values: its noise is unknown"


def _at_most(found: Degradation) -> str:
    if found.interval is None:
        return ""
    return (
        f"; a drop of up to {_points(found, found.interval[1])} is not excluded ({found.level:.0%})"
    )


def _interval(found: Degradation) -> str:
    if found.interval is None:
        return _points(found, found.drop)
    number = measure_of(found.measure).number
    low, high = (number(bound) for bound in found.interval)
    return f"{_points(found, found.drop)} [{low}, {high}]"


def _points(found: Degradation, difference: float) -> str:
    measure = measure_of(found.measure)
    return f"{measure.number(difference)} {measure.difference}".rstrip()


def _winner(found: Degradation) -> list[str]:
    """The size of the drop when the best is chosen and measured on different seeds."""
    if found.held_out_drop is None or not found.degraded:
        return []
    return [
        "Chosen on some seeds and measured on the others, the best is "
        f"{_points(found, found.held_out_drop)} ahead."
    ]


def _moved(found: Degradation) -> list[str]:
    change = found.change
    if change is None or found.degraded is False:
        return []
    return [_part(change, found.level)]


def _part(change: Change, level: float) -> str:
    if change.dse.value >= 0:
        return "DSE did not fall between the two: without labels this would not have been seen."
    if change.dse.interval(level) is None:
        return "Between the two DSE fell; whether by more than its noise is not known."
    if not is_beyond_noise(change.dse, level):
        return (
            "DSE did not fall beyond its noise between the two: without labels this would not "
            "have been seen."
        )
    return {
        "effective_rank": (
            "Between the two the effective rank moved DSE: the features use fewer directions."
        ),
        "separability": "Between the two separability moved DSE: pseudo-classes stand less apart.",
        "both": "Between the two both parts of DSE fell.",
        "neither": "Between the two DSE fell, but neither part fell beyond its noise.",
    }[change.moved]


def _what(found: Degradation) -> str:
    return f"{measure_of(found.measure).title} on {found.dataset}"
