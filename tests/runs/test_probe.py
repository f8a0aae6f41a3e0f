"""Probing a scored run: resumable, honest about what it read, and judged against the scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from densescope.errors import DataError, InputError, RecordError
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.evaluation.uncertainty import probed_images
from densescope.features.names import CheckpointNames
from densescope.metrics import ScoreSettings
from densescope.records import ProbeRecord
from densescope.runs.correlate import correlate_run, labelled_table
from densescope.runs.labels import LabelledData
from densescope.runs.probe import ProbeRequest, probe_file, probe_run, spec_of
from densescope.runs.store import RunStore
from densescope.runs.sweep import SweepEvent, sweep
from tests.tiny_run import SETTINGS, SPEC, checkpoint, write_checkpoints

REQUEST = ProbeRequest("linear-sgd", seeds=(0, 1), image_size=32)
ROOM = "scenes-linear-sgd-image-size32"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledData:
    root = tmp_path_factory.mktemp("scenes")
    save_scenes(make_scenes(24, size=32, seed=0), root / "train")
    save_scenes(make_scenes(12, size=32, seed=1), root / "test")
    return LabelledData("scenes", root, test_split="test")


@pytest.fixture
def scored(tiny_images: Path, tmp_path: Path) -> Path:
    run = write_checkpoints(tmp_path / "run", range(4))
    sweep(
        run,
        SPEC,
        images=tiny_images,
        output=tmp_path / "scores",
        settings=ScoreSettings(**{**SETTINGS, "lidar_images": 0}),
    )
    return tmp_path / "scores"


def probed(scored: Path, labelled: LabelledData, **more: object) -> list[ProbeRecord]:
    return probe_run(scored, labelled, REQUEST, **more)  # type: ignore[arg-type]


def test_every_checkpoint_is_probed_once(scored: Path, labelled: LabelledData) -> None:
    records = probed(scored, labelled)
    assert [record.step for record in records] == [0, 1, 2, 3]
    for record in records:
        assert record.status == "probed", record.error
        assert len(record.values) == 2
        assert 0 < record.value < 1
        assert record.details["classes"][:2] == ["plain", "rows"]
        assert record.provenance["settings"]["changes"]["image_size"] == [224, 32]
    assert RunStore(scored).probes() == {ROOM: records}
    events: list[SweepEvent] = []
    assert probed(scored, labelled, on_event=events.append) == records
    assert [event.kind for event in events] == ["start", *["kept"] * 4]


def test_masks_of_a_few_test_images_are_kept(scored: Path, labelled: LabelledData) -> None:
    probed(scored, labelled)
    store = RunStore(scored)
    truth = store.preview(f"{ROOM}/truth")
    seen = store.preview(f"{ROOM}/checkpoint0003.pth")
    assert truth is not None
    assert seen is not None
    assert truth["images"].shape == (4, 3, 32, 32)
    assert truth["truth"].shape == seen["predicted"].shape == (4, 32, 32)
    assert int(seen["predicted"].max()) < 8


@pytest.mark.parametrize(
    ("only", "steps"),
    [("every-2", [1, 3]), ("every-99", [3]), ("0, checkpoint0003.pth", [0, 3])],
)
def test_some_checkpoints_can_be_probed(
    scored: Path, labelled: LabelledData, only: str, steps: list[int]
) -> None:
    assert [record.step for record in probed(scored, labelled, only=only)] == steps
    with pytest.raises(RecordError, match="no scored checkpoint has the name or the epoch 'x': --"):
        probed(scored, labelled, only="0,x")


def test_the_shortlist_and_the_last_can_be_probed_alone(
    scored: Path, labelled: LabelledData
) -> None:
    from densescope.selection import select_checkpoints

    selection = select_checkpoints(RunStore(scored).records())
    records = probed(scored, labelled, only="shortlist")
    assert {record.name for record in records} == {*selection.shortlist, selection.last}


def test_a_checkpoint_that_was_scored_anew_is_probed_anew(
    scored: Path, labelled: LabelledData, tiny_images: Path
) -> None:
    before = probed(scored, labelled)
    torch.save(checkpoint(50), scored.parent / "run" / "checkpoint0001.pth")
    sweep(
        scored.parent / "run",
        spec_of(RunStore(scored)),
        images=tiny_images,
        output=scored,
        settings=ScoreSettings(**{**SETTINGS, "lidar_images": 0}),
        rescore=True,
    )
    events: list[SweepEvent] = []
    after = probed(scored, labelled, on_event=events.append)
    assert [event.name for event in events if event.kind == "probed"] == ["checkpoint0001.pth"]
    assert after[1].values != before[1].values


def test_a_file_that_is_another_than_the_scored_one_is_not_probed(
    scored: Path, labelled: LabelledData
) -> None:
    torch.save(checkpoint(50), scored.parent / "run" / "checkpoint0001.pth")
    records = probed(scored, labelled)
    assert [record.status for record in records] == ["probed", "failed", "probed", "probed"]
    assert "checkpoint0001.pth is another file than the one that was scored" in str(
        records[1].error
    )


def test_checkpoints_in_sub_folders_are_probed(
    labelled: LabelledData, tiny_images: Path, tmp_path: Path
) -> None:
    for step in (9, 10):
        (tmp_path / "run" / f"step_{step}" / "weights").mkdir(parents=True)
        torch.save(checkpoint(step), tmp_path / "run" / f"step_{step}" / "weights" / "model.pt")
    sweep(
        tmp_path / "run",
        SPEC,
        images=tiny_images,
        output=tmp_path / "scores",
        settings=ScoreSettings(**{**SETTINGS, "lidar_images": 0}),
        names=CheckpointNames(recursive=True),
    )
    records = probed(tmp_path / "scores", labelled)
    assert [record.name for record in records] == [f"step_{n}/weights/model.pt" for n in (9, 10)]
    assert [(record.status, record.step) for record in records] == [("probed", 9), ("probed", 10)]


def test_one_file_probes_like_it_does_in_a_run(scored: Path, labelled: LabelledData) -> None:
    whole = probed(scored, labelled)
    path = scored.parent / "run" / "checkpoint0002.pth"
    said: list[str] = []
    alone = probe_file(path, spec_of(RunStore(scored)), labelled, REQUEST, say=said.append)
    numbers = "24 training and 12 test images at 32 pixels"
    assert said == [
        "reading the images and labels of scenes",
        f"probing checkpoint0002.pth on scenes (linear-sgd): {numbers}",
    ]
    assert alone.values == whole[2].values


def test_a_model_is_probed_at_its_own_size_where_a_protocol_leaves_it_open(
    scored: Path, labelled: LabelledData
) -> None:
    request = ProbeRequest("linear-sgd", seeds=(0,))
    said: list[str] = []
    (first, *_) = probe_run(scored, labelled, request, say=said.append)
    assert said[-1].endswith("12 test images at 32 pixels")
    assert first.provenance["settings"]["image_size"] == 32
    assert not [note for note in first.details["notes"] if "does not compare" in note]
    assert set(RunStore(scored).probes()) == {ROOM}
    path = scored.parent / "run" / "checkpoint0000.pth"
    alone = probe_file(path, spec_of(RunStore(scored)), labelled, request, say=said.append)
    assert said[-1].endswith("12 test images at 32 pixels")
    assert alone.values == first.values


def test_records_of_two_sizes_stay_apart(scored: Path, labelled: LabelledData) -> None:
    at_48 = ProbeRequest("linear-sgd", seeds=(0, 1), image_size=48)
    before = probe_run(scored, labelled, at_48, only="shortlist")
    probe_run(scored, labelled, ProbeRequest("linear-sgd", seeds=(0, 1)), only="shortlist")
    held = RunStore(scored).probes()
    assert set(held) == {ROOM, "scenes-linear-sgd-image-size48"}
    assert held["scenes-linear-sgd-image-size48"] == before


def test_a_published_size_stays_and_is_said(scored: Path, labelled: LabelledData) -> None:
    said: list[str] = []
    with pytest.raises(StopIteration):
        probe_run(scored, labelled, ProbeRequest("capi-knn"), say=said.append, on_event=_stop)
    assert said[-1].endswith(
        "at 224 pixels, as the protocol has it; the model's own size is --probe-size 32"
    )
    request = ProbeRequest("capi-knn", image_size=64)
    with pytest.raises(StopIteration):
        probe_run(scored, labelled, request, say=said.append, on_event=_stop)
    assert said[-1].endswith("at 64 pixels")


def _stop(event: SweepEvent) -> None:
    raise StopIteration


def test_a_run_that_was_probed_is_judged(scored: Path, labelled: LabelledData) -> None:
    probed(scored, labelled)
    losses = {f"checkpoint{e:04d}.pth": 4.0 - e for e in range(4)}
    store = RunStore(scored)
    (found,) = correlate_run(store, labelled_table(store), losses=losses).by_set.values()
    assert found.path is not None
    assert found.path.is_file()
    assert found.correlation.row("released.dse_lambda_run").checkpoints == 4
    assert found.degradation.checkpoints == 4
    by_way = {row.way: row for row in found.regret.rows}
    assert by_way["loss"].name == "checkpoint0003.pth"
    assert by_way["probes"].regret == 0


def test_agreement_without_probes_says_how_to_make_some(scored: Path) -> None:
    with pytest.raises(RecordError, match="has no probes; make some with: densescope probe"):
        labelled_table(RunStore(scored))


def test_wrong_requests_are_sentences(scored: Path, labelled: LabelledData) -> None:
    with pytest.raises(InputError, match="quick-linaer"):
        probe_run(scored, labelled, ProbeRequest("quick-linaer"))
    with pytest.raises(InputError, match="need --test-root"):
        probe_run(scored, labelled, ProbeRequest("image-knn", image_size=32))
    with pytest.raises(DataError):
        probe_run(scored, LabelledData("scenes", scored / "none"), REQUEST)
    (scored.parent / "run").rename(scored.parent / "elsewhere")
    with pytest.raises(RecordError, match="is no longer at"):
        probed(scored, labelled)


def test_folds_few_labels_and_blocks_have_records_of_their_own(
    scored: Path, labelled: LabelledData
) -> None:
    request = ProbeRequest(image_size=32)
    said: list[str] = []
    folded = replace(labelled, folds=2, blocks=r"(..)$")
    (record, *_) = probe_run(scored, folded, request, only="shortlist", say=said.append)
    assert record.status == "probed", record.error
    assert "probing" in said[1]
    assert "(linear): 36 images in 2 folds at 32 pixels" in said[1]
    images = probed_images(record)
    assert images is not None
    assert len(images.names) == 36
    assert sorted(set(images.folds)) == [0, 1]
    assert images.block_count == 24  # the same number in both splits is one block
    few = probe_run(scored, replace(labelled, labels=5), request, only="shortlist", say=said.append)
    assert "(linear): 5 of 24 training and 12 test images at 32 pixels" in said[-1]
    assert len(few[0].values) == 5
    assert set(RunStore(scored).probes()) == {
        "scenes-folds2-linear-image-size32",
        "scenes-labels5-linear-image-size32",
    }


@pytest.mark.parametrize(
    ("more", "task", "sentence"),
    [
        ({"folds": 2, "labels": 5}, "segmentation", "folds use all labels and a number of labels"),
        ({"folds": 1}, "segmentation", "1 folds are impossible: at least 2"),
        ({"blocks": "("}, "segmentation", "is no regular expression"),
        ({"folds": 2, "test_root": Path("x")}, "depth", "folds go with masks, not with labels for"),
    ],
)
def test_impossible_parts_of_labels_are_refused(
    more: dict[str, object], task: str, sentence: str, labelled: LabelledData
) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(labelled, **more).check(task)  # type: ignore[arg-type]
