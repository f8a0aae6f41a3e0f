"""Records: whole or not at all, and the same after a round trip."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from densescope.errors import RecordError
from densescope.estimate import Estimate
from densescope.records import (
    ProbeRecord,
    ScoreRecord,
    read_json,
    read_record,
    write_json,
    write_record,
)

RECORD = ScoreRecord(
    name="checkpoint0001.pth",
    step=1,
    scores={"-1": {"released.effective_rank": Estimate(0.5, (0.4, 0.6), 0.01)}},
    checkpoint={"sha256": "abc"},
    provenance={"settings": {"seed": 0}},
    timing={"load_seconds": 1.0},
)


def test_round_trip(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path / "a.json")
    assert read_record(tmp_path / "a.json") == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_estimate_names_what_there_is() -> None:
    assert RECORD.estimate("released.effective_rank").value == 0.5
    with pytest.raises(
        RecordError, match=r"no rankme at layer -1; it has: released.effective_rank"
    ):
        RECORD.estimate("rankme")


def test_a_failed_record_says_why() -> None:
    failed = ScoreRecord("b.pth", 2, status="failed", error="it is empty")
    with pytest.raises(RecordError, match=r"b.pth was not scored: it is empty"):
        failed.estimate("rankme")


def test_a_number_that_json_has_no_word_for_becomes_null(tmp_path: Path) -> None:
    write_json({"a": float("nan"), "b": [float("inf"), 1.0]}, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a whole JSON document"),
        ("[1]", "is not a JSON object"),
        (
            '{"schema": 1}',
            r"another version of densescope \(schema 1, this version reads 2\): sweep the run",
        ),
        ('{"schema": 99}', r"a later version of densescope \(schema 99, this version reads 2\)"),
        ("[" * 100_000, "it is nested too deep"),
        ('{"a": Infinity}', "it holds Infinity, which is no number of JSON"),
        (json.dumps({"schema": 2}), "lacks or garbles a field"),
    ],
)
def test_damaged_records_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=message) as caught:
        read_record(path)
    assert "bad.json" in str(caught.value)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot read .*none.json: No such file"):
        read_record(tmp_path / "none.json")


def test_a_write_that_fails_leaves_the_old_document(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json({"a": 1}, path)
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_probe_record_round_trips_and_knows_its_mean_and_spread() -> None:
    record = ProbeRecord(
        "a.pth", 1, "epoch", "linear-sgd", "camvid", "miou", (0.25, 0.35), details={"rate": 0.1}
    )
    assert ProbeRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert record.value == pytest.approx(0.3)
    assert record.spread == pytest.approx(0.1 / 2**0.5)


def test_a_probe_record_with_an_unknown_field_is_refused() -> None:
    document = ProbeRecord("a", 1, "epoch", "p", "d", "miou").to_json()
    with pytest.raises(RecordError, match="lacks or garbles a field"):
        ProbeRecord.from_json({**document, "surprise": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("name", ["a"]),
        ("name", ""),
        ("step", 1e308),
        ("step", 2**60),
        ("step", True),
        ("status", "odd"),
        ("error", 3),
        ("checkpoint", None),
        ("timing", []),
        ("scores", {"-1": {"rankme": {"value": 1e308}}}),
        ("scores", {"-1": {"rankme": {"value": "1"}}}),
        ("scores", {"-1": {"rankme": {"value": 1.0, "note": []}}}),
        ("scores", {"-1": {"rankme": {"value": 1.0, "replicates": [[1.0]]}}}),
        ("scores", {"first": {}}),
        ("scores", []),
    ],
)
def test_a_field_of_another_kind_is_refused(field: str, value: object) -> None:
    with pytest.raises(RecordError, match="lacks or garbles a field"):
        ScoreRecord.from_json({**RECORD.to_json(), field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", None), ("step", 1.5), ("values", [1e308]), ("values", "12"), ("images", [])],
)
def test_a_field_of_a_probe_of_another_kind_is_refused(field: str, value: object) -> None:
    document = ProbeRecord("a", 1, "epoch", "p", "d", "miou", (0.5,)).to_json()
    with pytest.raises(RecordError, match="lacks or garbles a field"):
        ProbeRecord.from_json({**document, field: value})


def test_a_pipe_is_no_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(RecordError, match="it is a pipe, a device or a socket"):
        read_json(tmp_path / "a.json")
