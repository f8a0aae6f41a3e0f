"""Candidates, shortlist and single pick of a curve of numbers; nothing but positions and values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from densescope.errors import InputError

WINDOW = 2
SHORTLIST_SIZE = 3
TOLERANCE = 0.2  # chosen by benchmarks/pick_rule.py; see docs/explanation/selection.md


def local_maxima(values: Sequence[float], *, window: int = WINDOW) -> tuple[int, ...]:
    """Positions whose value is the maximum of the window around them.

    ``i`` is kept when ``values[i] = max(values[i - window : i + window + 1])``, the window cut
    at the two ends. Every member of a tie counts. The positions do not change when the values
    are shifted or multiplied by a positive number.

    Args:
        values: the curve in order of step; finite.
        window: checkpoints on either side, at least 1.

    Returns:
        Positions, rising; at least one unless the curve is empty.

    Raises:
        InputError: ``window`` below 1, or a value that is not finite.

    Source: the selection rule of Dai et al. (2025), arXiv 2510.17299, as its released code has it.

    Example:
        >>> local_maxima([1.0, 3.0, 2.0, 0.0, 5.0])
        (1, 4)
    """
    _check(values, window)
    return tuple(
        i
        for i, value in enumerate(values)
        if value == max(values[max(0, i - window) : i + window + 1])
    )


def shortlist(
    values: Sequence[float], *, window: int = WINDOW, size: int = SHORTLIST_SIZE
) -> tuple[int, ...]:
    """The highest local maxima, highest first, the earlier of two equal ones first.

    Args:
        values: the curve in order of step; finite.
        window: checkpoints on either side, at least 1.
        size: how many are kept at most, at least 1. Fewer maxima make a shorter list.

    Returns:
        Positions by falling value.

    Raises:
        InputError: ``window`` or ``size`` below 1, or a value that is not finite.

    Source: Dai et al. (2025), arXiv 2510.17299: "local maxima, top three".

    Example:
        >>> shortlist([1.0, 3.0, 2.0, 0.0, 5.0])
        (4, 1)
    """
    if size < 1:
        raise InputError(f"shortlist size is {size}; it must be at least 1")
    maxima = local_maxima(values, window=window)
    return tuple(sorted(maxima, key=lambda i: (-values[i], i))[:size])


def pick_peak(
    values: Sequence[float],
    *,
    window: int = WINDOW,
    size: int = SHORTLIST_SIZE,
    tolerance: float = TOLERANCE,
) -> int:
    """The one position to use: the highest peak of the shortlist that was seen to fall.

    A maximum has been seen to fall when a whole window lies after it. The first such member of
    the shortlist is picked if it comes within ``tolerance`` of the curve's range
    (``max - min``) of the highest value; if none does, the highest value is picked. So a rise
    at the end of a run, which may not have ended, gives way to an earlier peak about as
    high, but a small bump early in a run that goes on rising is not taken for the best.

    Args:
        values: the curve in order of step; finite, at least one.
        window: checkpoints on either side, at least 1.
        size: length of the shortlist, at least 1; with 1 the highest value is always picked.
        tolerance: fraction of the curve's range, from 0 to 1.

    Returns:
        A position, always a member of the shortlist.

    Raises:
        InputError: no values, a value that is not finite, or an argument out of its range.

    Source: this package; the paper stops at the shortlist.

    Deviations: the raw maximum, which the shortlist begins with, is not always picked: on the
        paper's DINO curve it is the last epoch, whose mIoU is half of the best.

    Example:
        >>> pick_peak([0.0, 0.95, 0.5, 0.1, 0.4, 0.8, 1.0])
        1
        >>> pick_peak([0.0, 0.35, 0.3, 0.3, 0.4, 0.8, 1.0])
        6
    """
    if not 0 <= tolerance <= 1:
        raise InputError(f"tolerance is {tolerance}; it is a fraction of the range, from 0 to 1")
    listed = shortlist(values, window=window, size=size)
    if not listed:
        raise InputError("there are no values to pick from; score a checkpoint first")
    bar = values[listed[0]] - tolerance * (max(values) - min(values))
    for position in listed:
        if seen_to_fall(position, len(values), window) and values[position] >= bar:
            return position
    return listed[0]


def seen_to_fall(position: int, count: int, window: int) -> bool:
    """Whether a whole window of checkpoints lies after a position."""
    return position + window < count


def _check(values: Sequence[float], window: int) -> None:
    if window < 1:
        raise InputError(f"window is {window}; it must be at least 1 checkpoint on either side")
    bad = [i for i, value in enumerate(values) if not math.isfinite(value)]
    if bad:
        raise InputError(f"value {bad[0]} is {values[bad[0]]}; leave such checkpoints out first")
