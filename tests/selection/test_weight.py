from __future__ import annotations

import statistics

import pytest

from densescope.errors import InputError
from densescope.selection import run_weight, select_checkpoints
from tests.selection.runs import plain_run


def test_the_weight_is_the_ratio_of_spreads_whatever_the_ddof() -> None:
    separability, dim = [0.1, 0.5, 0.2, 0.9], [100.0, 300.0, 250.0, 270.0]
    weight, note = run_weight(separability, dim, definition="paper")
    assert weight == pytest.approx(statistics.stdev(separability) / statistics.stdev(dim))
    assert weight == pytest.approx(statistics.pstdev(separability) / statistics.pstdev(dim))
    assert "over the 4 scored checkpoints" in note


def test_both_parts_then_spread_equally_and_shifts_change_nothing() -> None:
    separability, dim = [0.1, 0.5, 0.2], [7.0, 3.0, 2.0]
    weight = run_weight(separability, dim)[0]
    assert weight is not None
    spread = statistics.pstdev(separability)
    assert statistics.pstdev([weight * d for d in dim]) == pytest.approx(spread)
    assert run_weight([s + 3 for s in separability], [d - 9 for d in dim])[0] == pytest.approx(
        weight
    )


@pytest.mark.parametrize(
    ("separability", "dim", "where"),
    [
        ([1.0], [2.0], "with 1 scored checkpoint:"),
        ([1.0, 2.0], [2.0, 1.0], "with 2 scored checkpoints:"),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], "where the dimension is the same"),
        ([1.0, 2.0, 3.0], [0.3, 0.1 + 0.2, 0.3], "where the dimension is the same"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "where the separability is the same"),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], "where the separability is the same"),
    ],
)
def test_where_the_ratio_means_nothing(
    separability: list[float], dim: list[float], where: str
) -> None:
    weight, note = run_weight(separability, dim)
    assert weight == 1.0
    assert where in note
    assert note.endswith("1 is used.")
    weight, note = run_weight(separability, dim, definition="paper")
    assert weight is None
    assert "only its parts are shown" in note


def test_a_dimension_that_hardly_varies_is_a_warning() -> None:
    separability = [0.1, 0.5, 0.2]
    note = run_weight(separability, [0.4620, 0.4621, 0.4620])[1]
    assert "The dimension hardly varies over the run (0.462 to 0.4621), and the weight" in note
    assert "hardly" not in run_weight(separability, [0.45, 0.47, 0.46])[1]
    flat = plain_run(separability, [0.4620, 0.4621, 0.4620])
    assert "The dimension hardly varies" in select_checkpoints(flat).verdict
    for steady in (plain_run(separability), plain_run(separability, [0.46] * 3)):
        assert "hardly varies" not in select_checkpoints(steady).verdict


def test_refusals() -> None:
    with pytest.raises(InputError, match="definition is 'mine'; it must be one of released, paper"):
        run_weight([1.0], [1.0], definition="mine")
    with pytest.raises(InputError, match="2 values of separability and 1 of dim"):
        run_weight([1.0, 2.0], [1.0])
