"""Numbers that change over a run."""

from __future__ import annotations

import math

import pytest

from densescope.pretraining.optimizers import cosine, ramp


def test_cosine_rises_then_falls_and_ends_where_it_should() -> None:
    values = [cosine(i, steps=110, start=2.0, end=0.5, warmup=10) for i in range(110)]
    assert values[0] == pytest.approx(0.2)
    assert values[9] == values[10] == 2.0
    assert values[:10] == sorted(values[:10])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[109] == 0.5
    middle = 10 + 99 / 2
    assert cosine(int(middle), steps=110, start=2.0, end=0.5, warmup=10) == pytest.approx(
        0.5 + 1.5 * (1 + math.cos(math.pi * 49 / 99)) / 2
    )
    assert cosine(500, steps=110, start=2.0, end=0.5) == 0.5
    assert cosine(0, steps=1, start=2.0, end=0.5) == 2.0


def test_cosine_also_rises() -> None:
    values = [cosine(i, steps=5, start=0.04, end=0.4) for i in range(5)]
    assert values == sorted(values)
    assert (values[0], values[2], values[-1]) == pytest.approx((0.04, 0.22, 0.4))


def test_ramp_without_steps_is_at_its_end() -> None:
    assert ramp(0, steps=0, start=1.0, end=3.0) == 3.0
    assert ramp(1, steps=4, start=1.0, end=3.0) == 1.5
