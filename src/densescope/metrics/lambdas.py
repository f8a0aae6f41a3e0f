"""Lambda, the weight of the effective rank in DSE: of a run of checkpoints, or by another rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from densescope.definitions import DEFINITIONS, check_definition
from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.metrics.metric import Derived, Series

LambdaName = Literal["1", "run", "shrunk"]
LAMBDA_NAMES: tuple[LambdaName, ...] = get_args(LambdaName)
LEAST_CHECKPOINTS = 3
NO_SPREAD = 1e-9  # of the largest value: below it a spread is rounding
LITTLE_SPREAD = 0.01  # of the largest rank: below it lambda is mostly noise
_UNDEFINED = "Lambda is not defined"


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


def fixed_lambda(
    separability: Sequence[float], effective_rank: Sequence[float], *, definition: str = "released"
) -> tuple[float | None, str]:
    """Lambda 1 whatever the run, and a sentence about it; see :func:`run_lambda`.

    Raises:
        InputError: the two parts of the definition have different units.
    """
    lambda_rule(definition, "1")
    return 1.0, "DSE is separability + effective rank (lambda = 1)."


def shrunk_lambda(
    separability: Sequence[float], effective_rank: Sequence[float], *, definition: str = "released"
) -> tuple[float | None, str]:
    """Lambda of the run, shrunk towards 1 where the effective rank hardly varies.

    ``lambda = ratio ** w`` with ``ratio`` of :func:`run_lambda`, ``w = v / (v + t)``, ``v`` the
    variance of the effective rank over the run and ``t = (0.01 * its largest value) ** 2``.

    A ratio is divided by a spread that may be next to nothing: on two image sets of one run it was
    0.27 and 6.2. A power of it treats a ratio and its inverse alike. ``w`` is near 1 where
    the rank varies by several percent, 1/2 at 1 % (where :func:`lambda_warning` begins), and
    goes to 0 faster than the logarithm of the ratio grows, so that lambda is 1 without spread.

    Args:
        separability: ``M_inter - M_intra`` of each checkpoint.
        effective_rank: ``M_dim`` of each checkpoint, in the same order.
        definition: row of :data:`~densescope.definitions.DEFINITIONS`.

    Returns:
        Lambda, 1 where :func:`run_lambda` is not defined; and a sentence about it.

    Raises:
        InputError: as :func:`run_lambda`; or the two parts of the definition have different units,
            for which 1 is no natural value.

    Source: this package.

    Example:
        >>> lambda_, _ = shrunk_lambda([0.0, 0.1, 0.2], [0.400, 0.401, 0.402])
        >>> round(lambda_, 2)
        1.2
    """
    lambda_rule(definition, "shrunk")
    ratio, note = run_lambda(separability, effective_rank, definition=definition)
    if ratio is None or note.startswith(_UNDEFINED):
        return ratio, note
    variance = _spread(effective_rank) ** 2
    little = (LITTLE_SPREAD * max(abs(value) for value in effective_rank)) ** 2
    weight = variance / (variance + little)
    lambda_ = ratio**weight
    return lambda_, (
        f"DSE is separability + {lambda_:.4g} x effective rank; lambda is the ratio of this run "
        f"({ratio:.4g}) to the power of {weight:.2g}, nearer to 1 the less the effective rank "
        "varies."
    )


@dataclass(frozen=True)
class LambdaChoice:
    """A rule for lambda.

    Attributes:
        name: in options and tables.
        find: separability and effective rank of the checkpoints and ``definition`` to lambda, or
            ``None`` where the rule has none, and a sentence about it.
        label: the rule in words, after "with".
    """

    name: LambdaName
    find: Callable[..., tuple[float | None, str]]
    label: str


LAMBDAS: dict[str, LambdaChoice] = {
    row.name: row
    for row in (
        LambdaChoice("1", fixed_lambda, "lambda 1"),
        LambdaChoice("run", run_lambda, "the run's lambda"),
        LambdaChoice("shrunk", shrunk_lambda, "shrunk lambda"),
    )
}


def lambda_rule(definition: str, choice: str | None = None) -> LambdaChoice:
    """The rule for lambda of a definition.

    Args:
        definition: row of :data:`~densescope.definitions.DEFINITIONS`.
        choice: row of ``LAMBDAS``; by default ``"1"`` where the two parts of the definition have
            one unit, and else ``"run"``, which is the only one there.

    Raises:
        InputError: no such definition or rule, or the rule is not ``"run"`` and the two parts of
            the definition have different units.

    Deviations: the paper has lambda of the run. In our study lambda 1 chose better
        (docs/explanation/does-it-work.md).
    """
    has_one_unit = check_definition(definition).lambda_by_default is not None
    if choice is None:
        return LAMBDAS["1" if has_one_unit else "run"]
    if choice not in LAMBDAS:
        raise InputError(f"lambda is {choice!r}; it must be one of {', '.join(LAMBDAS)}")
    if choice != "run" and not has_one_unit:
        known = " or ".join(
            row.name for row in DEFINITIONS.values() if row.lambda_by_default is not None
        )
        raise InputError(
            f"lambda {choice} does not go with the definition {definition}, which has the run's "
            "lambda only: its two parts have different units, and 1 is no natural weight between "
            f"them. Leave lambda out, or take the definition {known}"
        )
    return LAMBDAS[choice]


def dse_name(definition: str, choice: str | None = None) -> str:
    """The metric that is DSE by a definition and a rule: ``released.dse_lambda_1``.

    Raises:
        InputError: as :func:`lambda_rule`.
    """
    return f"{definition}.dse_lambda_{lambda_rule(definition, choice).name}"


def weighted_sum(
    definition: str, choice: str, separability: Series, effective_rank: Series
) -> Derived:
    """DSE of the checkpoints of a run by one definition and one rule for lambda."""
    lambda_, note = lambda_rule(definition, choice).find(
        [estimate.value for estimate in separability.values()],
        [estimate.value for estimate in effective_rank.values()],
        definition=definition,
    )
    if lambda_ is None:
        return Derived({}, note)
    sums = {
        name: linear_combination(separability[name], effective_rank[name], lambda_)
        for name in separability
    }
    return Derived(sums, note, lambda_)


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
    rule = f"{_UNDEFINED} {where}"
    if default is None:
        return None, f"{rule}: DSE of this definition is left open, only its parts are shown."
    return default, f"{rule}: {default:g} is used."


def linear_combination(first: Estimate, second: Estimate, factor: float) -> Estimate:
    """``first + factor * second`` replicate by replicate, the factor held fixed.

    The spreads over clustering seeds add like independent ones; the notes are joined.
    """
    pairs = zip(first.replicates, second.replicates, strict=True)
    replicates = tuple([a + factor * b for a, b in pairs])
    spread = None
    if first.seed_spread is not None or second.seed_spread is not None:
        spread = math.hypot(first.seed_spread or 0.0, factor * (second.seed_spread or 0.0))
    notes = dict.fromkeys(note for note in (first.note, second.note) if note)
    value = first.value + factor * second.value
    return Estimate(value, replicates, spread, "; ".join(notes) or None)


def _spread(values: Sequence[float]) -> float:
    center = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / len(values))
