"""Labelled probes on the page: what was found, in the units a reader thinks in, set by set."""

from __future__ import annotations

import re
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from densescope.evaluation.measures import MEASURES, measure_of
from densescope.records import ProbeRecord
from densescope.report import ReportData, build_report_data, render_report
from densescope.report.figures import build_figures
from densescope.report.labels import NO_VALUE, ProbedSet, _heading
from densescope.report.run import report_run, run_report_data
from densescope.runs.correlate import judge_run
from tests.report.probed import (
    CLASSES,
    masks,
    probe,
    probe_set,
    probed_report,
    probed_store,
    probes,
)
from tests.report.synthetic import choose, records
from tests.report.test_page import HOSTILE, Page


def section(text: str, number: int = 0) -> str:
    found = re.search(
        rf'<section class="probe_set" id="probe_set{number}".*?</section>', text, re.DOTALL
    )
    assert found is not None
    return found[0]


def test_every_measure_of_a_probe_has_words_and_the_right_direction() -> None:
    for row in MEASURES.values():
        column = _heading(row)
        assert column.about == f"{str(row.better).capitalize()} is better."
        assert (row.scale == 100) is ("(%)" in column.axis) is (row.difference == "points")
    own = _heading(measure_of("own"))
    assert (own.axis, own.about) == ("own", "")


def test_the_curve_is_the_mean_in_percent_and_its_band_the_spread_over_seeds() -> None:
    run = records(8, failed=(3,))
    found = probes(run)
    curve = probed_report(run, probe_set(run, found)).probe_sets[0].curve
    by_name = {one.name: one for one in found}
    for record, shown in zip(run, curve.values, strict=True):
        if record.name not in by_name:
            assert shown is None
            continue
        assert shown is not None
        assert shown.value == pytest.approx(100 * by_name[record.name].value)
        assert shown.half == pytest.approx(100 * (by_name[record.name].spread or 0))
    assert "one standard deviation over 2 seeds" in section(
        render_report(probed_report(run, probe_set(run, found)))
    )


def test_the_measure_and_dse_are_drawn_over_the_same_steps_with_pick_and_last() -> None:
    run = records(12)
    figures = build_figures(probed_report(run, probe_set(run)))
    above, below = (figures[f"probe_set0-{part}"]["layout"] for part in ("dse", "measure"))
    assert above["xaxis"]["range"] == below["xaxis"]["range"]
    assert above["margin"] == below["margin"]
    assert {a["text"] for a in below["annotations"]} >= {"pick"}
    assert above["annotations"] == below["annotations"]
    diamonds = [
        t
        for t in figures["probe_set0-measure"]["data"]
        if t.get("marker", {}).get("symbol") == "diamond"
    ]
    pick = next(row for row in run if row.name == choose(run).pick)
    assert [t["x"] for t in diamonds] == [[pick.step]]


def test_the_verdict_the_taus_and_the_regrets_are_those_that_were_found() -> None:
    run = records(12)
    found = probes(run)
    judged = judge_run(run, found)
    text = section(render_report(probed_report(run, probe_set(run, found))))
    assert escape(judged.degradation.verdict) in text
    cells = Page(text).cells
    for row in judged.correlation.rows:
        assert row.title in cells
        assert row.tau is not None
        assert f"{row.tau.value:+.2f}".replace("-", "−") in cells
    dse = judged.correlation.row("released.dse_lambda_1").interval
    assert dse is not None
    assert f"{dse[0]:+.2f} to {dse[1]:+.2f}".replace("-", "−") in cells
    assert "+0.57" in cells
    assert "a reference, not a target" in text
    last = judged.regret.row("last")
    assert last.regret is not None
    assert f"{100 * last.regret:.2f}" in " ".join(cells)
    assert "a probe on every checkpoint" in text
    assert "0 by definition" in text


def test_the_rows_of_the_definition_of_the_page_are_set_in_bold() -> None:
    run = records(8)
    data = build_report_data(run, choose(run, "paper"), probe_sets=[probe_set(run)])
    assert [row.title for row in data.probe_sets[0].taus if row.is_own] == [
        "DSE (lambda of the run, paper)"
    ]
    assert [row.title for row in data.probe_sets[0].choices if row.is_own] == ["DSE pick (paper)"]


def test_two_rooms_are_two_sections_without_a_common_table() -> None:
    run = records(6)
    depths = probes(run, dataset="nyu", protocol="depth", measure="rmse")
    data = probed_report(run, probe_set(run), probe_set(run, depths))
    text = render_report(data)
    Page(text)
    first, second = section(text, 0), section(text, 1)
    assert "mIoU on voc2012, linear" in first
    assert "RMSE on nyu, depth" in second
    assert "mIoU (%)" in first
    assert "RMSE (m)" not in first
    assert "Lower is better." in second
    assert "Values in this sentence are fractions" not in second
    assert not {"miou", "rmse"} & {curve.heading.key for curve in data.columns}
    assert {"probe_set0-measure", "probe_set1-measure"} <= set(build_figures(data))


def test_sets_have_titles_of_their_own() -> None:
    run = records(6)
    names = {
        "coco-stuff-linear": 224,
        "coco-stuff-linear-image-size128": 128,
        "coco-stuff-labels50-linear-image-size128": 128,
        "coco-stuff-labels50-linear-steps100": 224,
    }
    probe_sets = []
    for name, size in names.items():
        found = probes(run, dataset="coco_stuff", provenance={"settings": {"image_size": size}})
        probe_sets.append(replace(probe_set(run, found), name=name))
    titles = [one.title for one in probed_report(run, *probe_sets).probe_sets]
    assert titles == [
        "With labels: mIoU on coco_stuff, linear at 224 pixels",
        "With labels: mIoU on coco_stuff, linear at 128 pixels",
        "With labels: mIoU on coco_stuff (labels50), linear at 128 pixels",
        "With labels: mIoU on coco_stuff (labels50), linear (steps100) at 224 pixels",
    ]


def test_the_set_with_the_most_checkpoints_comes_first(tmp_path: Path) -> None:
    run = records(6)
    store = probed_store(tmp_path, run)
    for record in run[:2]:
        store.write_probe("camvid-linear", probe(record, 0.3, dataset="camvid"))
    for record in run:
        failed = probe(record, status="failed", error="no such folder", dataset="ade20k")
        store.write_probe("ade20k-linear", failed)
    names = ["voc2012-linear", "camvid-linear", "ade20k-linear"]
    assert list(store.probes()) == names
    assert [one.name for one in run_report_data(store).probe_sets] == names


def test_few_probes_have_a_sentence_in_place_of_tau_and_of_other_metrics() -> None:
    text, few = render_report(probed_report(records(6), probe_set(records(6)))), records(5)
    assert 'class="correlation"' in text
    assert "nearest to 1: alpha-ReQ" in text
    text = render_report(probed_report(few, probe_set(few)))
    assert 'class="correlation"' not in text
    assert "nearest to 1: alpha-ReQ" not in text
    assert "DSE pick (released)" in text
    assert "5 checkpoints have a score and a probe. An interval of tau needs 6" in text


def test_the_section_stands_right_after_the_curves() -> None:
    text = render_report(probed_report(records(6), probe_set(records(6))))
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings.index("With labels: mIoU on voc2012, linear") == 1 + headings.index(
        "Over the run"
    )
    assert "<dt>With labels</dt>" in text
    assert "none of it uses labels" not in text


def test_without_probes_the_page_has_nothing_of_this() -> None:
    run = records(6)
    text = render_report(probed_report(run))
    assert "With labels" not in text
    assert ".verdict" not in text
    assert "none of it uses labels" in text


def test_a_failed_probe_is_named_with_its_reason_and_breaks_nothing() -> None:
    run = records(6)
    found = probes(run)
    found[2] = replace(found[2], values=(), status="failed", error="out of memory")
    found[3] = replace(found[3], values=(float("nan"),))
    text = section(render_report(probed_report(run, probe_set(run, found))))
    assert "Every probe (2 without a value)" in text
    assert "failed: out of memory" in text
    assert f"failed: {NO_VALUE}" in text


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_checkpoints_have_a_sentence_in_place_of_the_table(count: int) -> None:
    run = records(6)
    shown = probed_report(run, probe_set(run, probes(run)[:count])).probe_sets[0]
    assert shown.taus == ()
    text = section(render_report(probed_report(run, probe_set(run, probes(run)[:count]))))
    assert f"{count} checkpoint{' has' if count == 1 else 's have'} a score and a probe." in text
    assert "Probe more checkpoints.</p>" in text
    assert 'class="correlation"' not in text
    assert 'class="choices"' in text


def test_one_value_a_checkpoint_has_no_band_and_says_so() -> None:
    run = records(6)
    found = [replace(one, values=one.values[:1]) for one in probes(run)]
    shown = probed_report(run, probe_set(run, found))
    assert {r.half for r in shown.probe_sets[0].curve.values if r} == {None}
    assert "One value a checkpoint, so no band is drawn" in section(render_report(shown))


def test_what_holds_for_all_probes_is_said_once_and_the_rest_beside_its_probe() -> None:
    run = records(4)
    found = probes(run)
    found[1].details["notes"].append("at the edge")
    shown = probed_report(run, probe_set(run, found)).probe_sets[0]
    assert shown.notes == ("frames of a few videos",)
    assert [line.note for line in shown.values] == ["", "at the edge", "", ""]
    found[2] = replace(found[2], details={"note": "alone"})
    assert probed_report(run, probe_set(run, found)).probe_sets[0].notes == ()


def test_text_from_probes_is_escaped() -> None:
    run = [replace(row, name=f"{row.step}{HOSTILE}") for row in records(6)]
    details = {"classes": [HOSTILE] * 4, "notes": [HOSTILE], "class_iou": [0.5] * 4}
    found = probes(run, dataset=HOSTILE, protocol=HOSTILE, details=details)
    found[1] = replace(found[1], values=(), status="failed", error=HOSTILE)
    hostile = replace(probe_set(run, found, drawn=True), name=HOSTILE)
    problem = ProbedSet(HOSTILE, found, problem=HOSTILE)
    text = render_report(probed_report(run, hostile, problem))
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert Page(text).count("script") == 3


def stored(folder: Path, count: int = 6) -> ReportData:
    return run_report_data(probed_store(folder, records(count)))


def test_a_run_folder_brings_its_probes(tmp_path: Path) -> None:
    run = records(6)
    shown = stored(tmp_path).probe_sets
    assert [one.name for one in shown] == ["voc2012-linear"]
    assert shown[0].verdict == judge_run(run, probes(run)).degradation.verdict
    assert shown[0].masks is None
    assert "With labels" in report_run(tmp_path).read_text()


def test_probes_that_do_not_belong_in_one_table_show_their_sentence(tmp_path: Path) -> None:
    run = records(6)
    store = probed_store(tmp_path, run)
    store.write_probe("voc2012-linear", probe(run[0], 0.3, protocol="other"))
    shown = run_report_data(store).probe_sets[0]
    assert shown.problem is not None
    assert "differ in their protocol" in shown.problem
    text = section(report_run(tmp_path).read_text())
    assert escape(shown.problem) in text
    assert 'class="choices"' not in text
    assert 'class="values"' in text


def test_a_damaged_probe_counts_as_none_and_the_rest_is_shown(tmp_path: Path) -> None:
    store = probed_store(tmp_path, records(6))
    (store.folder / "probes" / "voc2012-linear" / "checkpoint0010.pth.json").write_text("{")
    (probe_set,) = run_report_data(store).probe_sets
    assert probe_set.problem is None
    assert len(store.probes()["voc2012-linear"]) == 5


def test_every_probe_failed(tmp_path: Path) -> None:
    run = records(4)
    store = probed_store(tmp_path, run)
    for record in run:
        lost = probe(record, status="failed", error="no such folder")
        store.write_probe("voc2012-linear", lost)
    text = section(report_run(tmp_path).read_text())
    assert "none of the 4 probes has a value" in text
    assert text.count("failed: no such folder") == 4
    assert "data-figure" not in text


def test_a_run_folder_brings_what_the_probe_drew(tmp_path: Path) -> None:
    run = records(6)
    store = probed_store(tmp_path, run)
    selection = choose(run)
    assert selection.pick
    assert selection.last
    drawn = masks([selection.pick, selection.last])
    store.write_preview("voc2012-linear/truth", {"images": drawn.images, "truth": drawn.truth})
    assert run_report_data(store).probe_sets[0].masks is None
    for name, mask in drawn.predicted.items():
        store.write_preview(f"voc2012-linear/{name}", {"predicted": mask})
    panel = run_report_data(store).probe_sets[0].masks
    assert panel is not None
    assert {row.name for row in panel.legend} == set(CLASSES)
    text = section(report_run(tmp_path).read_text())
    assert "What the probe draws" in text
    assert text.count("<img") == 2 * len(panel.rows)


@pytest.mark.parametrize("broken", ["predicted", "truth", "images"])
def test_masks_that_do_not_fit_count_as_none(tmp_path: Path, broken: str) -> None:
    run = records(6)
    store = probed_store(tmp_path, run)
    pick = choose(run).pick
    assert pick
    drawn = masks([pick])
    tensors = {"images": drawn.images, "truth": drawn.truth, "predicted": drawn.predicted[pick]}
    tensors[broken] = tensors[broken][:1].float()
    first = {key: tensors[key] for key in ("images", "truth")}
    store.write_preview("voc2012-linear/truth", first)
    store.write_preview(f"voc2012-linear/{pick}", {"predicted": tensors["predicted"]})
    assert run_report_data(store).probe_sets[0].masks is None
    store.write_preview(f"voc2012-linear/{pick}", {"other": tensors["predicted"]})
    assert run_report_data(store).probe_sets[0].masks is None


def test_a_probe_of_a_checkpoint_without_a_score_is_listed() -> None:
    run = records(4)
    more = ProbeRecord("later.pth", 99, "epoch", "linear", "voc2012", "miou", (0.5,))
    shown = probed_report(run, ProbedSet("voc2012-linear", [*probes(run), more])).probe_sets[0]
    assert len(shown.curve.values) == 4
    assert shown.values[-1].name == "later.pth"
