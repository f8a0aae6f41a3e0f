from __future__ import annotations

import statistics

import pytest

from densescope.errors import InputError
from densescope.metrics import METRICS
from densescope.metrics.lambdas import fixed_lambda, run_lambda, shrunk_lambda
from densescope.selection import RunTable, select_checkpoints
from tests.selection.runs import plain_run


def test_lambda_is_the_ratio_of_spreads_whatever_the_ddof() -> None:
    separability, effective_rank = [0.1, 0.5, 0.2, 0.9], [100.0, 300.0, 250.0, 270.0]
    lambda_, note = run_lambda(separability, effective_rank, definition="paper")
    assert lambda_ == pytest.approx(
        statistics.stdev(separability) / statistics.stdev(effective_rank)
    )
    assert lambda_ == pytest.approx(
        statistics.pstdev(separability) / statistics.pstdev(effective_rank)
    )
    assert "over the 4 scored checkpoints" in note


def test_both_parts_then_spread_equally_and_shifts_change_nothing() -> None:
    separability, effective_rank = [0.1, 0.5, 0.2], [7.0, 3.0, 2.0]
    lambda_ = run_lambda(separability, effective_rank)[0]
    assert lambda_ is not None
    spread = statistics.pstdev(separability)
    assert statistics.pstdev([lambda_ * d for d in effective_rank]) == pytest.approx(spread)
    assert run_lambda([s + 3 for s in separability], [d - 9 for d in effective_rank])[
        0
    ] == pytest.approx(lambda_)


@pytest.mark.parametrize(
    ("separability", "effective_rank", "where"),
    [
        ([1.0], [2.0], "with 1 scored checkpoint:"),
        ([1.0, 2.0], [2.0, 1.0], "with 2 scored checkpoints:"),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], "where the effective rank is the same"),
        ([1.0, 2.0, 3.0], [0.3, 0.1 + 0.2, 0.3], "where the effective rank is the same"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "where the separability is the same"),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], "where the separability is the same"),
    ],
)
def test_where_the_ratio_means_nothing(
    separability: list[float], effective_rank: list[float], where: str
) -> None:
    lambda_, note = run_lambda(separability, effective_rank)
    assert lambda_ == 1.0
    assert where in note
    assert note.endswith("1 is used.")
    lambda_, note = run_lambda(separability, effective_rank, definition="paper")
    assert lambda_ is None
    assert "only its parts are shown" in note


def test_an_effective_rank_that_hardly_varies_is_a_warning() -> None:
    separability = [0.1, 0.5, 0.2]
    note = run_lambda(separability, [0.4620, 0.4621, 0.4620])[1]
    assert "The effective rank hardly varies over the run (0.462 to 0.4621), and lambda" in note
    assert "hardly" not in run_lambda(separability, [0.45, 0.47, 0.46])[1]
    flat = plain_run(separability, [0.4620, 0.4621, 0.4620])
    by_run = select_checkpoints(flat, lambda_choice="run")
    assert "The effective rank hardly varies" in by_run.verdict
    assert "hardly varies" not in select_checkpoints(flat).verdict  # lambda 1 magnifies nothing
    for steady in (plain_run(separability), plain_run(separability, [0.46] * 3)):
        assert "hardly varies" not in select_checkpoints(steady, lambda_choice="run").verdict


def ranks_with(deviation: float) -> list[float]:
    """Three effective ranks of this standard deviation, the largest of them 0.5."""
    step = deviation * 1.5**0.5
    return [0.5 - 2 * step, 0.5 - step, 0.5]


def test_a_lambda_is_shrunk_towards_1_where_the_rank_hardly_varies() -> None:
    separability = [0.0, 0.1, 0.3]
    spread = statistics.pstdev(separability)
    for deviation, weight in ((0.005, 0.5), (0.05, 100 / 101), (0.0005, 1 / 101)):
        ranks = ranks_with(deviation)
        ratio = spread / deviation
        assert run_lambda(separability, ranks)[0] == pytest.approx(ratio)
        assert shrunk_lambda(separability, ranks)[0] == pytest.approx(ratio**weight)
    # a ratio below 1 is shrunk as its inverse is
    low = shrunk_lambda([value / 1000 for value in separability], ranks_with(0.005))[0]
    assert low == pytest.approx((spread / 1000 / 0.005) ** 0.5)
    assert shrunk_lambda(separability, [0.5, 0.5, 0.5])[0] == 1
    assert shrunk_lambda(separability[:2], [0.5, 0.4])[0] == 1
    assert "to the power of 0.5, nearer to 1" in shrunk_lambda(separability, ranks_with(0.005))[1]


def test_definitions_of_other_units_have_no_1_to_shrink_to() -> None:
    for rule in (fixed_lambda, shrunk_lambda):
        for definition in ("paper", "pooled"):
            with pytest.raises(InputError, match=f"does not go with the definition {definition}"):
                rule([0.0, 0.1, 0.3], [0.3, 0.4, 0.5], definition=definition)
    assert fixed_lambda([0.0], [0.3])[0] == 1


def test_the_row_of_the_shrunk_lambda_is_that_sum() -> None:
    separability, ranks = [0.0, 0.1, 0.3], ranks_with(0.005)
    column = RunTable.of(plain_run(separability, ranks)).column("released.dse_lambda_shrunk")
    lambda_ = shrunk_lambda(separability, ranks)[0]
    assert lambda_ is not None
    assert column.lambda_ == pytest.approx(lambda_)
    found = [estimate.value for estimate in column.series.values()]
    expected = [s + lambda_ * r for s, r in zip(separability, ranks, strict=True)]
    assert found == pytest.approx(expected)
    assert "paper.dse_lambda_shrunk" not in METRICS


def test_refusals() -> None:
    with pytest.raises(InputError, match="definition is 'mine'; it must be one of released, paper"):
        run_lambda([1.0], [1.0], definition="mine")
    with pytest.raises(InputError, match="2 values of separability and 1 of the effective rank"):
        run_lambda([1.0, 2.0], [1.0])
