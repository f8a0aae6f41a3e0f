"""A sweep and a probe of every layer: what the records keep, and what is done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densescope.errors import InputError
from densescope.evaluation.cache import FeatureCache
from densescope.evaluation.probes import PROTOCOLS, run_protocol
from densescope.evaluation.probes.layers import with_features
from densescope.evaluation.probes.row import ProbeTask
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.features.backbones import load_backbone
from densescope.metrics import METRICS, ScoreSettings
from densescope.records import ScoreRecord
from densescope.runs.labels import LabelledData
from densescope.runs.probe import ProbeRequest, probe_file, probe_run
from densescope.runs.run import read_run
from densescope.runs.sweep import score_checkpoint, sweep
from densescope.selection.layers import compares_layers
from tests.tiny_run import SETTINGS, SPEC, write_checkpoints

ALL = ScoreSettings(**{**SETTINGS, "lidar_images": 0}, layers="all")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledData:
    root = tmp_path_factory.mktemp("scenes")
    save_scenes(make_scenes(16, size=32, seed=0), root / "train")
    save_scenes(make_scenes(8, size=32, seed=1), root / "test")
    return LabelledData("scenes", root, test_split="test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("every_layer")


@pytest.fixture(scope="module")
def records(tiny_images: Path, folder: Path) -> list[ScoreRecord]:
    run = write_checkpoints(folder / "run", range(2))
    return sweep(run, SPEC, images=tiny_images, output=folder / "scores", settings=ALL)


def test_records_keep_every_layer(records: list[ScoreRecord], folder: Path) -> None:
    for record in records:
        assert set(record.scores) == {"-2", "-1"}
        assert record.provenance["settings"]["layers"] == "all"
        assert record.provenance["shapes"] == {"-2": [4, 4, 24], "-1": [4, 4, 24]}
    table = read_run(folder / "scores")
    assert table.layers == (-2, -1)
    name = "released.effective_rank"
    found = table.layer_gaps(name)[records[0].name]
    first, last = (records[0].estimate(name, layer).value for layer in (-2, -1))
    assert found.value == last - max(first, last)


def test_each_layer_has_the_numbers_that_it_has_alone(
    records: list[ScoreRecord], tiny_images: Path, folder: Path
) -> None:
    for layer in (-2, -1):
        alone = score_checkpoint(
            folder / "run" / records[1].name,
            SPEC,
            images=tiny_images,
            settings=replace(ALL, layers=(layer,)),
        )
        for name, estimate in alone.scores[str(layer)].items():
            assert records[1].estimate(name, layer).value == pytest.approx(estimate.value, rel=1e-5)


def test_layers_differ_where_patches_are_read(records: list[ScoreRecord]) -> None:
    first, last = (records[0].scores[layer] for layer in ("-2", "-1"))
    same = {name for name in first if first[name].value == last[name].value}
    assert {name for name in same if compares_layers(METRICS[name])} == {"outlier_fraction"}


@pytest.mark.parametrize("name", ["linear", "linear-sgd"])
def test_every_layer_is_probed_beside_the_protocols_own(
    name: str, records: list[ScoreRecord], folder: Path, labelled: LabelledData
) -> None:
    request = ProbeRequest(name, image_size=32, seeds=(0,))
    own = probe_run(folder / "scores", labelled, request)
    assert all(record.layers == {} for record in own)
    probed = probe_run(folder / "scores", labelled, replace(request, layers="all"))
    for record, before in zip(probed, own, strict=True):
        assert record.status == "probed", record.error
        assert record.values == pytest.approx(before.values, abs=1e-6)
        assert set(record.layers) == {"-2", "-1"}
        assert record.layers["-1"]["values"] == list(record.values)
    again = probe_run(folder / "scores", labelled, replace(request, layers=(-2,)))
    assert again == probed  # kept, with what they have
    gaps = read_run(folder / "scores").layer_gaps(f"scenes-{name}-image-size32")
    assert {gap.last for gap in gaps.values()} == {-1}
    assert len(gaps) == 2


def test_a_layer_of_a_probe_is_what_a_probe_of_it_alone_gives(
    records: list[ScoreRecord], folder: Path, labelled: LabelledData
) -> None:
    path = folder / "run" / records[0].name
    outcome = probe_file(path, SPEC, labelled, ProbeRequest("linear", image_size=32, layers=(0,)))
    loaded = load_backbone(path, replace(SPEC, image_size=32))
    data = labelled.open("segmentation")
    changes = {"image_size": 32, "layers": (0,)}
    alone = run_protocol("linear", loaded.backbone, data, changes=changes)
    assert outcome.layers["0"]["values"] == pytest.approx(list(alone.values), abs=1e-6)
    assert outcome.value != pytest.approx(alone.value, abs=1e-6)


@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [
        ("dinov2-linear", "dinov2-linear computes features anew for every crop"),
        ("image-knn", "image-knn reads image vectors, which a backbone has once and not at every"),
    ],
)
def test_protocols_that_cannot_read_single_layers_say_so(protocol: str, sentence: str) -> None:
    unused: Any = None
    task = ProbeTask(PROTOCOLS[protocol], unused, unused, (0,), FeatureCache(), {})
    with pytest.raises(InputError, match=sentence):
        with_features(task, (-2, -1))
