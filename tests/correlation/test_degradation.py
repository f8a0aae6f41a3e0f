"""Degradation: the winner's curse is paid for, and a real drop is found."""

from __future__ import annotations

import json
import math
import random
import statistics
from dataclasses import replace

import pytest

from densescope.correlation import find_degradation
from densescope.correlation.noise import chance_of_larger, many_to_one_quantile, seed_noise
from densescope.errors import InputError, RecordError
from densescope.estimate import Estimate, student_quantile
from tests.correlation.runs import a_set, name_of, noisy_probes, probe, run_of, score

NOISE = 0.01
FLAT = [0.5] * 12
FALLING = [0.40, 0.46, 0.50, 0.53, 0.55, 0.54, 0.53, 0.52, 0.51, 0.50, 0.49, 0.48]


def test_noise_is_known_on_paper() -> None:
    # what is left after checkpoint and seed means: +-1/2 each
    noise = seed_noise([(0.0, 3.0), (1.0, 2.0)])
    assert noise is not None
    assert noise.paired
    assert noise.degrees_of_freedom == 1
    assert noise.deviation == pytest.approx(1.0)  # 4 x 1/4
    uneven = seed_noise([(0.0, 2.0), (1.0,)])
    assert uneven is not None
    assert not uneven.paired
    assert (uneven.degrees_of_freedom, uneven.deviation) == (1, pytest.approx(math.sqrt(2)))


def test_what_seeds_share_is_no_noise() -> None:
    chance = random.Random(0)
    alone = noisy_probes(FLAT, 4, NOISE, chance)
    shifted = [
        replace(
            one, values=tuple(v + s for v, s in zip(one.values, (0.3, -0.1, 0, 0.2), strict=True))
        )
        for one in alone
    ]
    ours = seed_noise([one.values for one in alone])
    theirs = seed_noise([one.values for one in shifted])
    assert ours is not None
    assert theirs is not None
    assert theirs.deviation == pytest.approx(ours.deviation)


def test_one_comparison_is_students() -> None:
    found = many_to_one_quantile(0.025, [3], 3, 10)
    assert found == pytest.approx(student_quantile(0.95, 10), rel=1e-4)


def test_dunnetts_table() -> None:
    """One-sided 5 %, 20 degrees of freedom: 2.30 for 4 treatments, 2.60 for 9 (Dunnett 1955)."""
    assert many_to_one_quantile(0.05, [5] * 4, 5, 20) == pytest.approx(2.30, abs=0.006)
    assert many_to_one_quantile(0.05, [5] * 9, 5, 20) == pytest.approx(2.60, abs=0.006)


def test_the_chance_of_a_maximum_is_that_of_simulated_ones() -> None:
    chance = random.Random(0)
    counts, control, degrees, hits, draws = (5, 1, 3), 2, 4, 0, 20000
    for _ in range(draws):
        s = math.sqrt(sum(chance.gauss(0, 1) ** 2 for _ in range(degrees)) / degrees)
        last = chance.gauss(0, 1 / math.sqrt(control))
        largest = max(
            (chance.gauss(0, 1 / math.sqrt(n)) - last) / (s * math.sqrt(1 / n + 1 / control))
            for n in counts
        )
        hits += largest > 1.5
    assert chance_of_larger(1.5, counts, control, degrees) == pytest.approx(hits / draws, abs=0.01)


@pytest.mark.parametrize("shared", [0.0, 0.05])
def test_a_run_of_pure_noise_is_rarely_called_degraded(shared: float) -> None:
    """Nominal 2.5 %; the naive best minus last is above 0 nearly always."""
    chance = random.Random(3)
    runs = [find_degradation(noisy_probes(FLAT, 3, NOISE, chance, shared)) for _ in range(300)]
    assert sum(run.degraded is True for run in runs) / 300 == pytest.approx(0.025, abs=0.02)
    assert sum((run.p_value or 0) < 0.1 for run in runs) / 300 == pytest.approx(0.1, abs=0.04)
    assert statistics.fmean(run.drop for run in runs) > 0.8 * NOISE


def test_a_rising_run_is_never_called_degraded() -> None:
    chance = random.Random(0)
    rising = [0.3 + 0.02 * i for i in range(12)]
    runs = [find_degradation(noisy_probes(rising, 3, NOISE, chance)) for _ in range(40)]
    assert not any(run.degraded for run in runs)


def test_a_real_drop_is_found_and_its_interval_holds() -> None:
    chance = random.Random(0)
    runs = [find_degradation(noisy_probes(FALLING, 3, NOISE, chance)) for _ in range(100)]
    truth = max(FALLING) - FALLING[-1]
    assert all(run.degraded for run in runs)
    held = [
        run.interval is not None and run.interval[0] <= truth <= run.interval[1] for run in runs
    ]
    assert statistics.fmean(held) >= 0.93


def test_the_held_out_drop_pays_for_the_winners_curse() -> None:
    chance = random.Random(0)
    runs = [find_degradation(noisy_probes(FLAT, 4, NOISE, chance)) for _ in range(300)]
    naive = statistics.fmean(run.drop for run in runs)
    held_out = statistics.fmean(run.held_out_drop or 0.0 for run in runs)
    assert naive > 0.7 * NOISE
    assert abs(held_out) < 0.15 * NOISE


def test_the_held_out_drop_is_known_on_paper() -> None:
    # seed 1 chooses checkpoint 1, 0.4 - 0.3 ahead on seed 0; seed 0 chooses 0, 0.1 - 0.5 on seed 1
    found = find_degradation([probe(0, 0.6, 0.1), probe(1, 0.4, 0.7), probe(2, 0.3, 0.5)])
    assert found.held_out_drop == pytest.approx((0.1 - 0.4) / 2)
    assert find_degradation([probe(0, 0.6), probe(1, 0.5, 0.5)]).held_out_drop is None


def test_with_counts_of_images_the_best_is_chosen_on_half_of_them() -> None:
    few = find_degradation(a_set("a", [0.50, 0.70, 0.68, 0.60]))
    assert few.held_out_window == 1
    assert "on the other, the best checkpoint is " in few.verdict
    found = find_degradation(a_set("a", [0.5, 0.6, 0.7, 0.7, 0.7, 0.65, 0.6, 0.6, 0.6]))
    assert (found.held_out_window, found.blocks) == (3, 16)
    assert found.held_out_drop is not None
    assert found.held_out_interval is not None
    low, high = found.held_out_interval
    assert low < found.held_out_drop < high
    assert found.held_out_drop < found.drop
    assert f"the best 3 checkpoints in a row are {100 * found.held_out_drop:.2f}" in found.verdict
    assert "ahead of the last ones." in found.verdict


def test_one_seed_claims_nothing() -> None:
    found = find_degradation([probe(0, 0.5), probe(1, 0.7), probe(2, 0.3)])
    assert (found.best, found.last, found.drop) == (name_of(1), name_of(2), pytest.approx(0.4))
    assert (found.degraded, found.interval, found.p_value, found.noise) == (None,) * 4
    assert found.verdict == (
        "checkpoint0001.pth (epoch 1) has a better mIoU on voc2012 than the last, "
        "checkpoint0002.pth (epoch 2): 70.00 against 30.00 %. Each probe has a single seed or too "
        "few: its noise is unknown, so whether this is degradation is not known, and the best of 3 "
        "values is too good by chance alone."
    )


def test_seeds_that_agree_do_not_pass_for_certainty() -> None:
    found = find_degradation([probe(0, 0.7, 0.7), probe(1, 0.3, 0.3), probe(2, 0.5, 0.5)])
    assert found.degraded is None
    assert "The seeds of the probe give the same values: its noise is unknown" in found.verdict


def test_a_degraded_run_says_by_how_much_and_what_moved() -> None:
    probes = noisy_probes(FALLING, 3, 0.002, random.Random(0))
    scores = [
        score(
            i, Estimate(v, (v - 0.001, v, v + 0.001)), Estimate(0.5 + (i % 3 == 0) / 10, (0.5,) * 3)
        )
        for i, v in enumerate(FALLING)
    ]
    found = find_degradation(probes, scores)
    assert found.change is not None
    assert found.change.moved == "separability"
    assert found.best == name_of(4)
    assert found.verdict.startswith(
        "The run degraded: mIoU on voc2012 fell from checkpoint0004.pth (epoch 4) to the last, "
        "checkpoint0011.pth (epoch 11), 5"
    )
    assert "Between the two separability moved DSE" in found.verdict
    assert "Chosen on some seeds and measured on the others, the best is " in found.verdict


def test_a_drop_that_dse_does_not_see_is_said() -> None:
    probes = noisy_probes(FALLING, 3, 0.002, random.Random(0))
    scores, _ = run_of([i / 10 for i in range(12)], FALLING, [i / 10 for i in range(12)])
    verdict = find_degradation(probes, scores).verdict
    assert verdict.endswith(
        "DSE did not fall between the two: without labels this would not have been seen."
    )


def test_noise_alone_is_told_from_a_drop() -> None:
    found = find_degradation([probe(0, 0.50, 0.52), probe(1, 0.51, 0.50), probe(2, 0.49, 0.51)])
    assert found.degraded is False
    assert found.verdict.startswith("Degradation is not shown: ")
    assert "of runs without degradation; a drop of up to" in found.verdict


def test_a_last_checkpoint_that_is_best_shows_none() -> None:
    found = find_degradation([probe(0, 0.5, 0.51), probe(1, 0.6, 0.59), probe(2, 0.6, 0.59)])
    assert (found.best, found.drop, found.degraded) == (name_of(2), 0.0, False)
    assert found.verdict.startswith(
        "No degradation is seen: the last probed checkpoint, checkpoint0002.pth (epoch 2), has the "
        "best mIoU on voc2012, 59.50 %; a drop of up to"
    )
    alone = find_degradation([probe(0, 0.5, 0.6)])
    assert alone.degraded is None
    assert "Only checkpoint0000.pth (epoch 0) was probed: degradation cannot" in alone.verdict


def test_lower_is_better_for_an_error() -> None:
    falling = noisy_probes(FALLING, 3, 0.002, random.Random(0))
    errors = [
        replace(one, measure="rmse", values=tuple(1 - v for v in one.values)) for one in falling
    ]
    ours, theirs = find_degradation(falling), find_degradation(errors)
    assert theirs.best == ours.best
    assert theirs.drop == pytest.approx(ours.drop)
    assert theirs.degraded is True
    assert theirs.best_value == pytest.approx(1 - ours.best_value)


def test_probes_that_failed_are_named() -> None:
    failed = replace(probe(3, 0.5), values=(), status="failed", error="out of memory")
    found = find_degradation([probe(0, 0.5, 0.6), probe(1, 0.4, 0.5), failed])
    assert found.last == name_of(1)
    assert found.verdict.endswith("Left out without a value: checkpoint0003.pth.")


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(RecordError, match="differ in their protocol: linear and knn"):
        find_degradation([probe(0, 0.5), probe(1, 0.4, protocol="knn")])
    with pytest.raises(RecordError, match=r"differ in their sha256: x and hash 0"):
        find_degradation([probe(0, 0.5), probe(1, 0.4)], [score(0, 1.0, sha="x"), score(1, 1.0)])
    with pytest.raises(InputError, match="level is 0; it must lie between 0 and 1"):
        find_degradation([probe(0, 0.5)], level=0)


def test_the_document_is_plain() -> None:
    probes = noisy_probes(FALLING, 3, 0.002, random.Random(0))
    scores, _ = run_of(FALLING, FALLING, [i / 10 for i in range(12)])
    document = find_degradation(probes, scores).to_json()
    assert json.loads(json.dumps(document)) == document
