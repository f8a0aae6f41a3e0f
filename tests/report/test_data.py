from __future__ import annotations

import math
from dataclasses import replace

import pytest

from densescope.estimate import Estimate
from densescope.metrics.lambdas import linear_combination
from densescope.report import build_report_data, preview_names, render_report
from densescope.report.values import Heading, ShownValue
from densescope.report.views import NOT_FINITE_SCORE
from densescope.selection.result import Change
from tests.report.synthetic import choose, records, report


def test_every_number_is_the_recorded_one() -> None:
    rows = records(6)
    data = report(rows=rows)
    stored = {curve.heading.key: curve for curve in data.stored}
    assert set(stored) == set(rows[0].scores["-1"])
    for key, curve in stored.items():
        for record, shown in zip(rows, curve.values, strict=True):
            assert shown == ShownValue.of(record.estimate(key))


def test_the_view_shows_the_selection() -> None:
    rows = records(24, failed=(3,))
    selection = choose(rows)
    view = report(rows=rows).view
    assert view.pick is not None
    assert view.pick.name == selection.pick
    assert view.last is not None
    assert view.last.name == selection.last
    assert tuple(row.name for row in view.shortlist) == selection.shortlist
    assert tuple(row.name for row in view.checkpoints if row.is_candidate) == selection.candidates
    assert view.dse.values[0] == ShownValue.of(selection.rows[0].dse)
    assert view.dse.values[3] is None
    assert view.dse.values[4] == ShownValue.of(selection.rows[3].dse)


def test_checkpoints_stand_by_step_whatever_their_order() -> None:
    rows = records(5)
    data = build_report_data(rows[::-1], choose(rows))
    assert [row.step for row in data.checkpoints] == [10, 20, 30, 40, 50]
    assert data.title == "Untitled run"


def test_a_failed_checkpoint_keeps_its_reason() -> None:
    data = report(5, failed=(1,))
    assert [bool(row.error) for row in data.checkpoints] == [False, True, False, False, False]
    nameless = replace(records(1)[0], status="failed", error=None, scores={})
    assert report(rows=[nameless]).checkpoints[0].error == ("no reason was recorded")


@pytest.mark.parametrize(
    ("moved", "bold"),
    [
        ("effective_rank", {"Effective rank"}),
        ("separability", {"Separability"}),
        ("both", {"Effective rank", "Separability"}),
        ("neither", set()),
    ],
)
def test_the_change_names_what_moved(moved: str, bold: set[str]) -> None:
    rows = records(24)
    selection = choose(rows)
    assert selection.change is not None
    selection = replace(selection, change=replace(selection.change, moved=moved))
    view = build_report_data(rows, selection).view
    assert {row.curve.heading.title for row in view.changes if row.moved} == bold
    assert view.changes[0].change == ShownValue.of(
        selection.change.separability, selection.comparison_level
    )


@pytest.mark.parametrize(
    ("separability", "effective_rank", "said"),
    [
        ((-1.0, -9.0, 7.0), (-1.0, -9.0, 7.0), "DSE did not move beyond its noise"),
        ((-1.0, -9.0, 7.0), (-1.0, 7.0, -9.0), "no part moved beyond its noise"),
    ],
)
def test_the_change_says_when_noise_names_no_part(
    separability: tuple[float, ...], effective_rank: tuple[float, ...], said: str
) -> None:
    rows = records(24)
    selection = choose(rows)
    assert selection.change is not None
    parts = [Estimate(row[0], (row[1], row[0], row[2])) for row in (separability, effective_rank)]
    change = Change(*parts, linear_combination(*parts, 1.0), "neither")
    selection = replace(selection, change=change)
    view = build_report_data(rows, selection).view
    assert view.moved == said


def test_previews_are_wanted_of_the_first_the_pick_and_the_last() -> None:
    rows = records(24, failed=(0,))
    selection = choose(rows)
    assert preview_names(rows, selection) == (rows[1].name, selection.pick, selection.last)
    single = rows[1:2]
    assert preview_names(single, choose(single)) == (rows[1].name,)


def test_a_checkpoint_of_two_roles_is_shown_once() -> None:
    rows = records(1)
    names = [row.label for row in report(rows=rows, with_previews=True).maps[0].rows]
    assert names == ["image", "first and pick and last, epoch 10"]


def test_metrics_of_several_layers_are_told_apart() -> None:
    rows = [replace(r, scores={**r.scores, "5": {"rankme": Estimate(9.0)}}) for r in records(3)]
    data = report(rows=rows)
    titles = [curve.heading.title for curve in data.stored]
    assert "rankme (layer -1)" in titles
    assert "rankme (layer 5)" in titles
    assert data.baselines[1].values[0] == ShownValue.of(rows[0].estimate("rankme"))


def test_extra_series_become_columns() -> None:
    rows = records(4)
    miou = Heading("miou", "mIoU", "mIoU (%)")
    data = build_report_data(rows, choose(rows), extras={miou: {rows[1].name: Estimate(31.5)}})
    assert data.extras[0].values == (None, ShownValue(31.5), None, None)
    assert data.extras[0] in data.columns


def test_a_checkpoint_is_placed_against_the_pick() -> None:
    rows = records(4)
    selection = choose(rows)
    sums = (1.0, 3.0, 1.9, 2.0)
    marked = tuple(
        replace(row, dse=Estimate(value), is_pick=value == 2, below_noise_of_pick=value == 1.9)
        for row, value in zip(selection.rows, sums, strict=True)
    )
    chosen = replace(selection, rows=marked, pick=rows[3].name)
    words = [row.against_pick for row in build_report_data(rows, chosen).checkpoints]
    assert words == ["lower", "higher", "within noise", None]
    same = (*marked[:2], replace(marked[2], has_weights_of_pick=True), marked[3])
    data = build_report_data(rows, replace(chosen, rows=same))
    assert data.checkpoints[2].against_pick == "same weights"
    assert "same weights as the pick" in render_report(data)


def test_a_scored_checkpoint_that_the_selection_left_out_says_why() -> None:
    rows = records(4)
    selection = choose(rows)
    data = build_report_data(rows, replace(selection, rows=selection.rows[1:]))
    assert data.checkpoints[0].left_out == NOT_FINITE_SCORE
    assert data.checkpoints[0].error is None
    assert {row.left_out for row in data.checkpoints[1:]} == {None}


def test_the_level_of_the_selection_is_that_of_every_interval() -> None:
    rows = records(4)
    data = build_report_data(rows, replace(choose(rows), level=0.5))
    estimate = rows[0].estimate("rankme")
    assert data.view.level == "50%"
    assert data.baselines[1].values[0] == ShownValue.of(estimate, 0.5) != ShownValue.of(estimate)


def test_settings_are_grouped_in_words() -> None:
    settings = {"seed": 0, "resume": True, "image_set": {"count": 8, "names": ["a", None]}}
    assert report(3, run=settings).run == (
        ("Run", (("seed", "0"), ("resume", "yes"))),
        ("Image set", (("count", "8"), ("names", "a, none"))),
    )


def test_a_column_without_a_finite_number_is_left_out() -> None:
    rows = [
        replace(r, scores={"-1": {**r.scores["-1"], "lidar": Estimate(math.nan)}})
        for r in records(4)
    ]
    data = report(rows=rows)
    assert "lidar" not in [curve.heading.key for curve in data.columns]
    assert "lidar" in [curve.heading.key for curve in data.stored]
    without_sum = build_report_data(rows[:2], choose(rows[:2], "paper"))
    assert [curve.heading.key for curve in without_sum.columns[:2]] == [
        "paper.separability",
        "paper.effective_rank",
    ]


def test_a_page_of_a_long_run_shows_a_part_and_says_so() -> None:
    run = records(600)
    data = report(rows=run)
    shown = [row.name for row in data.checkpoints]
    selection = choose(run)
    assert len(shown) <= 300 < data.count == len(run)
    assert {selection.pick, selection.last, *selection.shortlist} <= set(shown)
    for row, number in zip(data.checkpoints, data.view.separability.values, strict=True):
        assert number is not None
        assert number.value == selection.row(row.name).separability.value
    page = render_report(data)
    assert f"{len(shown)} of {len(run)} checkpoints are shown" in page
    assert "checkpoints are shown" not in render_report(report())
