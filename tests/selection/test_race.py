"""The rule of a race: what is open, what is settled, and how often it errs."""

from __future__ import annotations

import random

import pytest
from benchmarks.race import NOISES, SHAPES, outcomes, raced, simulated

from densescope.errors import InputError
from densescope.estimate import Estimate
from densescope.selection.race import Race, undecided

BLOCKS = 16


def values(numbers: list[float], noise: float = 1e-3, seed: int = 0) -> list[Estimate]:
    """With replicates that have noise of their own."""
    chance = random.Random(seed)
    return [Estimate(x, tuple(x + chance.gauss(0, noise) for _ in range(BLOCKS))) for x in numbers]


def opened(numbers: list[float], *, noise: float = 1e-3, done: int = 1) -> list[int]:
    """Separability and effective rank say the same, so DSE is twice the numbers."""
    rounds = [
        [[one] * done for one in part]
        for part in (values(numbers, noise), values(numbers, noise, seed=1))
    ]
    return list(undecided(*rounds, Race()))


def test_a_clear_peak_leaves_nothing_open() -> None:
    assert opened([0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0]) == []


def test_two_neighbors_as_high_as_each_other_stay_open_and_only_they() -> None:
    assert opened([0.0, 1.0, 2.0, 3.0, 3.001, 2.0, 1.0, 0.0]) == [3, 4]


def test_two_distant_peaks_stay_open_until_their_order_is_sure() -> None:
    curve = [0.0, 1.0, 3.0, 1.0, 0.5, 0.0, 1.0, 3.001, 1.0, 0.0]
    assert opened(curve) == [2, 7]
    assert opened(curve, noise=1e-5) == []


def test_what_lies_below_a_hill_is_settled_although_its_summit_is_not() -> None:
    tail = [2.8, 2.801, 2.8, 2.801, 2.8]
    assert opened([0.0, 2.9, 3.0, 3.001, 2.9, *tail]) == [2, 3]


def test_what_is_below_a_neighbor_is_settled_where_no_fall_was_seen() -> None:
    assert opened([0.0, 0.0, 0.0, 2.9, 2.901, 3.0]) == []


def test_the_last_one_left_needs_no_more_images() -> None:
    """Number 2 cannot be told from 1 on its single round, but 3 on all rounds rules 1 out."""

    def part(seed: int) -> list[list[Estimate]]:
        curve = [0.0, 2.9, 3.5, 3.2, 0.0, 0.0]
        quiet, loud = values(curve, 1e-6, seed), values(curve, 0.13, seed)
        rows = [[one] * 7 for one in quiet]
        return [rows[0], rows[1][:1], [loud[2]] * 7, *rows[3:]]

    assert undecided(part(0), part(1), Race()) == ()


def test_a_hill_whose_fall_was_not_seen_settles_only_what_is_beyond_tolerance() -> None:
    """The run may go on rising: an earlier peak within tolerance of the end may be the pick."""
    assert opened([0.0, 2.5, 2.501, 1.0, 0.5, 2.9, 3.0]) == [1, 2]
    assert opened([0.0, 1.5, 1.501, 1.0, 0.5, 2.9, 3.0]) == []


def test_a_hill_must_be_surely_higher_than_what_surrounds_it() -> None:
    """Number 4 is no hill, as 6 is higher; nothing rules out the early peak, which may be taken."""
    assert opened([2.9, 2.901, 0.0, 0.0, 2.95, 2.97, 3.0]) == [0, 1]
    assert opened([0.0, 3.0, 2.9, 3.001, 1.0, 3.0, 0.0, 0.0]) == [1, 3, 5]


def test_one_that_may_hide_a_possible_pick_stays_open() -> None:
    """Number 3 surely is not the pick (5 is higher), but it may lie above number 1."""
    curve = [0.0, 2.7, 0.0, 2.701, 0.0, 2.9, 3.0]
    assert opened(curve) == [1, 3]


def test_more_noise_opens_more_and_more_rounds_close_it() -> None:
    curve = [0.0, 1.0, 2.0, 2.9, 3.0, 2.9, 2.0, 1.0]
    few, many = (set(opened(curve, noise=noise)) for noise in (0.003, 0.03))
    assert few < many
    assert set(opened(curve, noise=0.03, done=7)) < many
    assert opened(curve, noise=0.03, done=8) == []


def test_without_replicates_or_lambda_everything_is_open() -> None:
    bare = [Estimate(x) for x in (0.0, 1.0, 0.0)]
    rounds = [[one] for one in bare]
    assert undecided(rounds, rounds, Race()) == (0, 1, 2)
    rounds = [[one] for one in values([0.0, 1.0])]
    assert undecided(rounds, rounds, Race(), definition="paper") == (0, 1)
    assert undecided(rounds, rounds, Race()) == ()


def test_equal_checkpoints_are_never_told_apart() -> None:
    assert opened([1.0] * 5, noise=0.0) == [0, 1, 2, 3, 4]


def test_the_error_of_lambda_counts() -> None:
    """Two that trade separability for effective rank are as sure as lambda is."""
    high = [[one] for one in values([0.0, 3.0, 0.0, 0.0, 1.0, 0.0, 0.0], 1e-6)]
    wide = values([0.0, 1.0, 0.0, 0.0, 3.05, 0.0, 0.0], 1e-6)
    assert undecided(high, [[one] for one in wide], Race(), definition="paper") == ()
    wide[0] = Estimate(0.0, tuple(0.004 * block - 0.03 for block in range(BLOCKS)))
    assert undecided(high, [[one] for one in wide], Race(), definition="paper") == (1, 4)
    assert undecided(high, [[one] for one in wide], Race()) == ()  # lambda 1 has no error


def test_impossible_races_are_sentences() -> None:
    with pytest.raises(InputError, match="round_size is 1; it must be at least 2 images"):
        Race(round_size=1)
    with pytest.raises(InputError, match="rounds is 0; it must be at least 1"):
        Race(rounds=0)
    with pytest.raises(InputError, match="alpha is 1; it must lie between 0 and 1"):
        Race(alpha=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_simulated_races_err_no_more_often_than_alpha_and_save(shape: str) -> None:
    runs = 30
    found = outcomes(shape, NOISES["0.08"], Race(), runs)
    wrong = sum(one.worse or one.lost for one in found)
    assert wrong <= 5  # of 30 at most 0.05 wrong: 6 or more have a chance of 0.3 %
    images = sum(one.images for one in found) / runs
    bound = {"all equal": 1.0, "rise to a plateau": 0.85, "still rising": 0.8}.get(shape, 0.7)
    assert images <= bound
    assert max(one.regret for one in found) < 0.05


def test_a_race_stops_nobody_before_its_first_round() -> None:
    race = Race(rounds=4)
    parts = simulated(SHAPES["two peaks"], 0.02, race, random.Random(0))
    done = raced(*parts, race)
    assert min(done) == 1
    assert max(done) <= 4
