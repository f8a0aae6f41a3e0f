"""Estimates: the jackknife on numbers where it is known on paper."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from densescope.errors import InputError
from densescope.estimate import Estimate, student_quantile


def leave_one_out_means(values: list[float]) -> tuple[float, ...]:
    total = sum(values)
    return tuple((total - value) / (len(values) - 1) for value in values)


def test_the_jackknife_of_a_mean_is_its_classical_standard_error() -> None:
    values = [0.3, 1.2, -0.4, 2.5, 0.9]
    estimate = Estimate(statistics.fmean(values), leave_one_out_means(values))
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert estimate.standard_error == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.3, 1.2, -0.4, 2.5, 0.9]
    estimate = Estimate(statistics.fmean(values), leave_one_out_means(values))
    low, high = estimate.interval(0.95) or (0.0, 0.0)
    error = statistics.stdev(values) / math.sqrt(5)
    assert (low + high) / 2 == pytest.approx(0.9)
    assert (high - low) / 2 == pytest.approx(2.776445 * error, rel=1e-6)


def test_pairing_removes_what_two_checkpoints_share() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(16, generator=generator).tolist()
    own = torch.randn(16, generator=generator).mul(0.01).tolist()
    first = [s + 1.0 for s in shared]
    second = [s + o for s, o in zip(shared, own, strict=True)]
    a = Estimate(statistics.fmean(first), leave_one_out_means(first))
    b = Estimate(statistics.fmean(second), leave_one_out_means(second))
    paired = a.minus(b).standard_error
    assert paired is not None
    assert a.standard_error is not None
    assert paired < 0.05 * a.standard_error


def test_estimates_on_other_blocks_do_not_pair() -> None:
    with pytest.raises(InputError, match="cannot pair 2 with 3 replicates: score both"):
        Estimate(1.0, (1.0, 1.0)).minus(Estimate(1.0, (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("replicates", [(), (1.0,)])
def test_no_interval_without_replicates(replicates: tuple[float, ...]) -> None:
    assert Estimate(1.0, replicates).standard_error is None
    assert Estimate(1.0, replicates).interval() is None


def test_json_round_trip() -> None:
    full = Estimate(1.5, (1.0, 2.0), 0.25, "few images")
    assert Estimate.from_json(full.to_json()) == full
    assert Estimate(2.0).to_json() == {"value": 2.0}
    assert math.isnan(Estimate.from_json({"value": None}).value)


def test_student_quantile_of_a_table() -> None:
    assert student_quantile(0.95, 15) == pytest.approx(2.13145, abs=1e-5)
