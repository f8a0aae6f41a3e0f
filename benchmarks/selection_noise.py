"""What the intervals of a selection hold: coverage of simulated runs with lambda held fixed.

    python benchmarks/selection_noise.py

Every image adds its own number to separability and to dimension of every checkpoint; part of
it is shared by all checkpoints. "Truth" is the curve without images. Lambda is taken once,
as ``select_checkpoints`` does (fixed), or again without each block (re-estimated). The second
part shows why comparisons with a pick chosen after looking need more than plain intervals.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

from densescope.estimate import Estimate
from densescope.metrics.lambdas import run_lambda

BLOCKS, LEVEL, RUNS = 16, 0.95, 500


@dataclass(frozen=True)
class Part:
    """One part of DSE: its true curve and its block means, ``checkpoints x blocks``."""

    truth: list[float]
    blocks: list[list[float]]

    def values(self) -> list[float]:
        return [statistics.fmean(row) for row in self.blocks]

    def without(self, block: int) -> list[float]:
        return [(sum(row) - row[block]) / (len(row) - 1) for row in self.blocks]


def simulated(truth: list[float], noise: float, generator: random.Random) -> Part:
    shared = [generator.gauss(0, noise) for _ in range(BLOCKS)]
    rows = [[t + s + generator.gauss(0, noise) for s in shared] for t in truth]
    return Part(truth, rows)


def curves(count: int) -> tuple[list[float], list[float]]:
    """A rise and a fall of separability, and a slow fall of dimension; both span 1."""
    half = count // 2
    separability = [1 - abs(i - half) / half for i in range(count)]
    return separability, [1 - i / (count - 1) for i in range(count)]


def covered(separability: Part, effective_rank: Part, *, fixed: bool) -> tuple[bool, float]:
    """Whether the interval of middle minus last holds the truth, and its half width."""
    lambda_ = run_lambda(separability.values(), effective_rank.values())[0] or 1.0
    truth_lambda = run_lambda(separability.truth, effective_rank.truth)[0] or 1.0
    pick, last = len(effective_rank.truth) // 2, -1

    def difference(s: list[float], d: list[float], w: float) -> float:
        return s[pick] - s[last] + w * (d[pick] - d[last])

    replicates = []
    for block in range(BLOCKS):
        s, d = separability.without(block), effective_rank.without(block)
        replicates.append(difference(s, d, lambda_ if fixed else run_lambda(s, d)[0] or 1.0))
    value = difference(separability.values(), effective_rank.values(), lambda_)
    interval = Estimate(value, tuple(replicates)).interval(LEVEL)
    assert interval is not None
    truth = difference(separability.truth, effective_rank.truth, truth_lambda)
    return interval[0] <= truth <= interval[1], interval[1] - value


def called_worse(count: int, level: float, runs: int = 100) -> float:
    """Fraction of equal checkpoints called worse than the highest of them."""
    generator, calls = random.Random(0), []
    for _ in range(runs):
        part = simulated([1.0] * count, 0.3, generator)
        estimates = [
            Estimate(value, tuple(part.without(b)[i] for b in range(BLOCKS)))
            for i, value in enumerate(part.values())
        ]
        pick = max(estimates, key=lambda estimate: estimate.value)
        intervals = [pick.minus(other).interval(level) for other in estimates if other is not pick]
        calls += [interval is not None and interval[0] > 0 for interval in intervals]
    return statistics.fmean(calls)


def print_called_worse(count: int = 40) -> None:
    print(f"\nOf {count} equal checkpoints, fraction called worse than the highest\n")
    for name, level in (("plain", LEVEL), ("Bonferroni", 1 - (1 - LEVEL) / (count - 1))):
        print(f"- {name}: {called_worse(count, level):.3f}")


def main() -> None:
    print("| checkpoints | noise of a block | lambda | coverage | mean half width |")
    print("| --- | --- | --- | --- | --- |")
    for count in (5, 10, 40):
        for noise in (0.02, 0.1, 0.4):
            generator = random.Random(0)
            truth = curves(count)
            runs = [tuple(simulated(t, noise, generator) for t in truth) for _ in range(RUNS)]
            for fixed in (True, False):
                results = [covered(s, d, fixed=fixed) for s, d in runs]
                coverage = statistics.fmean(hit for hit, _ in results)
                width = statistics.fmean(half for _, half in results)
                word = "fixed" if fixed else "re-estimated"
                print(f"| {count} | {noise} | {word} | {coverage:.3f} | {width:.4f} |")
    print_called_worse()


if __name__ == "__main__":
    main()
