"""The best probed checkpoint of a run against the last: what was found, and its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from densescope.evaluation.measures import measure_of
from densescope.selection import Change
from densescope.selection.change import is_beyond_noise

SCHEMA = 1


@dataclass(frozen=True)
class Degradation:
    """The best probed checkpoint of a run against the last.

    Attributes:
        protocol: of the probes.
        dataset: of the probes.
        measure: of the probes.
        unit: of the steps.
        checkpoints: how many were probed.
        seeds: fewest seeds of a probe.
        best: name of the checkpoint with the best mean over its seeds.
        best_step: its step.
        best_value: its measure; the best of many, so too good by part of the noise.
        last: name of the last probed checkpoint.
        last_step: its step.
        last_value: its measure.
        drop: how much better ``best_value`` is than ``last_value``, never negative, in units of the
            measure; too large by part of the noise.
        held_out_drop: the same with the winner's curse removed. Where ``blocks`` is known: the best
            ``held_out_window`` checkpoints in a row are chosen on one half of the test images and
            measured against the last ones on the other half, and the other way round. Else each
            seed in turn is held out, the best is chosen by the others, and best against last is
            measured on the held-out one; ``None`` with one seed, or unequal numbers of seeds.
        held_out_interval: of it, over blocks of test images; ``None`` where it is over seeds.
        held_out_window: how many checkpoints in a row it compares.
        interval: of the true drop, best true value against last; the lower end holds although
            the best was looked for. ``None`` where the noise is not known.
        level: its confidence.
        p_value: probability of a drop as large, in units of noise, where no checkpoint is better
            than the last; ``None`` where the noise is not known.
        noise: standard deviation of one seed of the probe, or ``None``.
        blocks: blocks of test images (such as videos) over which the noise of the interval was
            taken; ``None`` where it is that of the probe's seeds, or not known.
        degraded: whether the lower end of the interval is above 0; ``None`` where the noise is not
            known.
        change: label-free numbers of the last minus the best checkpoint, and which part moved;
            ``None`` without scores of both.
        left_out: names of the probes without a value.
        verdict: all this in words.
    """

    protocol: str
    dataset: str
    measure: str
    unit: str
    checkpoints: int
    seeds: int
    best: str
    best_step: int
    best_value: float
    last: str
    last_step: int
    last_value: float
    drop: float
    held_out_drop: float | None
    held_out_interval: tuple[float, float] | None
    held_out_window: int
    interval: tuple[float, float] | None
    level: float
    p_value: float | None
    noise: float | None
    blocks: int | None
    degraded: bool | None
    change: Change | None
    left_out: tuple[str, ...]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The document, with plain values only."""
        return {
            **{key: list(v) if isinstance(v, tuple) else v for key, v in vars(self).items()},
            "schema": SCHEMA,
            "change": None if self.change is None else self.change.to_json(),
        }


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
            f"{_points(found, found.drop, found.interval)} at {found.level:.0%}, with all "
            f"{found.checkpoints} checkpoints looked at; the noise is that of {_noise_of(found)}."
        )
    return (
        f"Degradation is not shown: {best} has a better {_what(found)} than {last}, {sizes}, but "
        f"the best of {found.checkpoints} values would be that far ahead by the noise of "
        f"{_noise_of(found)} in {found.p_value:.0%} of runs without degradation{_at_most(found)}."
    )


def _unknown(found: Degradation) -> str:
    if found.seeds < 2:
        return "Each probe has a single seed or too few: its noise is unknown"
    return "The seeds of the probe give the same values: its noise is unknown"


def _noise_of(found: Degradation) -> str:
    if found.blocks is None:
        return "the seeds of the probe"
    return f"the test images ({found.blocks} blocks)"


def _at_most(found: Degradation) -> str:
    if found.interval is None:
        return ""
    return (
        f"; a drop of up to {_points(found, found.interval[1])} is not excluded ({found.level:.0%})"
    )


def _points(
    found: Degradation, difference: float, interval: tuple[float, float] | None = None
) -> str:
    measure = measure_of(found.measure)
    text = f"{measure.number(difference)} {measure.difference}".rstrip()
    if interval is None:
        return text
    return f"{text} [{', '.join(map(measure.number, interval))}]"


def _winner(found: Degradation) -> list[str]:
    """The size of the drop when the best is chosen and measured on different images or seeds."""
    if found.held_out_drop is None or not found.degraded:
        return []
    if found.held_out_interval is None:
        return [
            "Chosen on some seeds and measured on the others, the best is "
            f"{_points(found, found.held_out_drop)} ahead."
        ]
    best, last = "best checkpoint is", "last"
    if found.held_out_window > 1:
        best, last = f"best {found.held_out_window} checkpoints in a row are", "last ones"
    return [
        f"Chosen on one half of the test images and measured on the other, the {best} "
        f"{_points(found, found.held_out_drop, found.held_out_interval)} ahead of the {last}."
    ]


def _moved(found: Degradation) -> list[str]:
    change = found.change
    if change is None or found.degraded is False:
        return []
    return [_part(change, found.level)]


def _part(change: Change, level: float) -> str:
    fell = change.dse.value < 0
    if change.dse.interval(level) is None:
        if fell:
            return "Between the two DSE fell; whether by more than its noise is not known."
        return "DSE did not fall between the two: without labels this would not have been seen."
    if not is_beyond_noise(change.dse, level):
        return (
            "DSE does not tell the two apart (its difference is within its noise): without labels "
            "this would not have been seen."
        )
    if not fell:
        return "DSE rose between the two: without labels this would not have been seen."
    return {
        "effective_rank": "Between the two the effective rank moved DSE: the features use fewer "
        "directions.",
        "separability": "Between the two separability moved DSE: pseudo-classes stand less apart.",
        "both": "Between the two both parts of DSE fell.",
        "neither": "Between the two DSE fell, but neither part fell beyond its noise.",
    }[change.moved]


def _what(found: Degradation) -> str:
    return f"{measure_of(found.measure).title} on {found.dataset}"
