"""Means over runs beside the paper's numbers, and everything as flat tables."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from densescope.agreement import (
    PAPER_TAU,
    agreement_of_run,
    degradation,
    flat_table,
    mean_agreement,
    regret_table,
    write_table,
)
from densescope.agreement.correlation import Agreement
from densescope.agreement.paper import PAPER_COLUMNS, paper_column, paper_tau
from densescope.agreement.table import Result
from densescope.errors import InputError, RecordError
from tests.agreement.runs import run_of

CURVE = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
SWAPPED = [0.1, 0.2, 0.3, 0.4, 0.6, 0.5]  # one pair of 15: tau 13/15


def agreement(measures: list[float], dataset: str = "voc2012") -> Agreement:
    scores, probes = run_of(CURVE, measures)
    return agreement_of_run(scores, [replace(one, dataset=dataset) for one in probes])


def test_means_are_over_runs_then_over_data_sets() -> None:
    runs = [agreement(CURVE), agreement(SWAPPED), agreement(CURVE[::-1], "ade20k")]
    found = mean_agreement(runs)
    row = found.row("released.separability")
    voc = row.cells["voc2012"]
    assert found.datasets == ("voc2012", "ade20k")
    assert (voc.value, voc.runs) == (pytest.approx(14 / 15), 2)
    # two values 2/15 apart: error 1/15, Student's 12.7 with one degree of freedom
    assert voc.interval == (pytest.approx(14 / 15 - 12.7062 / 15, rel=1e-4), 1.0)
    assert row.cells["ade20k"].interval is None
    assert row.mean == pytest.approx((14 / 15 - 1) / 2)
    assert row.paper == dict(zip(PAPER_COLUMNS, (0.45, 0.42, 0.33, 0.37, 0.39), strict=True))
    assert found.row("lidar").mean is None
    assert found.row("released.intra").paper == {}


def test_unlike_runs_have_no_mean() -> None:
    one = agreement(CURVE)
    with pytest.raises(RecordError, match="on voc2012 differ in their protocol: linear and knn"):
        mean_agreement([one, replace(one, protocol="knn")])
    with pytest.raises(RecordError, match="there is no agreement to average"):
        mean_agreement([])
    with pytest.raises(InputError, match="level is 2; it must lie"):
        mean_agreement([one], level=2)


def test_our_names_find_the_papers() -> None:
    assert paper_column("coco_stuff27") == "COCO"
    assert paper_column("voc2012") == "VOC"
    assert paper_column("camvid") is None
    assert paper_tau("paper.dse")["mean"] == 0.57
    assert paper_tau("released.effective_rank") == paper_tau("dense_rankme")
    assert paper_tau("outlier_fraction") == {}


@pytest.mark.shared
def test_the_papers_numbers_are_those_of_the_method(shared: Path) -> None:
    names = {
        "alpha-ReQ": "alpha_req",
        "RankMe": "rankme",
        "LiDAR": "lidar",
        "dense RankMe (= dimension only)": "dense_rankme",
        "separability only": "separability",
        "DSE": "dse",
    }
    text = (shared / "METHOD.md").read_text(encoding="utf-8")
    section = text.split("## 8.")[1].split("## 9.")[0].replace("*", "")
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in names and len(cells) == 6 and re.match(r"-?\.", cells[1]):
            found[names[cells[0]]] = tuple(float(cell) for cell in cells[1:])
    assert found == dict(PAPER_TAU)


def results() -> list[Result]:
    scores, probes = run_of(CURVE, SWAPPED, CURVE[::-1])
    two = [replace(one, values=(one.value, one.value + 0.01)) for one in probes]
    one = agreement_of_run(scores, probes)
    return [one, mean_agreement([one]), degradation(two, scores), regret_table(scores, probes)]


@pytest.mark.parametrize("result", results(), ids=lambda result: type(result).__name__)
def test_every_result_is_a_table(result: Result, tmp_path: Path) -> None:
    from pyarrow import parquet

    columns, rows = flat_table(result)
    assert all(list(row) == list(columns) for row in rows)
    for name in ("a.json", "a.csv", "a.parquet"):
        write_table(result, tmp_path / name)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [list(row) for row in read] == [list(columns)] * len(rows)
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == rows
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert document["rows"] == rows
    assert document["document"] == json.loads(json.dumps(result.to_json()))


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"table format from 'a.txt'; end it in .json, .csv, .par"):
        write_table(results()[0], tmp_path / "a.txt")


def test_bounds_stand_in_their_columns() -> None:
    scores, probes = run_of(CURVE, [0.3, 0.1, 0.2, 0.6, 0.5, 0.4])
    found = agreement_of_run(scores, probes)
    rows = {row["number"]: row for row in flat_table(found)[1]}
    row = rows["released.separability"]
    assert (row["tau_low"], row["tau_high"]) == found.row("released.separability").interval
    assert row["tau_low"] < row["tau"] < row["tau_high"]
