"""The run folder: refuses what does not compare, survives what was cut off."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from densescope import writing
from densescope.errors import NewerRecordError, RecordError
from densescope.records import ProbeRecord, ScoreRecord
from densescope.runs.differences import differences
from densescope.runs.store import RunStore, file_stem
from densescope.text import stored

MANIFEST = {"backbone": {"format": "dino"}, "settings": {"seed": 0}}


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no scored run .*densescope sweep"):
        RunStore(tmp_path).manifest()
    with pytest.raises(RecordError, match="there is no folder .*nope: check the path, or make it"):
        RunStore(tmp_path / "nope").manifest()


def test_records_come_back_in_order_of_step(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.open(MANIFEST)
    for step in (10, 2, 30):
        store.write(ScoreRecord(f"checkpoint{step}.pth", step))
    assert [record.step for record in store.records()] == [2, 10, 30]


def test_a_run_without_records_says_so(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.open(MANIFEST)
    with pytest.raises(RecordError, match="holds no records yet"):
        store.records()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.open(MANIFEST)
    store.open(MANIFEST)
    store.write(ScoreRecord("a.pth", 1))
    with pytest.raises(RecordError, match=r"settings.seed: 0 stored, 1 asked"):
        store.open({**MANIFEST, "settings": {"seed": 1}})


def test_a_run_of_which_nothing_was_scored_gives_way(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.open(MANIFEST)
    store.write(ScoreRecord("a.pth", 1, status="failed", error="wrong depth"))
    other = {**MANIFEST, "settings": {"seed": 1}}
    store.open(other)
    assert store.manifest() == other
    assert store.names() == []


def test_a_run_folder_that_moved_is_taken_up_where_that_is_said(tmp_path: Path) -> None:
    store, moved = RunStore(tmp_path / "out"), {**MANIFEST, "run_folder": str(tmp_path / "new")}
    store.open({**MANIFEST, "run_folder": str(tmp_path / "old")})
    store.write(ScoreRecord("a.pth", 1))
    with pytest.raises(RecordError, match=r"a.pth is no longer at .*old.*again .* with --moved"):
        store.checkpoint_path("a.pth")
    for refuse in (store.open, store.expect):
        with pytest.raises(RecordError, match=r"old, and .*new is another folder: two runs would"):
            refuse(moved)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.pth").touch()
    store.expect(moved, moved=True)
    store.open(moved, moved=True)
    assert store.checkpoint_path("a.pth") == tmp_path / "new" / "a.pth"


def test_two_paths_of_one_folder_are_one_place(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "out")
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    store.open({**MANIFEST, "run_folder": str(tmp_path / "run")})
    store.write(ScoreRecord("a.pth", 1))
    store.open({**MANIFEST, "run_folder": str(tmp_path / "link")})
    assert not store.has_moved(tmp_path / "link")
    assert store.has_moved(tmp_path)


def test_what_a_monitor_keeps_elsewhere_is_another_run(tmp_path: Path) -> None:
    live = {**MANIFEST, "backbone": {"format": "live"}}
    store = RunStore(tmp_path / "out")
    store.open({**live, "run_folder": ""})
    store.write(ScoreRecord("step 1", 1))
    store.open({**live, "run_folder": str(tmp_path / "gone")})
    (tmp_path / "kept").mkdir()
    store.open({**live, "run_folder": str(tmp_path / "kept")})
    with pytest.raises(RecordError, match=r"Use another --output, or keep them in .*kept"):
        store.open({**live, "run_folder": str(tmp_path / "other")})


def test_probe_records_stand_in_a_room_of_their_own(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    assert store.probes() == {}
    for step in (5, 1):
        name = f"checkpoint{step}.pth"
        record = ProbeRecord(name, step, "epoch", "linear-sgd", "scenes", "miou", (0.5,))
        store.write_probe("scenes-linear-sgd", record)
    (probe_set,) = store.probes().items()
    assert probe_set[0] == "scenes-linear-sgd"
    assert [record.step for record in probe_set[1]] == [1, 5]
    assert store.probe("scenes-linear-sgd", "checkpoint5.pth") == probe_set[1][1]
    assert store.probe("scenes-linear-sgd", "checkpoint9.pth") is None
    path = tmp_path / "probes/scenes-linear-sgd/checkpoint5.pth.json"
    path.write_text("{")
    assert store.probe("scenes-linear-sgd", "checkpoint5.pth") is None
    assert [record.step for record in store.probes()["scenes-linear-sgd"]] == [1]


def test_differences_names_added_and_nested_keys() -> None:
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}}) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}) == [
        "a.b: 1 stored, 2 asked",
        "c: None stored, 3 asked",
    ]


def test_images_that_differ_are_told_in_words() -> None:
    stored, asked = ({"images": {"count": 8, "fingerprint": letter * 64}} for letter in "ab")
    assert differences(stored, asked) == [
        "the images differ in name or content: fingerprint aaaaaaaaaaaa stored, bbbbbbbbbbbb asked"
    ]


def test_a_cut_off_record_counts_as_none(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.open(MANIFEST)
    store.write(ScoreRecord("a.pth", 1))
    (tmp_path / "records" / "a.pth.json").write_text('{"schema": 1, "na')
    assert store.record("a.pth") is None


def test_previews_round_trip_and_a_cut_off_one_counts_as_none(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    patches = torch.arange(24.0).reshape(1, 2, 3, 4)
    store.write_preview("a.pth", {"patches": patches})
    stored = store.preview("a.pth")
    assert stored is not None
    assert torch.equal(stored["patches"], patches)
    path = tmp_path / "previews" / "a.pth.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    assert store.preview("a.pth") is None
    assert store.preview("b.pth") is None


def test_file_stems_are_distinct_and_stay_inside_the_folder() -> None:
    names = ["a.pth", "b/a.pth", "b__a.pth", "../a.pth", ".a.pth", "x" * 300]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    assert all("/" not in stem and not stem.startswith(".") for stem in stems)
    assert all(len(stem) < 200 for stem in stems)


def test_a_record_of_a_later_version_is_never_replaced(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.open(MANIFEST)
    mine = ScoreRecord("a.pth", 1)
    store.write(mine)
    probe = ProbeRecord("a.pth", 1, "epoch", "linear", "camvid", "miou", (0.5,))
    store.write_probe("camvid-linear", probe)
    for path in tmp_path.rglob("a.pth.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    sentence = r"a.pth.json: this record was written by a later version .* is not replaced: use"
    for act in (
        lambda: store.write(mine),
        lambda: store.write_probe("camvid-linear", probe),
        lambda: store.open({**MANIFEST, "settings": {"seed": 1}}),
        lambda: store.record("a.pth"),
        lambda: store.probe("camvid-linear", "a.pth"),
        store.records,
        store.probes,
    ):
        with pytest.raises(NewerRecordError, match=sentence):
            act()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_images_may_be_named_by_another_path(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    images = {"source": "images", "fingerprint": "0" * 64}
    store.open({**MANIFEST, "images": images})
    store.write(ScoreRecord("a.pth", 1))
    store.open({**MANIFEST, "images": {**images, "source": "/data/images"}})
    with pytest.raises(RecordError, match="the images differ in name or content"):
        store.open({**MANIFEST, "images": {**images, "fingerprint": "1" * 64}})


@pytest.mark.parametrize("damage", [{"backbone": []}, {"settings": "x"}, {"run_folder": None}])
def test_a_damaged_manifest_is_named(tmp_path: Path, damage: dict[str, object]) -> None:
    store = RunStore(tmp_path)
    store.open({**MANIFEST, **damage})
    with pytest.raises(
        RecordError, match=r"run.json is damaged \(.* is .*\): use another --output"
    ):
        store.records()


ODD_NAMES = ("a\x1b[1m.pth", os.fsdecode(b"caf\xe9.pth"), "\\x1b.pth", "b\t/c\r.pth")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_file_of_a_name_that_was_written_out_is_found(name: str, tmp_path: Path) -> None:
    store, path = RunStore(tmp_path / "out"), tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.touch()
    store.open({**MANIFEST, "run_folder": str(tmp_path / "run")})
    store.write(ScoreRecord(stored(name), 1))
    assert store.checkpoint_path(store.records()[0].name) == path


def test_a_name_as_long_as_a_path_can_be_comes_back(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.open(MANIFEST)
    name = "/".join(["d" * 250] * 16) + ".pth"
    store.write(ScoreRecord(name, 1))
    assert store.names() == [name]


def test_stems_of_names_of_many_bytes_fit_into_a_file_name() -> None:
    for name in ("\N{GRINNING FACE}" * 63, "é" * 127, os.fsdecode(b"\xe9" * 250)):
        assert len(os.fsencode(f"{file_stem(name)}.safetensors")) <= 255
    assert file_stem("é" * 100) == "é" * 100


def test_the_next_run_removes_what_killed_writers_left_in_every_folder(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.open(MANIFEST)
    (tmp_path / "rounds" / "1" / "previews").mkdir(parents=True)
    left = [tmp_path / f".run.json.{'0' * 16}.part"]
    left.append(tmp_path / "rounds" / "1" / "previews" / f".a.safetensors.{'0' * 16}.part")
    for part in left:
        part.touch()
        os.utime(part, (1, 1))
    writing._tidied.clear()
    RunStore(tmp_path).open(MANIFEST)
    assert not any(part.exists() for part in left)
