"""The sweep: every checkpoint once, whatever happens to it or to its neighbours."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densescope.errors import CheckpointError, DataError, DiskError, InputError, RecordError
from densescope.features.spec import BackboneSpec
from densescope.metrics import METRICS, ScoreSettings
from densescope.records import ScoreRecord
from densescope.runs.cluster import Ray
from densescope.runs.store import RunStore
from densescope.runs.sweep import Race, SweepEvent, score_checkpoint, sweep
from tests.processes import begin, die, ended
from tests.tiny_run import SETTINGS, SPEC, checkpoint, write_checkpoints, write_images

NAMES = ["checkpoint0000.pth", "checkpoint0001.pth", "checkpoint0002.pth"]


def run_sweep(run: Path, images: Path, output: Path, **more: Any) -> list[ScoreRecord]:
    given = {"spec": SPEC, "settings": ScoreSettings(**SETTINGS), **more}
    return sweep(run, images=images, output=output, **given)


def without_time(record: ScoreRecord) -> dict[str, Any]:
    document = record.to_json()
    document.pop("timing")
    return document


def test_every_checkpoint_gets_every_number(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    records = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    assert [record.name for record in records] == NAMES
    assert [record.step for record in records] == [0, 1, 2]
    numbers = {metric.name for metric in METRICS.values() if metric.is_stored}
    for record in records:
        assert record.status == "scored"
        assert set(record.scores["-1"]) == numbers
        assert record.checkpoint["weights"] == "teacher"
        assert record.provenance["images"]["count"] == 32
        assert record.provenance["image_size"] == 32
        assert record.provenance["grid"] == [4, 4]
    values = {record.estimate("released.inter").value for record in records}
    assert len(values) == 3


def test_records_on_disk_are_those_returned(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    records = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    stored = RunStore(tmp_path / "out").records()
    assert stored == records


def test_a_second_call_keeps_what_is_there_and_takes_up_what_is_new(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    first = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    write_checkpoints(tiny_run, range(3, 4))
    events: list[SweepEvent] = []
    second = run_sweep(tiny_run, tiny_images, tmp_path / "out", on_event=events.append)
    kinds = [event.kind for event in events]
    assert kinds == ["start", "kept", "kept", "kept", "scoring", "scored"]
    assert [r.timing["written"] for r in second[:3]] == [r.timing["written"] for r in first]
    assert second[3].name == "checkpoint0003.pth"


def test_a_checkpoint_that_changed_stops_the_sweep_until_it_is_said_to_be_of_the_run(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    first = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    torch.save(checkpoint(77), tiny_run / NAMES[1])
    write_checkpoints(tiny_run, range(3, 4))
    with pytest.raises(RecordError, match=rf"{NAMES[1]} is another file than the one.*--rescore"):
        run_sweep(tiny_run, tiny_images, tmp_path / "out")
    assert RunStore(tmp_path / "out").records() == first
    events: list[SweepEvent] = []
    second = run_sweep(
        tiny_run, tiny_images, tmp_path / "out", rescore=True, on_event=events.append
    )
    scored = [event.name for event in events if event.kind == "scored"]
    assert scored == [NAMES[1], "checkpoint0003.pth"]
    assert without_time(second[1]) != without_time(first[1])


def test_a_file_that_training_overwrites_may_change(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    for name in NAMES[1:]:
        (tiny_run / name).unlink()
    (tiny_run / NAMES[0]).rename(tiny_run / "checkpoint.pth")
    (first,) = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    torch.save(checkpoint(77), tiny_run / "checkpoint.pth")
    (second,) = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    assert without_time(second) != without_time(first)


def test_a_copied_folder_is_recognized_by_its_hashes(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    run_sweep(tiny_run, tiny_images, tmp_path / "out")
    for path in tiny_run.iterdir():
        os.utime(path, ns=(1, 1))
    events: list[SweepEvent] = []
    run_sweep(tiny_run, tiny_images, tmp_path / "out", on_event=events.append)
    assert [event.kind for event in events] == ["start", "kept", "kept", "kept"]


def test_only_other_weights_make_a_record_stale(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "out")
    first, _, third = run_sweep(tiny_run, tiny_images, store.folder)
    assert first.checkpoint["hashed"] == "tensors"
    for epoch, changed in enumerate(("teacher", "student")):
        content: Any = checkpoint(epoch)
        content[changed] = {key: value + 1 for key, value in content[changed].items()}
        torch.save(content, tiny_run / NAMES[epoch])
    unhashed = {key: value for key, value in third.checkpoint.items() if key != "hashed"}
    store.write(replace(third, checkpoint=unhashed))
    events: list[SweepEvent] = []
    records = run_sweep(tiny_run, tiny_images, store.folder, rescore=True, on_event=events.append)
    kinds = {event.name: event.kind for event in events if event.name}
    assert kinds == {NAMES[0]: "scored", NAMES[1]: "kept", NAMES[2]: "scored"}
    assert records[0].checkpoint["sha256"] != first.checkpoint["sha256"]
    assert records[2].checkpoint == third.checkpoint


def test_broken_checkpoints_are_named_and_the_rest_goes_on(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    whole = (tiny_run / NAMES[0]).read_bytes()
    (tiny_run / NAMES[0]).write_bytes(whole[: len(whole) // 2])
    broken = checkpoint(1)
    broken["teacher"]["backbone.blocks.0.mlp.fc1.weight"].fill_(float("nan"))
    torch.save(broken, tiny_run / NAMES[1])
    (tiny_run / "checkpoint0003.pth").write_bytes(b"")
    records = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    assert [record.status for record in records] == ["failed", "failed", "scored", "failed"]
    assert NAMES[0] in str(records[0].error)
    assert "NaN or infinite" in str(records[1].error)
    assert "empty" in str(records[3].error)


def test_a_failed_checkpoint_is_tried_again(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    whole = (tiny_run / NAMES[0]).read_bytes()
    (tiny_run / NAMES[0]).write_bytes(whole[:1000])
    assert run_sweep(tiny_run, tiny_images, tmp_path / "out")[0].status == "failed"
    (tiny_run / NAMES[0]).write_bytes(whole)
    assert run_sweep(tiny_run, tiny_images, tmp_path / "out")[0].status == "scored"


def test_other_settings_or_images_in_one_folder_are_refused(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    run_sweep(tiny_run, tiny_images, tmp_path / "out")
    with pytest.raises(RecordError, match=r"settings.normalize: True stored, False asked"):
        run_sweep(
            tiny_run,
            tiny_images,
            tmp_path / "out",
            settings=ScoreSettings(**SETTINGS, normalize=False),
        )
    with pytest.raises(RecordError, match=r"images.count: 32 stored, 16 asked"):
        run_sweep(tiny_run, tiny_images, tmp_path / "out", images_count=16)


def test_other_settings_are_refused_before_images_are_read(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    run_sweep(tiny_run, tiny_images, tmp_path / "out")
    other, broken = ScoreSettings(**SETTINGS, normalize=False), write_images(tmp_path / "images")
    (broken / "007.png").write_bytes(b"not a picture")
    with pytest.raises(
        RecordError, match=r"settings \(settings.normalize: True stored, False asked"
    ):
        run_sweep(tiny_run, broken, tmp_path / "out", settings=other)
    with pytest.raises(RecordError, match=r"settings \(the images differ in name or content"):
        run_sweep(tiny_run, broken, tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        run_sweep(tiny_run, tmp_path / "no images", tmp_path / "out")


def test_a_folder_without_checkpoints_is_a_sentence(tiny_images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no checkpoint of format dino"):
        run_sweep(tmp_path / "empty", tiny_images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unreadable_image_stops_the_sweep_by_name(tiny_run: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (images / "007.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"image 007.png of .* cannot be decoded"):
        run_sweep(tiny_run, images, tmp_path / "out")


def test_broken_images_are_skipped_where_that_is_said_and_recorded(
    tiny_run: Path, tmp_path: Path
) -> None:
    images, events = write_images(tmp_path / "images"), []
    (images / "007.png").write_bytes(b"not a picture")
    count = {"images_count": 24, "skip_broken_images": True}
    records = run_sweep(tiny_run, images, tmp_path / "out", on_event=events.append, **count)
    for record in records:
        assert list(record.provenance["images"]["skipped"]) == ["007.png"]
        assert record.provenance["images"]["count"] == 24
    assert any("1 image was skipped (007.png)" in str(event) for event in events)
    again = run_sweep(tiny_run, images, tmp_path / "out", **count)
    assert again == records
    with pytest.raises(RecordError, match="the images differ in name or content"):
        run_sweep(tiny_run, images, tmp_path / "out", images_count=24)


def test_a_record_of_other_images_is_scored_again(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    others = write_images(tmp_path / "images", seed=1)
    run_sweep(tiny_run, others, tmp_path / "foreign")
    mine = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    name = f"records/{NAMES[1]}.json"
    shutil.copy(tmp_path / "foreign" / name, tmp_path / "out" / name)
    again = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    assert [without_time(record) for record in again] == [without_time(record) for record in mine]


def test_a_disk_that_takes_no_more_is_no_fault_of_a_checkpoint(
    tiny_run: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="run.json: the disk is full. Free some space"):
        run_sweep(tiny_run, tiny_images, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DiskError, match="previews/images.safetensors: the disk is full"):
        run_sweep(tiny_run, tiny_images, tmp_path / "out")
    assert not list((tmp_path / "out" / "records").glob("*"))
    assert not list((tmp_path / "out").rglob("*.part"))


def test_an_unknown_format_or_architecture_is_a_sentence(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"there is no format 'dimo'; did you mean dino"):
        run_sweep(tiny_run, tiny_images, tmp_path / "out", spec=BackboneSpec("dimo"))


def test_too_few_images_for_the_clusters_is_a_sentence(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    settings = ScoreSettings(**{**SETTINGS, "local_clusters": 40})
    records = run_sweep(tiny_run, tiny_images, tmp_path / "out", settings=settings)
    assert {record.status for record in records} == {"failed"}
    assert "40" in str(records[0].error)


def test_layers_are_scored_side_by_side(tiny_run: Path, tiny_images: Path, tmp_path: Path) -> None:
    settings = ScoreSettings(**SETTINGS, layers=(-2, -1))
    (record, *_) = run_sweep(tiny_run, tiny_images, tmp_path / "out", settings=settings)
    assert list(record.scores) == ["-2", "-1"]
    last = run_sweep(tiny_run, tiny_images, tmp_path / "other")[0]
    assert record.estimate("released.dse_lambda_1", -1) == last.estimate(
        "released.dse_lambda_1", -1
    )
    assert record.estimate("released.dse_lambda_1", -2) != record.estimate(
        "released.dse_lambda_1", -1
    )


def test_one_checkpoint_scores_like_it_does_in_a_sweep(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    swept = run_sweep(tiny_run, tiny_images, tmp_path / "out")[1]
    alone = score_checkpoint(
        tiny_run / NAMES[1],
        SPEC,
        images=tiny_images,
        settings=ScoreSettings(**SETTINGS),
    )
    assert without_time(alone) == without_time(swept)


def test_global_chance_is_left_alone(tiny_run: Path, tiny_images: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run_sweep(tiny_run, tiny_images, tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"local_clusters": 1}, "local_clusters is 1; it must be at least 2"),
        ({"layers": ()}, "no layer to score"),
        ({"layers": (-1, -1)}, "name one block twice"),
        ({"images_per_batch": 4}, "less than one group of 8 images"),
    ],
)
def test_impossible_settings_are_sentences(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScoreSettings(**wrong)


def test_files_that_are_passed_over_are_named(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    for name in ("last.pt", "checkpoint.pth", "checkpoint0009.pth.tmp", "log.txt", ".hidden.pth"):
        (tiny_run / name).write_bytes(b"x")
    events: list[SweepEvent] = []
    records = run_sweep(tiny_run, tiny_images, tmp_path / "out", on_event=events.append)
    assert [record.name for record in records] == NAMES
    assert [event.kind for event in events if event.kind == "left out"] == []
    assert str(events[0]) == "passed over, as they have no number: checkpoint.pth, last.pt"


def test_events_print_as_lines(
    tiny_run: Path, tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES[1:]:
        (tiny_run / name).write_bytes(b"")
    run_sweep(tiny_run, tiny_images, tmp_path / "out", on_event=print)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 checkpoints"
    assert f"[1/3] {NAMES[0]} scored" in lines
    assert any(line.startswith(f"[2/3] {NAMES[1]} failed: ") for line in lines)
    assert max(map(len, lines)) < 300
    event = SweepEvent("scoring", "a.pth", 1, 3, stage="round 2 of 8")
    assert str(event) == "round 2 of 8: [1/3] a.pth scoring"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"run_folder": None}, "run_folder is None: give the folder of checkpoints"),
        ({"spec": "dino"}, "spec is 'dino': give BackboneSpec(format=\"dino\")"),
        ({"images": ["a"]}, "images is ['a']: give a folder of images, tar shards"),
        ({"output": None}, "output is None: give a folder for the records"),
        ({"images_count": "auto"}, "images_count is 'auto': give a number such as 2048, or Race()"),
        ({"images_count": Race}, "or Race()"),
        ({"shard": "1/2"}, "shard is '1/2': give Shard(1, 2) for the first of two parts"),
        ({"executor": "ray"}, "executor is 'ray': give Processes(2) or Ray()"),
        ({"executor": Ray}, "give Processes(2) or Ray()"),
        ({"settings": {"seed": 1}}, "settings is {'seed': 1}: give ScoreSettings("),
        ({"compute": "cpu"}, "compute is 'cpu': give Compute("),
    ],
)
def test_arguments_of_another_kind_are_sentences(
    tiny_run: Path, tiny_images: Path, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    given = {"run_folder": tiny_run, "images": tiny_images, "output": tmp_path, **wrong}
    given.setdefault("spec", SPEC)
    with pytest.raises(InputError, match=re.escape(message)):
        sweep(**given)


def killed_sweep(run: Path, images: Path, output: Path) -> None:
    def deadly(event: SweepEvent) -> None:
        if event.kind == "scoring" and event.index == 2:
            die()

    run_sweep(run, images, output, on_event=deadly)


def test_a_killed_sweep_ends_with_the_records_of_an_uninterrupted_one(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    killed = begin(killed_sweep, tiny_run, tiny_images, tmp_path / "killed")
    assert ended(killed) == -signal.SIGKILL
    assert len(list((tmp_path / "killed" / "records").glob("*.json"))) == 2
    resumed = run_sweep(tiny_run, tiny_images, tmp_path / "killed")
    whole = run_sweep(tiny_run, tiny_images, tmp_path / "whole")
    assert [without_time(r) for r in resumed] == [without_time(r) for r in whole]
    shutil.rmtree(tmp_path / "killed")


def test_a_sweep_killed_at_any_moment_leaves_only_whole_records(
    tiny_run: Path, tiny_images: Path, tmp_path: Path
) -> None:
    write_checkpoints(tiny_run, range(12))
    records = tmp_path / "out" / "records"
    sweeping = begin(run_sweep, tiny_run, tiny_images, tmp_path / "out")
    while sweeping.is_alive() and len(list(records.glob("*.json"))) < 3:
        time.sleep(0.01)
    ended(sweeping, seconds=0)
    for path in records.glob("*.json"):
        assert json.loads(path.read_text())["status"] == "scored"
    final = run_sweep(tiny_run, tiny_images, tmp_path / "out")
    whole = run_sweep(tiny_run, tiny_images, tmp_path / "whole")
    assert [without_time(r) for r in final] == [without_time(r) for r in whole]
