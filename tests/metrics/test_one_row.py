"""A metric is one row: a made-up one, added in one place, reaches everything that shows metrics."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest
from docs.made import made

import densescope
from densescope.cli.screen import console
from densescope.cli.tables import sweep_table
from densescope.correlation import correlate, regret_table
from densescope.definitions import DEFINITION_NAMES, DEFINITIONS
from densescope.estimate import Estimate
from densescope.metrics import METRICS, Computation, Metric, ScoredFeatures, ScoreSettings
from densescope.records import ProbeRecord
from densescope.report.data import build_report_data
from densescope.report.figures import build_figures
from densescope.report.page import render_report
from densescope.selection import RunTable, write_table
from tests.test_layers import HEAVY, loaded_by
from tests.tiny_run import IMAGES, SETTINGS, SPEC, write_checkpoints, write_images


def _brightness(features: ScoredFeatures, settings: ScoreSettings) -> Mapping[str, Estimate]:
    return {"brightness": Estimate(float(features.patches.abs().mean()))}


BRIGHTNESS = Metric(
    "brightness",
    "mean brightness",
    "feature units",
    "lower",
    Computation("brightness", "patches", _brightness),
    summary="How large the entries of the patch features are.",
    about="Mean absolute value.",
    source="made up",
    heading="bright",
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> RunTable:
    """A real sweep while the made-up row is in the table."""
    folder = tmp_path_factory.mktemp("one_row")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, BRIGHTNESS.name, BRIGHTNESS)
        densescope.sweep(
            write_checkpoints(folder / "run", range(4)),
            SPEC,
            output=folder / "scores",
            images=write_images(folder / "images"),
            images_count=IMAGES,
            settings=ScoreSettings(**SETTINGS),
        )
        return densescope.read_run(folder / "scores")


@pytest.fixture(autouse=True)
def one_more_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, BRIGHTNESS.name, BRIGHTNESS)


def probes(table: RunTable) -> list[ProbeRecord]:
    """The best probe is that of the checkpoint with the lowest brightness."""
    values = table.column("brightness").series
    return [
        ProbeRecord(r.name, r.step, r.unit, "linear", "made", "miou", (1 - values[r.name].value,))
        for r in table.scored
    ]


def test_it_is_computed_and_stored_by_a_sweep(swept: RunTable) -> None:
    values = [record.estimate("brightness").value for record in swept.records]
    assert len(set(values)) == 4
    assert min(values) > 0


def test_the_table_of_a_sweep_and_of_a_notebook_show_it(
    swept: RunTable, capsys: pytest.CaptureFixture[str]
) -> None:
    console().print(sweep_table(swept.records))
    assert " bright" in capsys.readouterr().out
    assert "<th>bright</th>" in swept._repr_html_()
    assert repr(swept) == "RunTable(4 checkpoints, 4 scored)"


def test_select_writes_it(swept: RunTable, tmp_path: Path) -> None:
    write_table(swept, swept.selection(), tmp_path / "choice.csv")
    with (tmp_path / "choice.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    written = [float(row["brightness"]) for row in rows]
    assert written == [e.value for e in swept.column("brightness").series.values()]


def test_correlation_and_regret_judge_it(swept: RunTable) -> None:
    row = correlate(swept, probes(swept)).row("brightness")
    assert row.tau is not None
    assert (row.tau.value, row.title) == (-1.0, "mean brightness")
    way = regret_table(swept, probes(swept)).row("brightness")
    assert (way.title, way.regret) == ("lowest mean brightness", 0.0)


def test_the_report_draws_it(swept: RunTable) -> None:
    data = build_report_data(swept, swept.selection())
    (curve,) = (curve for curve in data.baselines if curve.heading.key == "brightness")
    assert curve.heading.axis == "feature units"
    assert f"baseline{data.baselines.index(curve)}" in build_figures(data)
    page = render_report(data)
    assert "How large the entries of the patch features are. Lower is better." in page


def test_the_reference_page_has_it() -> None:
    page = made("<!-- made: metrics -->\n\n<!-- made: metric_changes -->")
    assert (
        "| [`brightness`](#brightness) | mean brightness | feature units | lower | patches |"
        in page
    )
    assert "`brightness`: How large the entries of the patch features are." in page
    assert "Mean absolute value. Lower is better." in page
    assert "| `brightness` | same | same | same | same | same |" in page


def test_without_the_row_nothing_shows_it(swept: RunTable, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = probes(swept)
    monkeypatch.delitem(METRICS, "brightness")
    fresh = RunTable.of(list(swept.records))
    assert "brightness" not in {row.number for row in correlate(fresh, labelled).rows}
    assert "brightness" not in made("<!-- made: metrics -->\n\n<!-- made: metric_changes -->")
    assert "bright" not in [c.heading.title for c in build_report_data(fresh, None).baselines]


def test_the_table_loads_without_torch() -> None:
    assert loaded_by("import densescope.metrics", ("torch", *HEAVY)) == []


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_every_row_is_whole(metric: Metric) -> None:
    assert metric.summary.endswith(".")
    assert metric.about.endswith(".")
    assert metric.source
    assert metric.unit
    assert not metric.trap or metric.trap.endswith(".")


def test_every_definition_has_a_row() -> None:
    assert tuple(DEFINITIONS) == DEFINITION_NAMES
