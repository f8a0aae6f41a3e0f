"""Claims about chance, by simulation with fixed seeds."""

from __future__ import annotations

import math

import pytest

from densescope.selection import select_checkpoints
from tests.selection.runs import noisy_run

RUNS = 300
FLAT = [1.0] * 8


def test_the_paired_interval_covers_at_its_level() -> None:
    """Fixed pair, lambda fixed: sampling error of 300 runs at 95% is 1.3 points."""
    truth = [0.0, 1.0, 4.0, 2.0, 1.0, 0.5, 0.4, 0.2, 0.1, 0.0]
    hits = 0
    for seed in range(RUNS):
        selection = select_checkpoints(noisy_run(truth, truth, noise=0.5, seed=seed))
        assert selection.lambda_ is not None
        assert selection.pick == "epoch30.pth"
        assert selection.change is not None
        interval = selection.change.dse.interval(0.95)
        assert interval is not None
        hits += interval[0] <= -4 * (1 + selection.lambda_) <= interval[1]
    assert hits / RUNS == pytest.approx(0.95, abs=0.04)


def contains_the_best(seed: int, *, bonferroni: bool) -> bool:
    """Whether the truly best of nearly equal checkpoints is not called worse than the pick."""
    truth = [*FLAT[:3], 1.001, *FLAT[4:]]
    selection = select_checkpoints(noisy_run(truth, truth, noise=0.3, seed=seed))
    pick, best = selection.row(str(selection.pick)), selection.rows[3]
    assert pick.dse is not None
    assert best.dse is not None
    interval = pick.dse.minus(best.dse).interval(selection.comparison_level if bonferroni else 0.95)
    assert interval is not None
    return interval[0] <= 0


def test_what_is_not_below_the_pick_holds_the_best_checkpoint() -> None:
    """Plain intervals do not: the pick was chosen after looking."""
    together = sum(contains_the_best(seed, bonferroni=True) for seed in range(RUNS)) / RUNS
    plain = sum(contains_the_best(seed, bonferroni=False) for seed in range(RUNS)) / RUNS
    assert together >= 0.95
    assert plain < 0.93


def test_more_images_tell_more_apart() -> None:
    truth = [0.0, 1.0, 0.9, 0.2, 0.1, 0.0]

    def undecided(noise: float) -> int:
        runs = (noisy_run(truth, truth, noise=noise, seed=seed) for seed in range(20))
        return sum(r.below_noise_of_pick for run in runs for r in select_checkpoints(run).rows)

    assert undecided(1.0) > undecided(1.0 / math.sqrt(16)) > undecided(0.001) == 0
