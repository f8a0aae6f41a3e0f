"""The interval of tau over simulated runs whose true tau is known.

``python -m tests.correlation.test_interval`` prints benchmarks/results/tau-interval.md.
"""

from __future__ import annotations

import math
import random

import pytest

from densescope.correlation.kendall import tau_interval, tau_over_checkpoints


def curves(count: int, memory: float, rho: float, chance: random.Random) -> list[list[float]]:
    """Two stationary first-order autoregressive curves with correlation ``rho``."""
    pair = [[0.0], [0.0]]
    scale = math.sqrt(1 - memory**2)
    for step in range(count):
        first = chance.gauss(0, 1)
        second = rho * first + math.sqrt(1 - rho**2) * chance.gauss(0, 1)
        for curve, shock in zip(pair, (first, second), strict=True):
            curve.append(shock if step == 0 else memory * curve[-1] + scale * shock)
    return [curve[1:] for curve in pair]


def coverage(count: int, memory: float, rho: float, runs: int, seed: int = 0) -> tuple[float, ...]:
    """Share of known intervals that hold the true tau, and their mean width."""
    chance = random.Random(seed)
    truth = 2 / math.pi * math.asin(rho)
    held: list[bool] = []
    widths: list[float] = []
    for _ in range(runs):
        tau = tau_over_checkpoints(*curves(count, memory, rho, chance))
        interval = None if tau is None else tau_interval(tau, 0.95)
        if interval is not None:
            held.append(interval[0] <= truth <= interval[1])
            widths.append(interval[1] - interval[0])
    return sum(held) / len(held), sum(widths) / len(widths), len(held) / runs


@pytest.mark.parametrize(("count", "memory"), [(8, 0.5), (12, 0.0), (12, 0.8), (20, 0.8)])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_interval_holds_the_true_tau(count: int, memory: float, rho: float) -> None:
    held, width, _ = coverage(count, memory, rho, 200)
    assert held > 0.9
    assert width < 1.6


def main() -> None:
    print("| checkpoints | memory | true tau | coverage | mean width | interval known |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in (6, 8, 12, 20, 40):
        for memory in (0.0, 0.5, 0.8, 0.95):
            for rho in (0.0, 0.8):
                held, width, known = coverage(count, memory, rho, 400)
                truth = 2 / math.pi * math.asin(rho)
                cells = f"{truth:.2f} | {held:.2f} | {width:.2f} | {known:.2f}"
                print(f"| {count} | {memory} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
