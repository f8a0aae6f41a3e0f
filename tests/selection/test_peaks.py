from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densescope.errors import InputError
from densescope.selection import local_maxima, pick_peak, shortlist

CURVES = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ()),
        ([5.0], (0,)),
        ([1.0, 2.0], (1,)),
        ([2.0, 1.0], (0,)),
        ([1.0, 2.0, 3.0, 4.0], (3,)),
        ([0.0, 3.0, 0.0, 0.0, 0.0, 4.0, 0.0], (1, 5)),
        ([0.0, 3.0, 0.0, 4.0, 0.0, 0.0], (3,)),  # within two of a higher one
        ([0.0, 3.0, 0.0, 0.0, 4.0, 0.0], (1, 4)),  # three away
        ([1.0, 3.0, 3.0, 1.0], (1, 2)),  # a tie counts twice
        ([3.0, 1.0, 3.0], (0, 2)),
        ([2.0] * 6, (0, 1, 2, 3, 4, 5)),
        ([9.0, 0.0, 0.0, 1.0, 0.0, 0.0, 9.0], (0, 3, 6)),  # both cut ends
    ],
)
def test_local_maxima_of_known_curves(values: list[float], expected: tuple[int, ...]) -> None:
    assert local_maxima(values) == expected


def test_a_wider_window_keeps_fewer() -> None:
    values = [0.0, 3.0, 0.0, 4.0, 0.0, 0.0]
    assert local_maxima(values, window=1) == (1, 3, 5)
    assert local_maxima(values, window=2) == (3,)


def test_shortlist_is_the_highest_first_and_the_earlier_of_a_tie() -> None:
    values = [5.0, 0.0, 0.0, 7.0, 0.0, 0.0, 5.0, 0.0, 0.0, 7.0, 0.0, 0.0]
    assert shortlist(values) == (3, 9, 0)
    assert shortlist(values, size=5) == (3, 9, 0, 6)
    assert shortlist([1.0, 1.0, 1.0, 1.0]) == (0, 1, 2)


def test_the_pick_needs_a_whole_window_after_it() -> None:
    assert pick_peak([0.0, 0.9, 0.0, 0.0, 0.0, 0.8, 1.0, 0.9, 0.8]) == 6
    assert pick_peak([0.0, 0.9, 0.0, 0.0, 0.0, 0.8, 1.0, 0.9]) == 1


def test_the_tolerance_is_a_fraction_of_the_range_and_includes_its_end() -> None:
    values = [2.0, 5.0, 2.0, 2.0, 2.0, 6.0]
    assert pick_peak(values, tolerance=0.25) == 1
    assert pick_peak(values, tolerance=0.24) == 5


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], 0),
        ([1.0, 2.0], 1),
        ([2.0, 1.0], 0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 4),  # rising: the end
        ([5.0, 4.0, 3.0, 2.0, 1.0], 0),  # falling: the start
        ([3.0] * 8, 0),  # constant: the first
    ],
)
def test_pick_of_curves_without_a_peak(values: list[float], expected: int) -> None:
    assert pick_peak(values) == expected


def test_a_shortlist_of_one_picks_the_highest() -> None:
    values = [0.0, 0.9, 0.0, 0.0, 0.0, 1.0]
    assert pick_peak(values) == 1
    assert pick_peak(values, size=1) == 5


@given(CURVES, st.integers(1, 4), st.integers(1, 5))
def test_the_pick_is_in_the_shortlist_and_the_shortlist_among_the_candidates(
    values: list[float], window: int, size: int
) -> None:
    listed = shortlist(values, window=window, size=size)
    assert pick_peak(values, window=window, size=size) in listed
    assert set(listed) <= set(local_maxima(values, window=window))
    assert values[listed[0]] == max(values)
    assert len(listed) <= size


@given(CURVES, st.sampled_from([0.5, 2.0, 8.0]), st.integers(-5, 5))
def test_shift_and_scale_change_no_position(values: list[float], scale: float, shift: int) -> None:
    moved = [scale * value + shift for value in values]
    assert local_maxima(moved) == local_maxima(values)
    assert shortlist(moved) == shortlist(values)
    assert pick_peak(moved, tolerance=0.25) == pick_peak(values, tolerance=0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: local_maxima([1.0], window=0), "window is 0; it must be at least 1"),
        (lambda: shortlist([1.0], size=0), "shortlist size is 0; it must be at least 1"),
        (lambda: local_maxima([1.0, math.nan]), "value 1 is nan; leave such checkpoints out"),
        (lambda: pick_peak([]), "there are no values to pick from"),
        (lambda: pick_peak([1.0], tolerance=1.5), "tolerance is 1.5; it is a fraction"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# The paper's normalized curves: METHOD's claims, and the regret of benchmarks/results/pick-rule.md.


@pytest.fixture(scope="module")
def curves(shared: Path) -> dict[str, list[tuple[int, float, float]]]:
    found: dict[str, list[tuple[int, float, float]]] = {}
    with (shared / "paper" / "figure_curves.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            point = (int(row["epoch"]), float(row["miou_norm"]), float(row["dse_norm"]))
            found.setdefault(row["method"], []).append(point)
    return found


@pytest.mark.shared
def test_the_raw_maximum_fails_on_dino_and_the_shortlist_does_not(
    curves: dict[str, list[tuple[int, float, float]]],
) -> None:
    points = curves["dino"]
    listed = [points[i] for i in shortlist([dse for _, _, dse in points])]
    assert [epoch for epoch, _, _ in listed] == [800, 30, 250]
    assert [round(miou, 2) for _, miou, _ in listed[:2]] == [0.46, 0.92]


PAPER = {
    "mocov3": (20, 0.296),
    "densecl": (150, 0.021),
    "byol": (60, 0.116),
    "dino": (30, 0.074),
    "mae": (660, 0.009),
    "ijepa": (510, 0.0),
}


@pytest.mark.shared
@pytest.mark.parametrize("method", PAPER)
def test_picks_on_the_curves_of_the_paper(
    curves: dict[str, list[tuple[int, float, float]]], method: str
) -> None:
    points = curves[method]
    epoch, miou, _ = points[pick_peak([dse for _, _, dse in points])]
    regret = max(miou for _, miou, _ in points) - miou
    assert (epoch, round(regret, 3)) == PAPER[method]


@pytest.mark.shared
def test_the_pick_loses_half_of_what_the_raw_maximum_loses(
    curves: dict[str, list[tuple[int, float, float]]],
) -> None:
    def regret(rule: Callable[[list[float]], int]) -> float:
        total = 0.0
        for points in curves.values():
            mious = [miou for _, miou, _ in points]
            total += max(mious) - mious[rule([dse for _, _, dse in points])]
        return total / len(curves)

    assert regret(pick_peak) == pytest.approx(0.086, abs=5e-4)
    assert regret(lambda v: v.index(max(v))) == pytest.approx(0.173, abs=5e-4)
    assert regret(lambda v: len(v) - 1) == pytest.approx(0.389, abs=5e-4)
    assert {regret(lambda v, x=x: pick_peak(v, tolerance=x)) for x in (0.1, 0.2, 0.5, 1.0)} == {
        regret(pick_peak)
    }
