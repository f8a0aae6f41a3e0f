from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from densescope.errors import InputError
from densescope.selection import Selection, select_checkpoints, selection_table, write_table
from densescope.selection.table import COLUMNS
from tests.selection.runs import noisy_run, plain_run

CURVE = [0.0, 3.0, 2.0, 1.0, 2.5, 1.0, 0.0]


@pytest.fixture(params=["known noise", "unknown noise", "no dse"])
def selection(request: pytest.FixtureRequest) -> Selection:
    if request.param == "known noise":
        return select_checkpoints(noisy_run(CURVE, CURVE, noise=0.3))
    if request.param == "unknown noise":
        return select_checkpoints(plain_run(CURVE))
    return select_checkpoints(plain_run([1.0, 2.0], definition="paper"), definition="paper")


def test_rows_say_what_the_selection_says(selection: Selection) -> None:
    table = selection_table(selection)
    assert [list(row) for row in table] == [list(COLUMNS)] * len(selection.rows)
    for flat, row in zip(table, selection.rows, strict=True):
        assert (flat["step"], flat["name"], flat["unit"]) == (row.step, row.name, "epoch")
        assert flat["dse"] == (None if row.dse is None else row.dse.value)
        interval = row.separability.interval(selection.level) or (None, None)
        assert (flat["separability_low"], flat["separability_high"]) == interval
        assert flat["dim"] == row.dim.value
        assert flat["shortlist_rank"] == row.rank_in_shortlist
        assert flat["pick"] is row.is_pick
        assert flat["candidate"] is row.is_candidate
        assert flat["below_noise_of_pick"] is row.below_noise_of_pick


def test_json(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.json"
    write_table(selection, path)
    document = json.loads(path.read_text())
    assert document["rows"] == selection_table(selection)
    assert document["verdict"] == selection.verdict
    assert document["weight"] == selection.weight


def test_csv(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    write_table(selection, path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, expected in zip(rows, selection_table(selection), strict=True):
        assert row == {key: "" if v is None else str(v) for key, v in expected.items()}


def test_parquet(selection: Selection, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.PARQUET"
    write_table(selection, str(path))
    table = parquet.read_table(path)
    assert table.to_pylist() == selection_table(selection)
    assert str(table.schema.field("shortlist_rank").type) == "int64"
    assert str(table.schema.field("dse_low").type) == "double"


def test_nothing_but_the_table_is_left_behind(selection: Selection, tmp_path: Path) -> None:
    for suffix in ("json", "csv", "parquet"):
        write_table(selection, tmp_path / f"table.{suffix}")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "table.csv",
        "table.json",
        "table.parquet",
    ]


@pytest.mark.parametrize("name", ["table.xlsx", "table"])
def test_another_suffix(selection: Selection, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"'table.*'; end it in .json, .csv, .parquet"):
        write_table(selection, tmp_path / name)
