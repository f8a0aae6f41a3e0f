from __future__ import annotations

import math

import pytest

from densescope.estimate import Estimate
from densescope.report.values import (
    NOT_FINITE,
    Curve,
    Heading,
    ShownValue,
    decimals_for,
    plain_value,
)


def test_a_reading_carries_the_interval_of_its_estimate() -> None:
    estimate = Estimate(1.0, (0.9, 1.0, 1.1), seed_spread=0.02, note="few images")
    shown = ShownValue.of(estimate)
    assert shown is not None
    assert (shown.low, shown.high) == pytest.approx(estimate.interval())
    assert (shown.seed_spread, shown.note) == (0.02, "few images")


def test_no_replicates_no_interval() -> None:
    assert ShownValue.of(Estimate(2.0)) == ShownValue(2.0)
    assert ShownValue(2.0).text(1) == "2.0"
    assert ShownValue(2.0).low is None
    assert ShownValue.of(None) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_says_so(value: float) -> None:
    shown = ShownValue.of(Estimate(value, (value, 1.0, 2.0)))
    assert shown is not None
    assert not shown.finite
    assert shown.half is None
    assert shown.text(2) == shown.change(2) == NOT_FINITE


def test_a_change_shows_its_sign_and_both_ends() -> None:
    assert ShownValue(0.2, 0.05).change(2) == "+0.20 [0.15,\N{NO-BREAK SPACE}0.25]"
    assert ShownValue(-0.2, 0.3).change(1) == "−0.2 [−0.5,\N{NO-BREAK SPACE}0.1]"
    assert ShownValue(0.2).change(1) == "+0.2"


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([], 3), ([0.0], 3), ([250.0], 0), ([1.0, 1.5], 3), ([1.0, 41.0], 1), ([1, 1 + 1e-12], 6)],
)
def test_decimals_follow_the_range(values: list[float], decimals: int) -> None:
    assert decimals_for(values) == decimals


def test_numbers_have_a_true_minus_and_no_negative_zero() -> None:
    assert plain_value(-1.5, 1) == "−1.5"
    assert plain_value(-0.001, 2) == "0.00"
    assert plain_value(2.5e9, 3) == "2.5e+09"


def test_a_curve_without_a_finite_number_is_empty() -> None:
    column = Heading("key", "Title", "unit")
    assert Curve(column, (None, ShownValue(math.nan))).empty
    assert not Curve(column, (None, ShownValue(1.0))).empty


def test_a_column_shows_two_digits_of_its_smallest_error() -> None:
    values = (
        ShownValue(14.06132, 0.75743),
        ShownValue(14.06571, 0.8),
        None,
        ShownValue(math.nan, 0.1),
    )
    curve = Curve(Heading("dse", "DSE", ""), values)
    assert decimals_for([14.06132, 14.06571]) == 5
    assert values[0].text(curve.decimals) == "14.06 ± 0.76"
    wide = (ShownValue(1.0, 0.0004), ShownValue(9.0))
    assert Curve(Heading("dse", "DSE", ""), wide).decimals == decimals_for([1.0, 9.0]) == 2
    sure = (ShownValue(1.01, 0.0), ShownValue(1.02, 0.0))
    assert Curve(Heading("dse", "DSE", ""), sure).decimals == 4
