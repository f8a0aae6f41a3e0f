from __future__ import annotations

import math

import pytest

from densescope.estimate import Estimate
from densescope.report.readings import NOT_FINITE, Column, Curve, Reading, decimals_for, plain


def test_a_reading_carries_the_interval_of_its_estimate() -> None:
    estimate = Estimate(1.0, (0.9, 1.0, 1.1), seed_spread=0.02, note="few images")
    reading = Reading.of(estimate)
    assert reading is not None
    assert (reading.low, reading.high) == pytest.approx(estimate.interval())
    assert (reading.seed_spread, reading.note) == (0.02, "few images")


def test_no_replicates_no_interval() -> None:
    assert Reading.of(Estimate(2.0)) == Reading(2.0)
    assert Reading(2.0).text(1) == "2.0"
    assert Reading(2.0).low is None
    assert Reading.of(None) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_says_so(value: float) -> None:
    reading = Reading.of(Estimate(value, (value, 1.0, 2.0)))
    assert reading is not None
    assert not reading.finite
    assert reading.half is None
    assert reading.text(2) == reading.change(2) == NOT_FINITE


def test_a_change_shows_its_sign_and_both_ends() -> None:
    assert Reading(0.2, 0.05).change(2) == "+0.20 [0.15,\N{NO-BREAK SPACE}0.25]"
    assert Reading(-0.2, 0.3).change(1) == "−0.2 [−0.5,\N{NO-BREAK SPACE}0.1]"
    assert Reading(0.2).change(1) == "+0.2"


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([], 3), ([0.0], 3), ([250.0], 0), ([1.0, 1.5], 3), ([1.0, 41.0], 1), ([1, 1 + 1e-12], 6)],
)
def test_decimals_follow_the_range(values: list[float], decimals: int) -> None:
    assert decimals_for(values) == decimals


def test_numbers_have_a_true_minus_and_no_negative_zero() -> None:
    assert plain(-1.5, 1) == "−1.5"
    assert plain(-0.001, 2) == "0.00"
    assert plain(2.5e9, 3) == "2.5e+09"


def test_a_curve_without_a_finite_number_is_empty() -> None:
    column = Column("key", "Title", "unit")
    assert Curve(column, (None, Reading(math.nan))).empty
    assert not Curve(column, (None, Reading(1.0))).empty


def test_a_column_shows_two_digits_of_its_smallest_error() -> None:
    readings = (Reading(14.06132, 0.75743), Reading(14.06571, 0.8), None, Reading(math.nan, 0.1))
    curve = Curve(Column("dse", "DSE", ""), readings)
    assert decimals_for([14.06132, 14.06571]) == 5
    assert readings[0].text(curve.decimals) == "14.06 ± 0.76"
    wide = (Reading(1.0, 0.0004), Reading(9.0))
    assert Curve(Column("dse", "DSE", ""), wide).decimals == decimals_for([1.0, 9.0]) == 2
    sure = (Reading(1.01, 0.0), Reading(1.02, 0.0))
    assert Curve(Column("dse", "DSE", ""), sure).decimals == 4
