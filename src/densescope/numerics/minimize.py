"""Minima of convex functions of which something is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

SLACK = 1e-6  # rounding of a value that was summed in single precision
Function = Callable[[Tensor], tuple[float, Tensor]]
Step = Callable[[Tensor], Tensor]


def minimize(
    function: Function,
    start: Tensor,
    step: Step,
    *,
    gradient_norm: float,
    iterations: int,
    history: int,
) -> tuple[Tensor, float, Tensor, int]:
    """L-BFGS on a convex function, with a given first guess of the inverse curvature.

    Args:
        function: value and gradient.
        start: where to begin.
        step: a gradient times the guess.
        gradient_norm: at which it ends.
        iterations: after which it ends in any case.
        history: updates that are remembered.

    Returns:
        The point, its value and gradient, and how often the function was called.

    Source: Nocedal (1980); the step is halved until it has gained enough, or, where gains drown in
        rounding, until the slope along it says so (Hager and Zhang 2005).
    """
    updates: list[tuple[Tensor, Tensor, float]] = []
    point, calls = start, 1
    value, gradient = function(point)
    for _ in range(iterations):
        if float(gradient.norm()) <= gradient_norm:
            break
        direction = -_two_loops(gradient, updates, step)
        slope = float((gradient * direction).sum())
        length = 1.0
        while True:
            there = point + length * direction
            new_value, new_gradient = function(there)
            calls += 1
            gained = new_value <= value + 1e-4 * length * slope
            level = abs(new_value - value) <= SLACK * max(1.0, abs(value))
            flat = float((new_gradient * direction).sum()) <= -0.8 * slope
            if gained or (level and flat) or length < 1e-6:
                break
            length /= 2
        moved, turned = there - point, new_gradient - gradient
        bent = float((moved * turned).sum())
        if bent > 1e-12 * float(turned.square().sum()):
            updates = [*updates[-(history - 1) :], (moved, turned, 1 / bent)]
        point, value, gradient = there, new_value, new_gradient
        if not math.isfinite(value):
            break
    return point, value, gradient, calls


def _two_loops(
    gradient: Tensor, updates: Sequence[tuple[Tensor, Tensor, float]], step: Step
) -> Tensor:
    left = gradient.clone()
    parts = []
    for moved, turned, inverse in reversed(updates):
        part = inverse * float((moved * left).sum())
        parts.append(part)
        left -= part * turned
    made = step(left)
    for (moved, turned, inverse), part in zip(updates, reversed(parts), strict=True):
        made += (part - inverse * float((turned * made).sum())) * moved
    return made
