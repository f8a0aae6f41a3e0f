"""How far the values of a labelled probe can be trusted, from its own seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

NODES = 64
TAIL = 8.5  # the normal density is below 1e-16 there
NO_NOISE = 1e-12


@dataclass(frozen=True)
class SeedNoise:
    """Noise of one seed of a probe, pooled over the checkpoints of a run.

    Attributes:
        deviation: standard deviation of one value around its checkpoint.
        degrees_of_freedom: of that deviation.
        paired: the seeds of all checkpoints were taken to be the same, and what they share, a
            seed that is high for every checkpoint, was removed.
    """

    deviation: float
    degrees_of_freedom: int
    paired: bool

    def error_of_difference(self, first: int, second: int) -> float:
        """Standard error of the difference of two means over so many seeds."""
        return self.deviation * math.sqrt(1 / first + 1 / second)


def seed_noise(values: Sequence[tuple[float, ...]]) -> SeedNoise | None:
    """Pooled noise of one seed; ``None`` where no checkpoint has two, or all seeds agree.

    With equally many seeds each, seed ``i`` of all checkpoints is taken to be the same and its mean
    over checkpoints is removed: ``(checkpoints - 1) (seeds - 1)`` degrees of freedom. Else the
    spread within each checkpoint is pooled.
    """
    counts = {len(row) for row in values}
    paired = len(counts) == 1 and len(values) > 1
    centered = [[v - math.fsum(row) / len(row) for v in row] for row in values]
    degrees = sum(len(row) - 1 for row in values)
    if paired:
        shared = [math.fsum(column) / len(values) for column in zip(*centered, strict=True)]
        centered = [[v - s for v, s in zip(row, shared, strict=True)] for row in centered]
        degrees -= len(shared) - 1
    if degrees < 1:
        return None
    squares = math.fsum(v * v for row in centered for v in row)
    deviation = math.sqrt(squares / degrees)
    scale = max(abs(v) for row in values for v in row)
    return SeedNoise(deviation, degrees, paired) if deviation > NO_NOISE * scale else None


def chance_of_larger(
    statistic: float, counts: Sequence[int], control: int, degrees_of_freedom: int
) -> float:
    """Chance that the largest of several differences from one checkpoint exceeds a number.

    ``P(max_i T_i > statistic)`` for ``T_i = (mean_i - mean_0) / (s sqrt(1/n_i + 1/n_0))`` when all
    checkpoints are equally good: the differences share ``mean_0`` and ``s``.

    Args:
        statistic: the largest difference in units of its standard error.
        counts: seeds of each of the other checkpoints, at least one.
        control: seeds of the checkpoint they are compared with.
        degrees_of_freedom: of ``s``.

    Source: Dunnett (1955), "A multiple comparison procedure for comparing several treatments with
        a control"; one-sided, by quadrature.
    """
    import numpy as np
    from scipy.special import gammaincinv, ndtr

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    z, z_weights = TAIL * nodes, TAIL * weights * np.exp(-((TAIL * nodes) ** 2) / 2)
    z_weights /= math.sqrt(2 * math.pi)
    probability, p_weights = (nodes + 1) / 2, weights / 2
    chi_square = 2 * gammaincinv(degrees_of_freedom / 2, probability)
    scale = np.sqrt(chi_square / degrees_of_freedom)
    inside = np.ones((NODES, NODES))
    for count, times in Counter(counts).items():
        loading = math.sqrt((1 / control) / (1 / count + 1 / control))
        bound = statistic * scale[:, None] + loading * z[None, :]
        inside *= ndtr(bound / math.sqrt(1 - loading**2)) ** times
    return float(1 - p_weights @ inside @ z_weights)


def many_to_one_quantile(
    probability: float, counts: Sequence[int], control: int, degrees_of_freedom: int
) -> float:
    """The number that :func:`chance_of_larger` gives this chance."""
    return _quantile(probability, tuple(sorted(counts)), control, degrees_of_freedom)


@lru_cache(maxsize=64)
def _quantile(probability: float, counts: tuple[int, ...], control: int, degrees: int) -> float:
    from scipy.optimize import brentq

    def excess(statistic: float) -> float:
        return chance_of_larger(statistic, counts, control, degrees) - probability

    top = 8.0
    while excess(top) > 0 and top < 1e6:
        top *= 4
    return float(brentq(excess, -8.0, top, xtol=1e-8))
