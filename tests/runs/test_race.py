"""A sweep in rounds: what it stops, what it keeps, and that it goes on where it was killed."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from densescope.errors import DataError, InputError, RecordError
from densescope.metrics import ScoreSettings
from densescope.records import ScoreRecord
from densescope.report.run import report_run
from densescope.runs.executors import Processes
from densescope.runs.store import RunStore
from densescope.runs.sweep import Race, Shard, SweepEvent, sweep
from densescope.selection import select_checkpoints
from tests.processes import begin, die, ended
from tests.tiny_run import SETTINGS, SPEC, checkpoint, write_images

SCORING = ScoreSettings(**SETTINGS, group_size=2)
RACE = Race(round_size=16, rounds=4, alpha=0.5)
SCALES = (0.02, 0.1, 0.3, 0.2, 0.05, 0.35)  # of the patch embedding: checkpoints that differ
NAMES = [f"checkpoint{epoch:04d}.pth" for epoch in range(len(SCALES))]
DONE = [1, 4, 2, 2, 1, 4]


def write_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for epoch, scale in enumerate(SCALES):
        document = checkpoint(epoch)
        teacher = document["teacher"]
        assert isinstance(teacher, dict)
        teacher["backbone.patch_embed.proj.weight"] *= scale
        torch.save(document, folder / NAMES[epoch])
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its images, and a race over it in ``out``."""
    folder = tmp_path_factory.mktemp("race")
    write_images(folder / "images", RACE.images)
    write_run(folder / "run")
    race(folder, folder / "out")
    return folder


def race(place: Path, output: Path, **more: Any) -> list[ScoreRecord]:
    given: dict[str, Any] = {"settings": SCORING, "images_count": RACE, **more}
    return sweep(
        given.pop("run", place / "run"), SPEC, images=place / "images", output=output, **given
    )


def done(records: list[ScoreRecord]) -> list[int]:
    return [record.provenance["race"]["done"] for record in records]


def timeless(records: list[ScoreRecord]) -> list[dict[str, Any]]:
    documents = [record.to_json() for record in records]
    for document in documents:
        document.pop("timing")
    return documents


def test_checkpoints_stop_when_their_place_is_settled(place: Path) -> None:
    records = RunStore(place / "out").records()
    assert [record.name for record in records] == NAMES
    assert done(records) == DONE
    selection = select_checkpoints(records)
    assert selection.pick == NAMES[1]
    assert [row.images for row in selection.rows] == [16 * rounds for rounds in DONE]
    assert "2 of 6 checkpoints went through all 4 rounds of 16 images: 58%" in selection.verdict


def test_a_number_is_the_mean_of_its_rounds(place: Path) -> None:
    records = RunStore(place / "out").records()
    rounds = [RunStore(place / "out" / "rounds" / str(n)).records() for n in (1, 2, 3, 4)]
    assert [len(row) for row in rounds] == [6, 4, 2, 2]
    for metric in ("released.inter", "released.effective_rank", "paper.effective_rank", "rankme"):
        parts = [{r.name: r.estimate(metric) for r in row}[NAMES[1]] for row in rounds]
        whole = records[1].estimate(metric)
        assert whole.value == pytest.approx(fmean(part.value for part in parts))
        for block in range(8):
            left = fmean(part.replicates[block] for part in parts)
            assert whole.replicates[block] == pytest.approx(left)


def test_rounds_are_disjoint_parts_of_the_images_of_a_full_sweep(place: Path) -> None:
    prints = {
        RunStore(path).manifest()["images"]["fingerprint"]
        for path in (place / "out" / "rounds").iterdir()
    }
    assert len(prints) == 4
    assert RunStore(place / "out").manifest()["images"]["count"] == 64


def test_lidar_is_taken_in_the_first_round(place: Path) -> None:
    first, second = (RunStore(place / "out" / "rounds" / n).records() for n in "12")
    assert all("lidar" not in record.scores["-1"] for record in second)
    for record, early in zip(RunStore(place / "out").records(), first, strict=True):
        assert record.estimate("lidar") == early.estimate("lidar")


def test_one_round_of_all_images_is_a_plain_sweep(place: Path, tmp_path: Path) -> None:
    records = race(place, tmp_path / "race", images_count=Race(64, 1))
    plain = race(place, tmp_path / "plain", images_count=64)
    assert [record.scores for record in records] == [record.scores for record in plain]


def test_all_rounds_are_a_full_sweep(place: Path, tmp_path: Path) -> None:
    settings = ScoreSettings(**SETTINGS, group_size=2, images_per_batch=16, blocks=8)
    full = race(place, tmp_path / "full", images_count=64, settings=settings)
    for record, whole in zip(RunStore(place / "out").records(), full, strict=True):
        if record.provenance["race"]["done"] < RACE.rounds:
            continue
        for metric in (
            "released.inter",
            "released.intra",
            "released.effective_rank",
            "paper.effective_rank",
        ):
            ours, theirs = record.estimate(metric), whole.estimate(metric)
            assert ours.value == pytest.approx(theirs.value, rel=1e-6)
            assert ours.replicates == pytest.approx(theirs.replicates, rel=1e-6)
            assert ours.seed_spread is not None


def test_previews_are_kept_once(place: Path) -> None:
    store = RunStore(place / "out")
    assert all(store.preview(name) is not None for name in ("images", *NAMES))
    assert not list((place / "out" / "rounds").rglob("*.safetensors"))


def test_the_report_says_on_how_many_images(place: Path, tmp_path: Path) -> None:
    page = report_run(place / "out", to=tmp_path / "report.html").read_text()
    assert '<button type="button">Images</button>' in page
    assert '<td data-sort="32">32</td>' in page


def test_a_second_call_scores_nothing(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "out", tmp_path / "out")
    events: list[SweepEvent] = []
    records = race(place, tmp_path / "out", on_event=events.append)
    assert {event.kind for event in events} == {"start", "kept"}
    assert timeless(records) == timeless(RunStore(place / "out").records())


def test_events_name_the_round(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "out", tmp_path / "out")
    events: list[SweepEvent] = []
    race(place, tmp_path / "out", on_event=events.append)
    starts = [(event.stage, event.total) for event in events if event.kind == "start"]
    assert starts == [(f"round {n} of 4", total) for n, total in enumerate([6, 4, 2, 2], start=1)]


def killed_race(place: Path, output: Path, stage: str) -> None:
    def deadly(event: SweepEvent) -> None:
        if event.kind == "scoring" and event.stage == stage and event.index == 2:
            die()

    race(place, output, on_event=deadly)


@pytest.mark.parametrize("stage", ["round 1 of 4", "round 2 of 4"])
def test_a_killed_race_ends_with_the_records_of_an_uninterrupted_one(
    place: Path, tmp_path: Path, stage: str
) -> None:
    output = tmp_path / "out"
    assert ended(begin(killed_race, place, output, stage)) == -signal.SIGKILL
    assert len(list((output / "rounds" / stage.split()[1] / "records").glob("*.json"))) == 2
    assert timeless(race(place, output)) == timeless(RunStore(place / "out").records())


def test_a_broken_checkpoint_leaves_the_race_and_may_come_back(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    (run / NAMES[5]).write_bytes(b"PK\x03\x04 cut off")
    records = race(place, tmp_path / "out", run=run)
    assert [record.status for record in records] == ["scored"] * 5 + ["failed"]
    assert RunStore(tmp_path / "out").records()[5].error == records[5].error
    shutil.copy2(place / "run" / NAMES[5], run / NAMES[5])
    mended = race(place, tmp_path / "out", run=run)
    assert timeless(mended) == timeless(RunStore(place / "out").records())


def test_a_file_that_changes_between_two_rounds_is_named(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")

    def change(event: SweepEvent) -> None:
        if event.kind == "start" and event.stage.startswith("round 2"):
            shutil.copy2(run / NAMES[2], run / NAMES[3])

    records = race(place, tmp_path / "out", run=run, on_event=change)
    assert [record.name for record in records if record.status == "failed"] == [NAMES[3]]
    assert "changed between two rounds" in str(records[3].error)
    again = race(place, tmp_path / "out", run=run)
    assert {record.status for record in again} == {"scored"}


@pytest.mark.usefixtures("forked")
def test_processes_make_the_records_of_one_process(place: Path, tmp_path: Path) -> None:
    few = Race(16, 2, 0.5)
    alone = race(place, tmp_path / "one", images_count=few)
    beside = race(place, tmp_path / "two", images_count=few, executor=Processes(2))
    assert timeless(beside) == timeless(alone)
    assert done(alone) == [1, 2, 2, 2, 1, 2]


def test_features_without_numbers_stop_at_once(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    flat = checkpoint(0)
    teacher = flat["teacher"]
    assert isinstance(teacher, dict)
    teacher["backbone.norm.weight"].zero_()
    torch.save(flat, run / NAMES[0])
    records = race(place, tmp_path / "out", run=run, images_count=Race(16, 2, 0.5))
    assert done(records)[0] == 1
    assert max(done(records)) == 2


def test_fewer_images_make_fewer_rounds(place: Path, tmp_path: Path) -> None:
    records = race(place, tmp_path / "out", images_count=Race(24, 8))
    assert {record.provenance["race"]["rounds"] for record in records} == {2}
    assert {record.provenance["images"]["count"] for record in records} == {48}


@pytest.mark.parametrize(
    ("more", "kind", "message"),
    [
        ({"shard": Shard(1, 2)}, InputError, "a race cannot be run in parts"),
        ({"images_count": Race(15)}, InputError, "round of 15 images is no whole number of groups"),
        (
            {"images_count": Race(15)},
            InputError,
            r"make --round-size or Race\(round_size=...\) a mul",
        ),
        ({"images_count": Race(66)}, DataError, "holds 64 images, fewer than one round of 66"),
        ({"images_count": Race(66)}, DataError, r"--round-size or Race\(round_size=...\), or give"),
    ],
)
def test_what_makes_no_race_is_a_sentence(
    place: Path, tmp_path: Path, more: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        race(place, tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_a_plain_sweep_and_another_race_are_refused_its_folder(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "out", tmp_path / "out")
    with pytest.raises(RecordError, match=r"race: .* stored, None asked"):
        race(place, tmp_path / "out", images_count=64)
    with pytest.raises(RecordError, match=r"race.alpha: 0.5 stored, 0.1 asked"):
        race(place, tmp_path / "out", images_count=Race(16, 4, 0.1))
