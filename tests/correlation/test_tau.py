"""Correlation of label-free numbers with probes: tau known on paper, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densescope.correlation import correlate, kendall_tau, mean_correlation
from densescope.correlation.kendall import (
    blocks_of,
    kendall_taus,
    tau_interval,
    tau_over_checkpoints,
)
from densescope.correlation.tau import CLOCK
from densescope.errors import InputError, RecordError
from densescope.estimate import Estimate
from tests.correlation.runs import name_of, probe, run_of, score

HUMP = [0.1, 0.4, 0.9, 1.0, 0.8, 0.5, 0.3, 0.2]


def tau_b(first: list[int], second: list[int]) -> float | None:
    """Kendall (1945) by counting pairs."""
    sign = lambda v: (v > 0) - (v < 0)  # noqa: E731
    pairs = [
        (sign(first[i] - first[j]), sign(second[i] - second[j]))
        for i, j in itertools.combinations(range(len(first)), 2)
    ]
    untied = [sum(a != 0 for a, _ in pairs), sum(b != 0 for _, b in pairs)]
    if 0 in untied:
        return None
    return sum(a * b for a, b in pairs) / math.sqrt(untied[0] * untied[1])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=9))
def test_tau_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    expected = tau_b(first, second)
    found = kendall_tau(first, second)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("count", [2, 25, 33, 100])
def test_many_taus_at_once_are_those_of_each_pair(count: int) -> None:
    chance = random.Random(count)
    first, second = ([[chance.randint(0, 9) for _ in range(count)] for _ in "abc"] for _ in "ab")
    alone = [kendall_tau(*pair) for pair in zip(first, second, strict=True)]
    assert kendall_taus(first, second) == (alone if count > 2 else None)
    assert kendall_taus([*first, [1.0] * count], [*second, first[0]]) is None  # one is constant
    assert kendall_taus([*first, [math.nan] * count], [*second, first[0]]) is None


def test_tau_of_ties_is_known_on_paper() -> None:
    # six pairs: one tied in the first only, the five others concordant
    assert kendall_tau([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(5 * 6))


def test_tau_refuses_what_it_cannot_rank() -> None:
    with pytest.raises(InputError, match="3 numbers and 2 of the other kind; give one of each"):
        kendall_tau([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="a number is not finite; leave such checkpoints out"):
        kendall_tau([1, 2, math.nan], [1, 2, 3])


@pytest.mark.parametrize(("sign", "tau"), [(1, 1.0), (-1, -1.0)])
def test_one_order_and_the_opposite(sign: int, tau: float) -> None:
    scores, probes = run_of(HUMP, [0.3 + 0.1 * sign * value for value in HUMP])
    row = correlate(scores, probes).row("released.separability")
    assert row.tau is not None
    assert row.tau.value == pytest.approx(tau)
    assert row.interval is None
    assert row.note == (
        "too few checkpoints to judge by tau (8 of at least 10); "
        "tau is the same whichever block of checkpoints is left out: its interval is not known"
    )


def test_a_measure_where_lower_is_better_is_turned() -> None:
    scores, probes = run_of(HUMP, [1 - value / 2 for value in HUMP])
    rmse = [replace(one, measure="rmse") for one in probes]
    assert value_of(correlate(scores, rmse).row("released.separability").tau) == pytest.approx(1)
    assert value_of(correlate(scores, probes).row("released.separability").tau) == pytest.approx(-1)


def test_raw_numbers_are_not_turned() -> None:
    away = [1 + abs(1 - value) for value in HUMP]  # best checkpoint nearest to 1
    scores, probes = run_of(HUMP, HUMP, numbers={"alpha_req": away, "outlier_fraction": away})
    found = correlate(scores, probes)
    assert value_of(found.row("alpha_req").tau) == pytest.approx(-1)
    assert value_of(found.row("outlier_fraction").tau) == pytest.approx(-1)


def test_every_scored_metric_has_a_row_and_says_why_it_has_no_tau() -> None:
    scores, probes = run_of(HUMP, HUMP)
    found = correlate(scores, probes)
    sums = ("dse_lambda_run", "dse_lambda_shrunk")
    parts = (*sums, "separability", "effective_rank", "inter", "intra")
    assert [row.number for row in found.rows] == [f"released.{part}" for part in parts]
    assert found.tau("lidar") is None
    with pytest.raises(RecordError, match="no number is named 'paper.intra'; there are: checkp"):
        found.row("paper.intra")  # it was not scored
    assert (
        found.row("released.effective_rank").note == "the number is the same for all 8 checkpoints"
    )
    assert found.row("released.effective_rank").tau is None
    flat = correlate(scores, [replace(one, values=(0.5,)) for one in probes])
    note = flat.row("released.separability").note
    assert note == "the measure is the same for all 8 checkpoints"
    with pytest.raises(
        RecordError, match="no number is named 'dse'; there are: checkpoint_number, rel"
    ):
        found.row("dse")


def test_the_number_of_the_checkpoint_is_judged_as_a_metric_is() -> None:
    course = [0.1, 0.3, 0.2, 0.5, 0.4, 0.6, 0.8, 0.7]  # three pairs of 28 out of order
    scores, probes = run_of(HUMP, course)
    clock = correlate(scores, probes).clock
    assert value_of(clock.tau) == pytest.approx(22 / 28)
    assert clock.interval is not None
    assert clock.images_error is None  # no image has a part in it
    timed = correlate(*run_of([float(i) for i in range(8)], course))
    assert timed.row("released.separability").tau == timed.clock.tau
    assert value_of(timed.difference("released.separability", CLOCK)) == pytest.approx(0)
    turned = correlate(scores, [replace(one, measure="rmse") for one in probes]).clock
    assert value_of(turned.tau) == pytest.approx(-22 / 28)
    assert mean_correlation([timed]).clock.cells["voc2012"].value == pytest.approx(22 / 28)


def test_lambda_is_that_of_all_scored_checkpoints() -> None:
    # over all five lambda is 10 / 1, over the three that were probed it is 1 / 1
    separability, effective_rank = [0.0, 1.0, 2.0, 20.0, 40.0], [1.0, 0.0, 0.2, 1.0, 0.0]
    scores, probes = run_of(separability, [0.1, 0.2, 0.3, 0.4, 0.5], effective_rank)
    found = correlate(scores, probes[:3]).row("released.dse_lambda_run")
    assert found.checkpoints == 3
    assert value_of(found.tau) == pytest.approx(-1 / 3)  # 30, 1, 8 against .1, .2, .3


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(8)), st.permutations(range(8)))
def test_the_order_of_records_does_not_matter(ours: list[int], theirs: list[int]) -> None:
    scores, probes = run_of(HUMP, [0.1, 0.5, 0.3, 0.9, 0.7, 0.8, 0.2, 0.1])
    expected = correlate(scores, probes)
    assert correlate([scores[i] for i in ours], [probes[i] for i in theirs]) == expected


def test_few_checkpoints_have_no_tau_or_no_interval() -> None:
    scores, probes = run_of(HUMP, [0.1, 0.3, 0.2, 0.5, 0.4, 0.6, 0.8, 0.7])
    two = correlate(scores, probes[:2]).row("released.separability")
    assert two.tau is None
    assert two.note == "2 checkpoints have both numbers; tau needs 3"
    one = correlate(scores, probes[:1]).row("released.separability")
    assert one.note == "1 checkpoint has both numbers; tau needs 3"
    five = correlate(scores, probes[:5]).row("released.separability")
    assert five.tau is not None
    assert five.interval is None
    assert five.note == (
        "too few checkpoints to judge by tau (5 of at least 10); 5 are too few for an interval; "
        "it needs 6"
    )
    eight = correlate(scores, probes).row("released.separability")
    assert eight.interval is not None
    assert eight.note == "too few checkpoints to judge by tau (8 of at least 10)"
    ten = [0.1, 0.5, 0.3, 0.9, 0.7, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert correlate(*run_of(ten, ten[::-1])).row("released.separability").note is None


def test_checkpoints_with_one_of_the_two_are_named() -> None:
    scores, probes = run_of(HUMP, HUMP)
    failed = [*probes[:6], replace(probes[6], values=(), status="failed", error="out of memory")]
    found = correlate(scores[1:], failed)
    assert found.checkpoints == tuple(name_of(i) for i in range(1, 6))
    assert found.left_out == (name_of(0), name_of(6), name_of(7))


def test_a_number_missing_in_some_checkpoints_says_how_many_it_has() -> None:
    scores, probes = run_of(HUMP, HUMP, numbers={"lidar": HUMP})
    del scores[0].scores["-1"]["lidar"]  # type: ignore[attr-defined]
    found = correlate(scores, probes)
    assert found.row("lidar").checkpoints == 7
    assert found.difference("lidar", "released.separability") is None


def test_two_numbers_are_compared_over_the_same_blocks() -> None:
    measures = [0.1, 0.5, 0.9, 0.8, 0.95, 0.4, 0.3, 0.2]
    numbers = {"rankme": [1.0, 2.0, 5.0, 3.0, 8.0, 7.0, 6.0, 4.0]}
    scores, probes = run_of(HUMP, measures, numbers=numbers)
    found = correlate(scores, probes)
    difference = found.difference("released.separability", "rankme")
    assert difference is not None
    assert difference.value == pytest.approx(
        value_of(found.row("released.separability").tau) - value_of(found.row("rankme").tau)
    )
    assert len(difference.replicates) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "knn"}, r"differ in their protocol: linear and knn; their values do not"),
        ({"dataset": "ade20k"}, r"differ in their data set: voc2012 and ade20k"),
        ({"measure": "accuracy"}, r"differ in their measure: miou and accuracy"),
        ({"unit": "step"}, r"differ in their unit of steps: epoch and step; give the probes of"),
        ({"provenance": {"settings": {"epochs": 9}}}, r"differ in their settings: not stated and"),
        ({"name": name_of(2)}, r"two probes are of checkpoint0002.pth; give one probe per"),
        ({"step": 9}, r"score and probe of checkpoint0007.pth differ in their step: 7 and 9"),
        (
            {"checkpoint": {"sha256": "other", "format": "dino"}},
            r"of checkpoint0007.pth differ in their sha256: hash 7 and other; score and probe the",
        ),
        ({"checkpoint": {"format": "mae"}}, r"differ in their format: dino and mae; give the"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, object], message: str) -> None:
    scores, probes = run_of(HUMP, HUMP)
    with pytest.raises(RecordError, match=message):
        correlate(scores, [*probes[:-1], replace(probes[-1], **changes)])  # type: ignore[arg-type]


def test_nothing_to_compare_says_what_to_do() -> None:
    scores, probes = run_of(HUMP, HUMP)
    with pytest.raises(RecordError, match="there are no probes; probe some checkpoints"):
        correlate(scores, [])
    failed = [replace(probes[0], values=(), status="failed", error="no such data set")]
    with pytest.raises(RecordError, match=r"none of the 1 probes has a value; .*no such data set"):
        correlate(scores, failed)
    with pytest.raises(RecordError, match="no checkpoint was scored; score the checkpoints"):
        correlate([], probes)
    with pytest.raises(RecordError, match="no checkpoint has both a score and a probe"):
        correlate(scores[:4], probes[4:])
    unknown = [replace(one, measure="pixie") for one in probes]
    with pytest.raises(RecordError, match="not known whether a higher 'pixie' is better; known"):
        correlate(scores, unknown)
    with pytest.raises(InputError, match="level is 95; it must lie between 0 and 1"):
        correlate(scores, probes, level=95)


def test_the_interval_widens_with_the_level_and_stays_inside() -> None:
    chance = random.Random(1)
    curve = [chance.random() for _ in range(20)]
    other = [value + chance.random() / 2 for value in curve]
    tau = tau_over_checkpoints(curve, other)
    assert tau is not None
    narrow, wide = tau_interval(tau, 0.8), tau_interval(tau, 0.99)
    assert narrow is not None
    assert wide is not None
    assert -1 < wide[0] < narrow[0] < tau.value < narrow[1] < wide[1] < 1


def test_blocks_are_consecutive_and_cover_everything() -> None:
    assert blocks_of(10) == [(0, 3), (3, 6), (6, 8), (8, 10)]


def test_the_noise_of_images_is_the_jackknife_of_tau() -> None:
    """Without noise in the images it is 0; block 1 swaps the two lowest checkpoints."""
    curve = [0.1, 0.2, 0.3, 0.4, 0.5]
    scores = [
        score(i, Estimate(v, (v, v, v)), Estimate(0.5, (0.5,) * 3)) for i, v in enumerate(curve)
    ]
    probes = [probe(i, v) for i, v in enumerate(curve)]
    assert correlate(scores, probes).row("released.separability").images_error == 0
    scores[0] = score(0, Estimate(0.1, (0.1, 0.25, 0.1)), Estimate(0.5, (0.5,) * 3))
    found = correlate(scores, probes).row("released.separability").images_error
    taus = Estimate(1.0, (1.0, 0.8, 1.0))
    assert found == pytest.approx(taus.standard_error)


def test_the_noise_of_seeds_is_the_jackknife_of_tau() -> None:
    scores, _ = run_of([0.1, 0.2, 0.3, 0.4], [0.0] * 4)
    swapped = [(0.1, 0.3), (0.2, 0.2), (0.3, 0.5), (0.4, 0.6)]
    probes = [probe(i, *values) for i, values in enumerate(swapped)]
    row = correlate(scores, probes).row("released.separability")
    taus = Estimate(0.0, (4 / 6, 1.0))  # seed 1 alone has one discordant pair
    assert row.seeds_error == pytest.approx(taus.standard_error)
    uneven = [*probes[:-1], probe(3, 0.4)]
    assert correlate(scores, uneven).row("released.separability").seeds_error is None


def test_the_document_is_plain() -> None:
    scores, probes = run_of(HUMP, [0.1, 0.5, 0.9, 0.8, 0.95, 0.4, 0.3, 0.2])
    document = correlate(scores, probes).to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["schema"] == 2


def value_of(tau: Estimate | None) -> float:
    assert tau is not None
    return tau.value
