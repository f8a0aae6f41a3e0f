"""Lambda, the weight of the effective rank in DSE, which belongs to a run of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence

from densescope.definitions import check_definition
from densescope.errors import InputError
from densescope.estimate import Estimate

LEAST_CHECKPOINTS = 3
NO_SPREAD = 1e-9  # of the largest value: below it a spread is rounding
LITTLE_SPREAD = 0.01  # of the largest rank: below it lambda is mostly noise


def run_lambda(
    separability: Sequence[float], effective_rank: Sequence[float], *, definition: str = "released"
) -> tuple[float | None, str]:
    """Lambda of a run of checkpoints, and a sentence about it.

    ``lambda = std(separability) / std(effective rank)``, so that both parts move DSE equally over
    the run. In ``(0, inf)``; unchanged by shifts of either part. Both standard deviations are of
    the population (``ddof=0``); the sample's would give the same ratio, as the factor cancels.

    With fewer than three checkpoints, or a part without spread, the ratio means nothing:
    lambda is then ``lambda_by_default`` of the definition: 1 for ``"released"``, whose parts are
    normalized, and ``None`` for ``"paper"``, whose effective rank of hundreds would swamp the rest.

    Args:
        separability: ``M_inter - M_intra`` of each checkpoint.
        effective_rank: ``M_dim`` of each checkpoint, in the same order.
        definition: row of :data:`~densescope.definitions.DEFINITIONS`.

    Returns:
        Lambda or ``None``, and a sentence or two for the reader, with that of
        :func:`lambda_warning` where it applies.

    Raises:
        InputError: an unknown definition, or two lengths.

    Source: Dai et al. (2025), arXiv 2510.17299.

    Deviations: the paper names no lambda where the ratio is undefined; 1 and none are ours.

    Example:
        >>> run_lambda([0.0, 1.0, 2.0], [0.0, 2.0, 4.0])[0]
        0.5
    """
    default = check_definition(definition).lambda_by_default
    if len(separability) != len(effective_rank):
        raise InputError(
            f"{len(separability)} values of separability and {len(effective_rank)} of the "
            "effective rank; give one of each per checkpoint"
        )
    count = len(effective_rank)
    if count < LEAST_CHECKPOINTS:
        return _undefined(default, f"with {count} scored checkpoint{'s' * (count != 1)}")
    for name, values in (("separability", separability), ("effective rank", effective_rank)):
        if _spread(values) <= NO_SPREAD * max(abs(value) for value in values):
            return _undefined(default, f"where the {name} is the same in all checkpoints")
    lambda_ = _spread(separability) / _spread(effective_rank)
    warning = lambda_warning(effective_rank)
    note = (
        f"DSE is separability + {lambda_:.4g} x effective rank; lambda is "
        f"std(separability) / std(effective rank) over the {count} scored "
        "checkpoints, so it changes when more of them arrive."
    )
    return lambda_, note if warning is None else f"{note} {warning}"


def lambda_warning(effective_rank: Sequence[float]) -> str | None:
    """A warning where the effective rank hardly varies, so that lambda magnifies differences.

    Args:
        effective_rank: ``M_dim`` of each checkpoint of a run that has a lambda.

    Returns:
        The sentence, where the standard deviation is below 1% of the largest value; else ``None``.
    """
    low, high = min(effective_rank), max(effective_rank)
    if _spread(effective_rank) >= LITTLE_SPREAD * max(abs(low), abs(high)):
        return None
    return (
        f"The effective rank hardly varies over the run ({low:.4g} to {high:.4g}), and lambda "
        "makes these small differences count as much as those of separability: look at "
        "separability alone, too."
    )


def _undefined(default: float | None, where: str) -> tuple[float | None, str]:
    rule = f"Lambda is not defined {where}"
    if default is None:
        return None, f"{rule}: DSE of this definition is left open, only its parts are shown."
    return default, f"{rule}: {default:g} is used."


def linear_combination(first: Estimate, second: Estimate, factor: float) -> Estimate:
    """``first + factor * second`` replicate by replicate, the factor held fixed.

    The spreads over clustering seeds add like independent ones; the notes are joined.
    """
    replicates = tuple(
        a + factor * b for a, b in zip(first.replicates, second.replicates, strict=True)
    )
    spread = None
    if first.seed_spread is not None or second.seed_spread is not None:
        spread = math.hypot(first.seed_spread or 0.0, factor * (second.seed_spread or 0.0))
    notes = dict.fromkeys(note for note in (first.note, second.note) if note)
    value = first.value + factor * second.value
    return Estimate(value, replicates, spread, "; ".join(notes) or None)


def _spread(values: Sequence[float]) -> float:
    center = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / len(values))
