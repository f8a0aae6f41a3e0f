from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from densescope.errors import InputError
from densescope.records import ProbeRecord, ScoreRecord
from densescope.selection import RunTable, Selection, select_checkpoints, write_table
from densescope.selection.table import COLUMNS, flat_columns, flat_rows
from tests.selection.runs import noisy_run, plain_run

CURVE = [0.0, 3.0, 2.0, 1.0, 2.5, 1.0, 0.0]


@pytest.fixture(params=["known noise", "unknown noise", "no dse"])
def records(request: pytest.FixtureRequest) -> list[ScoreRecord]:
    if request.param == "known noise":
        return noisy_run(CURVE, CURVE, noise=0.3)
    if request.param == "unknown noise":
        return plain_run(CURVE)
    return plain_run([1.0, 2.0], definition="paper")


@pytest.fixture
def selection(records: list[ScoreRecord]) -> Selection:
    paper = "paper.effective_rank" in records[0].scores["-1"]
    return select_checkpoints(records, definition="paper" if paper else "released")


def test_rows_say_what_the_selection_says(selection: Selection, records: list[ScoreRecord]) -> None:
    table = flat_rows(RunTable.of(records), selection)
    columns = list(flat_columns(RunTable.of(records), selection))
    assert columns[: len(COLUMNS)] == list(COLUMNS)
    assert [list(row) for row in table] == [columns] * len(selection.rows)
    for flat, row in zip(table, selection.rows, strict=True):
        assert (flat["step"], flat["name"], flat["unit"]) == (row.step, row.name, "epoch")
        assert flat["dse"] == (None if row.dse is None else row.dse.value)
        interval = row.separability.interval(selection.level) or (None, None)
        assert (flat["separability_low"], flat["separability_high"]) == interval
        assert flat["effective_rank"] == row.effective_rank.value
        assert flat["lambda"] == selection.lambda_
        assert flat["shortlist_rank"] == row.rank_in_shortlist
        assert flat["pick"] is row.is_pick
        assert flat["candidate"] is row.is_candidate
        assert flat["below_noise_of_pick"] is row.below_noise_of_pick


def test_json(selection: Selection, records: list[ScoreRecord], tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.json"
    write_table(RunTable.of(records), selection, path)
    document = json.loads(path.read_text())
    assert document["rows"] == flat_rows(RunTable.of(records), selection)
    assert document["verdict"] == selection.verdict
    assert document["lambda"] == selection.lambda_
    assert document["tied"] == list(selection.tied)
    assert document["verdict"].startswith(document["headline"])


def test_every_stored_number_and_probe_is_a_column_with_its_bounds(
    selection: Selection, records: list[ScoreRecord]
) -> None:
    probe = ProbeRecord(records[1].name, 20, "epoch", "quick", "camvid", "miou", (0.25, 0.75))
    failed = replace(probe, name=records[0].name, status="failed", values=())
    table = flat_rows(RunTable.of(records, {"camvid-quick": [failed, probe]}), selection)
    for flat, record in zip(table, records, strict=True):
        for name, estimate in record.scores["-1"].items():
            low, high = estimate.interval(selection.level) or (None, None)
            assert (flat[name], flat[f"{name}_low"], flat[f"{name}_high"]) == (
                estimate.value,
                low,
                high,
            )
    assert [row["camvid-quick.miou"] for row in table[:2]] == [None, 0.5]
    assert table[1]["camvid-quick.miou_spread"] == pytest.approx(0.125**0.5)


def test_csv(selection: Selection, records: list[ScoreRecord], tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    write_table(RunTable.of(records), selection, path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, expected in zip(rows, flat_rows(RunTable.of(records), selection), strict=True):
        assert row == {key: "" if v is None else str(v) for key, v in expected.items()}


def test_parquet(selection: Selection, records: list[ScoreRecord], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.PARQUET"
    write_table(RunTable.of(records), selection, str(path))
    table = parquet.read_table(path)
    assert table.to_pylist() == flat_rows(RunTable.of(records), selection)
    assert str(table.schema.field("shortlist_rank").type) == "int64"
    assert str(table.schema.field("dse_low").type) == "double"


def test_nothing_but_the_table_is_left_behind(
    selection: Selection, records: list[ScoreRecord], tmp_path: Path
) -> None:
    for suffix in ("json", "csv", "parquet"):
        write_table(RunTable.of(records), selection, tmp_path / f"table.{suffix}")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "table.csv",
        "table.json",
        "table.parquet",
    ]


@pytest.mark.parametrize("name", ["table.xlsx", "table"])
def test_another_suffix(
    selection: Selection, records: list[ScoreRecord], tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=r"'table.*'; end it in .json, .csv, .parquet"):
        write_table(RunTable.of(records), selection, tmp_path / name)
