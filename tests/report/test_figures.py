from __future__ import annotations

import json
import math
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from densescope.estimate import Estimate
from densescope.report import build_report_data
from densescope.report.figures import Figure, build_figures
from densescope.report.values import Heading
from tests.report.synthetic import choose, records, report


def values(figure: Figure) -> Figure:
    return next(trace for trace in figure["data"] if trace["mode"] == "lines+markers")


def band(figure: Figure) -> Figure:
    return next(trace for trace in figure["data"] if trace.get("fill") == "toself")


def test_plotly_accepts_every_figure() -> None:
    figures = build_figures(report(24, failed=(3,)))
    assert len(figures) == 6 + 5
    for figure in figures.values():
        go.Figure(figure)


def test_the_curve_is_the_selection_and_breaks_where_a_checkpoint_failed() -> None:
    rows = records(10, failed=(3,))
    selection = choose(rows)
    trace = values(build_figures(report(rows=rows))["view0-dse"])
    expected = [row.dse.value for row in selection.rows if row.dse]
    assert trace["y"].pop(3) is None
    assert trace["x"] == [record.step for record in rows]
    assert trace["y"] == pytest.approx(expected, rel=1e-5)  # a screen shows no more
    assert trace["connectgaps"] is False


def test_the_band_is_the_interval_piece_by_piece() -> None:
    rows = records(5, failed=(2,))
    trace = band(build_figures(report(rows=rows))["baseline1"])
    low, high = rows[0].estimate("rankme").interval() or (0.0, 0.0)
    assert trace["x"] == [10, 20, 20, 10, 10, None, 40, 50, 50, 40, 40]
    assert math.isclose(trace["y"][0], low, rel_tol=1e-5)
    assert math.isclose(trace["y"][3], high, rel_tol=1e-5)


def test_no_interval_no_band() -> None:
    rows = [
        replace(row, scores={"-1": {**row.scores["-1"], "rankme": Estimate(5.0)}})
        for row in records(2)
    ]
    assert len(build_figures(report(rows=rows))["baseline1"]["data"]) == 1


def test_two_checkpoints_by_the_paper_definition_have_parts_but_no_sum() -> None:
    rows = records(2)
    figures = build_figures(build_report_data(rows, choose(rows, "paper")))
    assert {name for name in figures if name.startswith("view")} == {
        "view0-separability",
        "view0-effective_rank",
    }


def test_a_lone_point_is_no_figure() -> None:
    assert build_figures(report(1)) == {}


def test_a_series_measured_now_and_then_is_drawn_through() -> None:
    rows = records(5)
    column = Heading("miou", "mIoU", "mIoU (%)")
    measured = {rows[i].name: Estimate(30.0 + i) for i in (0, 2, 4)}
    data = build_report_data(rows, choose(rows), extras={column: measured})
    trace = values(build_figures(data)["extra0"])
    assert trace["y"] == [30.0, None, 32.0, None, 34.0]
    assert trace["connectgaps"] is True


def test_the_pick_is_marked() -> None:
    rows = records(24)
    selection = choose(rows)
    figure = build_figures(report(rows=rows))["view0-dse"]
    pick = next(row for row in selection.rows if row.is_pick)
    assert pick.dse is not None
    diamonds = [t for t in figure["data"] if t.get("marker", {}).get("symbol") == "diamond"]
    assert [(t["x"], t["y"]) for t in diamonds] == [
        ([pick.step], [pytest.approx(pick.dse.value, rel=1e-5)])
    ]
    words = {item["text"]: item["x"] for item in figure["layout"]["annotations"]}
    assert words == {"pick": pick.step, "last": rows[-1].step}


def test_pointing_shows_name_step_value_and_interval() -> None:
    rows = records(3)
    text = values(build_figures(report(rows=rows))["baseline1"])["text"][0]
    name, step, number = text.split("<br>")
    assert (name, step) == ("<b>checkpoint0010.pth</b>", "epoch 10")
    estimate = rows[0].estimate("rankme")
    low, high = estimate.interval() or (0.0, 0.0)
    assert number == f"RankMe {estimate.value:.2f} ± {(high - low) / 2:.2f}"


def test_names_in_figures_are_escaped() -> None:
    rows = [replace(row, name=f"{row.step}<img src=x>&.pth", unit="<i>") for row in records(2)]
    figure = build_figures(report(rows=rows))["baseline1"]
    assert "10&lt;img src=x&gt;&amp;.pth" in values(figure)["text"][0]
    assert figure["layout"]["xaxis"]["title"]["text"] == "&lt;i&gt;"


def test_figures_hold_no_number_that_json_lacks() -> None:
    rows = records(6)
    strange = {"rankme": Estimate(math.inf), "lidar": Estimate(2.0, (math.nan, 1.0))}
    rows[2] = replace(rows[2], scores={"-1": {**rows[2].scores["-1"], **strange}})
    figures = build_figures(report(rows=rows))
    json.dumps(figures, allow_nan=False)
    assert values(figures["baseline1"])["y"][2] is None
    assert values(figures["baseline3"])["y"][2] == 2.0
