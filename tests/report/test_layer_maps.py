"""Maps of layers: every metric that compares between layers, with the numbers of the run table."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from densescope.metrics import METRICS
from densescope.records import ProbeRecord
from densescope.report import build_report_data, render_report
from densescope.report.data import FEW_LAYERS, MOST_COLUMNS
from densescope.report.layers import MANY, SHADES, build_layer_maps, shade_css
from densescope.selection import RunTable
from densescope.selection.layers import compares_layers
from tests.report.synthetic import choose, layered, records, scaled

ROWS = layered(records(5), depth=6)
TABLE = RunTable.of(ROWS)
MAPS = {one.name: one for one in build_layer_maps(TABLE, 0.95).maps}


def probes(measure: str = "miou") -> list[ProbeRecord]:
    """The best layer is -2."""
    return [
        ProbeRecord(
            r.name,
            r.step,
            r.unit,
            "linear",
            "camvid",
            measure,
            (0.4,),
            layers={"-1": {"values": [0.4, 0.5]}, "-2": {"values": [0.6, 0.7]}},
        )
        for r in ROWS
    ]


def test_every_scored_metric_that_compares_between_layers_has_a_map() -> None:
    scored = {metric.name for metric in TABLE.metrics(-1) if compares_layers(metric)}
    assert set(MAPS) == scored
    assert {"released.separability", "dense_rankme", "outlier_fraction"} <= scored
    assert not {"rankme", "lidar", "released.dse_lambda_run"} & set(MAPS)
    assert next(iter(MAPS)) == "released.dse_lambda_1"  # the one that is shown first


@pytest.mark.parametrize("name", sorted(MAPS))
def test_cells_and_gaps_are_those_of_the_run_table(name: str) -> None:
    shown, gaps = MAPS[name], TABLE.layer_gaps(name)
    assert [layer for layer, _ in shown.rows] == [-1, -2, -3, -4, -5, -6]
    (_, differences), (_, halves), (_, best) = shown.gaps
    for place, (checkpoint, step) in enumerate(shown.checkpoints):
        gap = gaps[checkpoint]
        framed = [layer for layer, cells in shown.rows if cells[place].is_best]
        assert framed == [gap.best] == [int(best[place].replace("−", "-"))]
        assert float(differences[place].replace("−", "-")) == pytest.approx(gap.value, rel=6e-3)
        assert (halves[place] == "–") == (gap.interval is None)
        for layer, cells in shown.rows:
            value = TABLE.column(name, layer).series[checkpoint].value
            text = cells[place].full.split(" ± ")[0].replace("−", "-")
            assert float(text) == pytest.approx(value, abs=0.02 * abs(value) + 1e-3)
        assert step == ROWS[place].step


def test_darker_is_better_whichever_way_that_is() -> None:
    for name in ("released.effective_rank", "outlier_fraction"):
        metric, shown = METRICS[name], MAPS[name]
        pairs = [
            (metric.badness(TABLE.column(name, layer).series[checkpoint].value), cell.shade)
            for layer, cells in shown.rows
            for (checkpoint, _), cell in zip(shown.checkpoints, cells, strict=True)
        ]
        shades = [shade for _, shade in sorted(pairs)]
        assert shades == sorted(shades, reverse=True)
        assert (shades[0], shades[-1]) == (SHADES, 0)
    assert (MAPS["outlier_fraction"].worst, MAPS["outlier_fraction"].best)[0] > "0.0"


def luminance(rgb: list[int]) -> float:
    parts = [c / 255 for c in rgb]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_shades_differ_in_lightness_alone_and_their_text_can_be_read() -> None:
    rule = r"\.h(\d+) \{ background: rgb\((\d+) (\d+) (\d+)\); color: (#fff|#000); \}"
    found = re.findall(rule, shade_css())
    assert [int(row[0]) for row in found] == list(range(SHADES + 1))
    lightness = [luminance([int(part) for part in row[1:4]]) for row in found]
    assert lightness == sorted(lightness, reverse=True)
    assert len(set(lightness)) == SHADES + 1
    for number, light in enumerate(lightness):
        text = 1.0 if found[number][4] == "#fff" else 0.0
        high, low = max(text, light), min(text, light)
        assert (high + 0.05) / (low + 0.05) > 4.5, number  # WCAG AA


def test_a_set_of_probes_has_a_map_before_the_metrics() -> None:
    table = RunTable.of(ROWS, {"camvid-linear": probes()})
    first = build_layer_maps(table, 0.95).maps[0]
    assert (first.name, first.labelled, first.title) == (
        "camvid-linear",
        True,
        "mIoU, linear on camvid (%)",
    )
    assert [cells[0].text for _, cells in first.rows] == ["45.0", "65.0"]
    assert first.gaps[0][1][0] == "−20"
    assert first.gaps[2][1][0] == "−2"
    bare = [replace(probe, layers={}) for probe in probes()]
    maps = build_layer_maps(RunTable.of(ROWS, {"camvid-linear": bare}), 0.95).maps
    assert not any(one.labelled for one in maps)


def test_one_layer_has_no_maps_and_other_shapes_a_sentence() -> None:
    assert build_layer_maps(RunTable.of(records(5)), 0.95).maps == ()
    shapes = {str(layer): [4, 4, 24] for layer in range(-5, 0)} | {"-6": [8, 8, 12]}
    rows = [replace(r, provenance={"shapes": shapes}) for r in ROWS]
    made = build_layer_maps(RunTable.of(rows), 0.95)
    assert [layer for layer, _ in made.maps[0].rows] == [-1, -2, -3, -4, -5]
    assert made.note.startswith("Without layers −6: their patch grid or width is not that of the")


def test_a_value_that_is_not_finite_is_a_blank_cell() -> None:
    scores = {k: dict(row) for k, row in ROWS[2].scores.items()}
    scores["-3"]["dense_rankme"] = scaled(scores["-3"]["dense_rankme"], float("nan"))
    rows = [*ROWS[:2], replace(ROWS[2], scores=scores), *ROWS[3:]]
    shown = {m.name: m for m in build_layer_maps(RunTable.of(rows), 0.95).maps}["dense_rankme"]
    cell = dict(shown.rows)[-3][2]
    assert (cell.text, cell.shade, cell.is_best) == ("–", None, False)
    assert {cell.shade for cells in dict(shown.rows).values() for cell in cells} != {None}


def test_the_page_has_the_maps_and_of_many_layers_one_table_of_numbers() -> None:
    assert len(TABLE.layers) > FEW_LAYERS
    data = build_report_data(ROWS, choose(ROWS))
    text = render_report(data)
    assert text.count('class="layer-map"') == len(MAPS) == text.count("<option value=")
    assert ".h10 { background" in text
    assert not any("(layer -2)" in curve.heading.title for curve in data.stored)
    assert any("(layer -1)" in curve.heading.title for curve in data.stored)
    plain = render_report(build_report_data(records(5), choose(records(5))))
    assert 'id="layers"' not in plain
    assert ".h10 {" not in plain


def test_many_checkpoints_have_narrow_cells() -> None:
    many = layered(records(MANY + 1), depth=2)
    assert build_layer_maps(RunTable.of(many), 0.95).maps[0].is_dense
    assert not MAPS["dense_rankme"].is_dense


def test_a_long_run_has_maps_of_some_checkpoints_the_pick_among_them() -> None:
    rows = layered(records(MOST_COLUMNS + 30), depth=2)
    selection = choose(rows)
    data = build_report_data(rows, selection)
    names = [name for name, _ in data.layers.maps[0].checkpoints]
    assert len(names) <= MOST_COLUMNS
    assert {selection.pick, selection.last} <= set(names)
    assert data.layers.note == f"The maps show {len(names)} of {len(rows)} checkpoints."
