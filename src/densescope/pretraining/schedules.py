"""Numbers that change over a run."""

from __future__ import annotations

import math


def cosine(step: int, *, steps: int, start: float, end: float, warmup: int = 0) -> float:
    """A linear rise from 0 to ``start``, then half a cosine from ``start`` to ``end``.

    Args:
        step: from 0 to ``steps - 1``.
        steps: length of the run.
        start: value at step ``warmup``.
        end: value at step ``steps - 1``.
        warmup: steps of the rise; step 0 has ``start / warmup``.

    Returns:
        The value at the step; ``end`` beyond the run.

    Example:
        >>> [round(cosine(i, steps=7, start=1.0, end=0.0, warmup=2), 3) for i in range(7)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return start * (step + 1) / warmup
    progress = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def ramp(step: int, *, steps: int, start: float, end: float) -> float:
    """A straight line from ``start`` at step 0 to ``end`` at ``steps``, then ``end``.

    Example:
        >>> [ramp(i, steps=2, start=0.0, end=1.0) for i in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """
    return end if step >= steps else start + (end - start) * step / steps
