"""Whether a later checkpoint is worse, by several labelled sets together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from densescope.errors import InputError, RecordError
from densescope.evaluation.uncertainty import (
    PairedDifference,
    ProbedImages,
    fold_differences,
    paired_difference,
    probed_images,
)
from densescope.records import ProbeRecord


@dataclass(frozen=True)
class SetDifference:
    """What one labelled set says of a later checkpoint against an earlier one.

    Attributes:
        name: of the set.
        difference: later minus earlier; negative where the later one is worse.
        folds: the same on the images of each fold; empty without cross-validation.
    """

    name: str
    difference: PairedDifference
    folds: tuple[float, ...] = ()


def set_difference(
    name: str, earlier: Sequence[ProbeRecord], later: Sequence[ProbeRecord], *, level: float = 0.95
) -> SetDifference:
    """What the records of one labelled set say of later checkpoints against earlier ones.

    Args:
        name: of the set, such as the folder of its records in a run.
        earlier: a checkpoint, or a window of several.
        later: likewise.
        level: confidence of the interval.

    Raises:
        RecordError: a record without test images, or of other images than the rest.
    """
    sides = [[_images_of(record) for record in side] for side in (earlier, later)]
    found = paired_difference(sides[0], sides[1], level=level)
    return SetDifference(name, found, fold_differences(sides[0], sides[1]))


def _images_of(record: ProbeRecord) -> ProbedImages:
    images = probed_images(record)
    if images is None:
        raise RecordError(
            f"the probe of {record.name} ({record.protocol} on {record.dataset}) keeps no test "
            "images: it failed, was made by an earlier version, or is not of masks; probe again"
        )
    return images


@dataclass(frozen=True)
class SetsVerdict:
    """What several labelled sets say together.

    Attributes:
        call: ``"decline"``, ``"no decline"`` (no set falls beyond its noise) or ``"disagreement"``
            (one falls, and too little stands beside it).
        sentence: why, with numbers in points.
        disagree: names of the sets that rise, where another falls beyond its noise.
    """

    call: Literal["decline", "no decline", "disagreement"]
    sentence: str
    disagree: tuple[str, ...] = ()


def verdict_of_sets(sets: Sequence[SetDifference]) -> SetsVerdict:
    """Whether a later checkpoint is worse, by all labelled sets together.

    A decline is called where on some set the interval over blocks lies below zero, that set is
    supported (by another set that falls, or by all of its folds), and no set rises beyond its
    noise. One set without folds never suffices, because another set may not show the decline.

    Args:
        sets: one for each labelled set.

    Raises:
        InputError: no set, or two of one name.
    """
    names = [one.name for one in sets]
    if not sets or len(set(names)) < len(names):
        raise InputError(f"a verdict needs labelled sets, each once; these are {names}")
    fallen = [s for s in sets if s.difference.interval and s.difference.interval[1] < 0]
    risen = [s for s in sets if s.difference.interval and s.difference.interval[0] > 0]
    listed = "; ".join(map(_set_words, sets))
    if not fallen:
        return SetsVerdict("no decline", f"No labelled set falls beyond its noise: {listed}.")
    falling = [s for s in sets if s.difference.value < 0]
    rising = tuple(s.name for s in sets if s.difference.value > 0)
    by_folds = [s for s in fallen if len(s.folds) > 1 and max(s.folds) < 0]
    if not risen and (len(falling) > 1 or by_folds):
        support = f"{len(falling)} labelled sets agree" if len(falling) > 1 else "all folds agree"
        beside = f"; {_listed(rising)} {_does(rising, 'rises', 'rise')} within noise" * bool(rising)
        return SetsVerdict(
            "decline", f"The later checkpoint is worse and {support}: {listed}{beside}.", rising
        )
    fell = _listed([s.name for s in fallen])
    if len(sets) == 1:
        cure = "probe a second labelled set, or use --folds"
        if sets[0].folds:
            cure = f"only {sum(f < 0 for f in sets[0].folds)} of {len(sets[0].folds)} folds fall"
        return SetsVerdict("disagreement", f"Only {fell} falls: {listed}; {cure}.")
    beyond = _listed([s.name for s in risen] or list(rising))
    words = f"{beyond} {_does(risen or rising, 'does', 'do')} not agree"
    return SetsVerdict(
        "disagreement", f"{fell} {_does(fallen, 'falls', 'fall')}, but {words}: {listed}.", rising
    )


def _set_words(one: SetDifference) -> str:
    found = one.difference
    points = f"{100 * found.value:+.1f}"
    if found.interval is None:
        return f"{one.name} {points} points (interval not known: one block)"
    low, high = (100 * bound for bound in found.interval)
    return f"{one.name} {points} [{low:+.1f}, {high:+.1f}] points over {found.blocks} blocks"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _does(of: Sequence[Any], one: str, several: str) -> str:
    return one if len(of) == 1 else several
