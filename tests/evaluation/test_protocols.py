"""Every protocol end to end on small worlds: what it finds, what it must not see."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
from docs.made import made
from torch import Tensor

from densescope.errors import DataError, DensescopeError, InputError
from densescope.evaluation.cache import FeatureCache
from densescope.evaluation.datasets import SegmentationSet, open_dataset
from densescope.evaluation.measures import MEASURES
from densescope.evaluation.probes import (
    PROTOCOLS,
    ProbeData,
    ProbeOutcome,
    find_protocol,
    probe_checkpoint,
    probe_data,
    protocol_settings,
    run_protocol,
)
from densescope.evaluation.probes import data as data_of_probes
from densescope.evaluation.probes.run import identity_of
from densescope.evaluation.scenes import make_scenes, save_scenes
from densescope.features.backbones import load_backbone
from densescope.features.spec import BackboneSpec
from tests.evaluation.worlds import (
    SIZE,
    TINY,
    Blind,
    Seeing,
    Untrained,
    open_world,
    world,
    write_world,
)
from tests.tiny_run import OPTIONS

CROPS: dict[str, Any] = {"steps": 60, "batch": 8, "learning_rate": 0.1}
# The published recipes train for hours; here with few steps and a rate to match.
SHORT: dict[str, dict[str, Any]] = {
    "linear": {},
    "linear-sgd": {"epochs": 30, "batch_patches": 64},
    "capi-knn": {},
    "capi-logreg": {"iterations": 50},
    "in-context": {"memory_patches": 200},
    "dinov3-linear": {**CROPS, "stride": 21},
    "dinov2-linear": {**CROPS, "stride": 21},
    "dinov2-linear-cached": CROPS,
    "ibot-linear": {**CROPS, "small_learning_rate": 0.1, "stride": 21, "weight_decay": 0.0},
    "neco-linear": {**CROPS, "feature_size": 16, "label_size": 16},
    "stego-linear": {**CROPS},
}
IDENTITY = {"sha256": "0" * 64}
Plain = Callable[[str], tuple[ProbeOutcome, dict[str, int]]]


def run(name: str, data: ProbeData, backbone: Any = None, **arguments: Any) -> ProbeOutcome:
    changes = {**TINY, **SHORT[name], **arguments.pop("changes", {})}
    return run_protocol(name, backbone or Seeing(), data, changes=changes, workers=1, **arguments)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> ProbeData:
    return world(tmp_path_factory.mktemp("blocks"))


@dataclass(frozen=True)
class Counting(SegmentationSet):
    """Counts how often each image is decoded."""

    reads: ClassVar[dict[str, int]] = {}

    def photo_and_mask(self, index: int) -> Any:
        name = self.names[index]
        self.reads[name] = self.reads.get(name, 0) + 1
        return super().photo_and_mask(index)


@pytest.fixture(scope="module")
def plain(blocks: ProbeData) -> Plain:
    """What a protocol finds in the blocks, and how often it read each reported image."""

    @cache
    def found(name: str) -> tuple[ProbeOutcome, dict[str, int]]:
        Counting.reads.clear()
        outcome = run(name, replace(blocks, test=Counting(**vars(blocks.test))))
        return outcome, dict(Counting.reads)

    return found


@pytest.mark.parametrize("name", SHORT)
def test_features_that_hold_the_classes_reach_a_high_miou(name: str, plain: Plain) -> None:
    outcome, _ = plain(name)
    assert outcome.value > 0.75
    assert outcome.measure == "miou"
    assert len(outcome.values) == len(PROTOCOLS[name].seeds)
    assert len(outcome.details["class_iou"]) == 3


@pytest.mark.parametrize("name", SHORT)
def test_features_that_hold_nothing_reach_chance(name: str, blocks: ProbeData) -> None:
    assert run(name, blocks, Blind()).value < 0.35


@pytest.mark.parametrize("name", SHORT)
def test_the_outcome_is_plain_and_repeatable(
    name: str, blocks: ProbeData, plain: Plain, tmp_path: Path
) -> None:
    first, _ = plain(name)
    json.dumps([first.details, first.settings], allow_nan=False)
    again = run(name, blocks, cache=FeatureCache(tmp_path), identity=IDENTITY)
    assert replace(first, seconds=0.0) == replace(again, seconds=0.0)


@pytest.mark.parametrize("name", [name for name in SHORT if PROTOCOLS[name].cached])
def test_a_second_run_reads_the_cache_alone(name: str, blocks: ProbeData, tmp_path: Path) -> None:
    cache, backbone = FeatureCache(tmp_path), Seeing()
    first = run(name, blocks, backbone, cache=cache, identity=IDENTITY)
    calls = len(backbone.calls)
    again = run(name, blocks, backbone, cache=cache, identity=IDENTITY)
    assert (len(backbone.calls), again.values) == (calls, first.values)
    run(name, blocks, backbone, cache=cache, identity={"sha256": "1" * 64})
    assert len(backbone.calls) == 2 * calls


def test_a_damaged_entry_is_computed_again(blocks: ProbeData, tmp_path: Path) -> None:
    cache, backbone = FeatureCache(tmp_path), Seeing()
    first = run("linear-sgd", blocks, backbone, cache=cache, identity=IDENTITY)
    calls = len(backbone.calls)
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-1])
    again = run("linear-sgd", blocks, backbone, cache=cache, identity=IDENTITY)
    assert (len(backbone.calls), again.values) == (2 * calls, first.values)


@pytest.mark.parametrize("name", SHORT)
def test_the_reported_images_are_read_once(name: str, blocks: ProbeData, plain: Plain) -> None:
    _, reads = plain(name)
    assert reads == dict.fromkeys(blocks.test.names, 1)


def test_images_are_decoded_once_for_all_checkpoints(
    blocks: ProbeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fits, times in ((2**30, 1), (0, 3)):
        monkeypatch.setattr(data_of_probes, "DECODED_BYTES", fits)
        Counting.reads.clear()
        counted = replace(
            blocks, train=Counting(**vars(blocks.train)), test=Counting(**vars(blocks.test))
        )
        first, *_, last = [run("linear", counted, Seeing()) for _ in range(3)]
        assert first.values == last.values
        names = (*blocks.train.names, *blocks.test.names)
        assert Counting.reads == dict.fromkeys(names, times)


@pytest.mark.parametrize("name", SHORT)
def test_reported_labels_choose_nothing(
    name: str, blocks: ProbeData, plain: Plain, tmp_path: Path
) -> None:
    write_world(tmp_path, "test", 8, 99)
    other = replace(blocks, test=open_world(tmp_path, "test"))
    spoiled, honest = run(name, other).details, plain(name)[0].details
    for key in ("held_out_miou", "learning_rate", "neighbors", "distance", "strength"):
        assert spoiled.get(key) == honest.get(key)


def shuffled(data: ProbeData, root: Path) -> ProbeData:
    """The training photos with the masks of other photos."""
    train = data.train
    assert isinstance(train, SegmentationSet)
    pairs = train.pairs
    turned = tuple(
        replace(pair, mask=pairs[(index + 5) % len(pairs)].mask) for index, pair in enumerate(pairs)
    )
    return replace(data, train=replace(train, pairs=turned))


@pytest.mark.parametrize("name", SHORT)
def test_shuffled_labels_teach_nothing(name: str, blocks: ProbeData, tmp_path: Path) -> None:
    assert run(name, shuffled(blocks, tmp_path)).value < 0.4


def test_test_images_among_the_training_images_are_named(tmp_path: Path) -> None:
    write_world(tmp_path, "train", 4, 1)
    train = open_world(tmp_path, "train")
    data = probe_data("blocks", train, train.subset([2, 3]))
    assert data.notes == (
        "2 of 2 test images are also training images (train002, train003): the probe has seen "
        "their labels",
    )
    assert data.notes[0] in run("linear-sgd", data).details["notes"]


@pytest.mark.parametrize("name", SHORT)
def test_ignored_pixels_count_for_nothing(name: str, tmp_path: Path) -> None:
    outcome = run(name, world(tmp_path, ignored=True))
    assert outcome.value > 0.7


def paint(root: Path, split: str, label: int) -> None:
    from PIL import Image

    for path in (root / "masks" / split).iterdir():
        Image.new("L", (SIZE, SIZE), label).save(path)


@pytest.mark.parametrize("name", SHORT)
def test_labels_from_which_nothing_is_learned_are_refused(name: str, tmp_path: Path) -> None:
    write_world(tmp_path, "train", 4, 1)
    write_world(tmp_path, "test", 2, 2)
    data = probe_data("blocks", open_world(tmp_path, "train"), open_world(tmp_path, "test"))
    paint(tmp_path, "train", 1)
    with pytest.raises(DataError, match="every training label that counts is of one class, green"):
        run(name, data)
    paint(tmp_path, "train", 255)
    with pytest.raises(DataError, match="no pixel of the training masks has a class"):
        run(name, replace(data))  # what was decoded is kept by the data


def test_more_classes_than_patches_and_a_test_half_without_labels(tmp_path: Path) -> None:
    write_world(tmp_path, "train", 4, 1)
    write_world(tmp_path, "test", 2, 2)
    data = probe_data("blocks", open_world(tmp_path, "train"), open_world(tmp_path, "test"))
    with pytest.raises(DataError, match="3 classes cannot be told apart from 2 labelled training"):
        run("capi-knn", replace(data, train=data.train.subset([0, 1])), Seeing(patch_size=SIZE))
    paint(tmp_path, "test", 255)
    with pytest.raises(DataError, match="no pixel of the test masks has a class"):
        run("linear", data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_test_features_that_are_not_numbers_are_refused(value: float, tmp_path: Path) -> None:
    class Broken(Seeing):
        """Fails on the second half only, which has two images."""

        def grid(self, images: Tensor, layer: int) -> Tensor:
            grid = super().grid(images, layer)
            return grid * value if len(images) == 2 else grid

    data = world(tmp_path, train=4, test=2)
    with pytest.raises(DensescopeError, match="the features of image 0 .*NaN or infinite"):
        run("linear", data, Broken(), batch_size=4)


def test_the_table_is_complete() -> None:
    for name, row in PROTOCOLS.items():
        assert name == row.name
        assert row.measure in MEASURES
        assert row.source
        assert row.deviations
        assert not row.changes
        json.dumps(row.to_json(), allow_nan=False)


def test_settings_are_known_beforehand_and_say_what_was_changed(blocks: ProbeData) -> None:
    changes = {**TINY, "epochs": 30, "batch_patches": 64}
    expected = protocol_settings("linear-sgd", blocks, changes=changes)
    outcome = run("linear-sgd", blocks)
    assert outcome.settings == expected
    assert outcome.settings["changes"]["epochs"] == [15, 30]
    assert outcome.settings["data"]["test"] == blocks.fingerprints["test"]
    assert any(
        note.startswith("epochs is 30 where linear-sgd") for note in outcome.details["notes"]
    )
    assert protocol_settings("linear-sgd", blocks)["changes"] == {}


def test_changing_back_is_no_change() -> None:
    row = find_protocol("linear-sgd")
    assert row.adapted(epochs=3).adapted(epochs=15).changes == {}
    assert row.adapted(epochs=15, image_size=None) == row
    assert row.adapted(image_size=448).label_size == 448


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"protocol": "quick"}, "there is no protocol 'quick'; there are: linear, linear-sgd, "),
        ({"changes": {"moons": 2}}, "protocol linear-sgd has no moons to change; it has: image"),
        ({"changes": {"name": "x"}}, "protocol linear-sgd has no name to change"),
        ({"changes": {}}, "shows the backbone 224 pixels, it was loaded for 32: load it with"),
        ({"seeds": (1, 1)}, r"seeds \[1, 1\] are impossible: at least one, and none twice"),
        ({"seeds": ()}, r"seeds \[\] are impossible"),
        ({"precision": "half"}, "no precision 'half': use float32 or bfloat16"),
        ({"cache": FeatureCache("x")}, "needs to know whose features these are: give identity"),
    ],
)
def test_errors_are_sentences(call: dict[str, Any], sentence: str, blocks: ProbeData) -> None:
    arguments: dict[str, Any] = {"protocol": "linear-sgd", "changes": TINY, **call}
    with pytest.raises(InputError, match=sentence):
        run_protocol(arguments.pop("protocol"), Seeing(), blocks, **arguments)


def cell(value: Any) -> str:
    """A setting as the documentation writes it."""
    if isinstance(value, list):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, bool) or value is None:
        return "none" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_number_and_deviation_is_documented(name: str) -> None:
    row = PROTOCOLS[name]
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "protocols.md"
    section = made(page.read_text()).split(f"\n## `{name}`\n")[1].split("\n## ")[0]
    facts = row.to_json()
    flat = {key: facts[key] for key in ("image_size", "resize", "layers", "cached", "measure")}
    for key, value in facts["settings"].items():
        nested = isinstance(value, dict)
        flat |= {f"{key}.{part}": item for part, item in value.items()} if nested else {key: value}
    for key, value in flat.items():
        assert f"\n| {key} | {cell(value)} |\n" in section
    for words in (row.title, row.head, row.source, *row.deviations):
        assert words in " ".join(section.split())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> ProbeData:
    root = tmp_path_factory.mktemp("scenes")
    painted = make_scenes(36, size=SIZE, seed=0)
    for split, part in (("train", slice(0, 24)), ("test", slice(24, 36))):
        save_scenes(
            replace(painted, images=painted.images[part], labels=painted.labels[part]), root / split
        )
    return probe_data(
        "scenes", open_dataset("scenes", root, "train"), open_dataset("scenes", root, "test")
    )


@pytest.mark.parametrize("name", SHORT)
def test_every_protocol_reads_scenes(name: str, scenes: ProbeData) -> None:
    seen = run(name, scenes, Untrained())
    assert 0 < seen.value < 1
    assert len(seen.details["class_iou"]) == 8
    assert seen.details["class_iou"].count(None) < 8


def test_a_checkpoint_is_probed_by_what_it_is(tiny_run: Path, scenes: ProbeData) -> None:
    cache = tiny_run / "features"
    arguments: dict[str, Any] = {
        "format": "dino",
        "architecture_options": OPTIONS,
        "image_size": SIZE,
    }
    values = []
    for file in ("checkpoint0000.pth", "checkpoint0001.pth", "checkpoint0000.pth"):
        loaded = load_backbone(tiny_run / file, BackboneSpec(**arguments))
        outcome = probe_checkpoint(
            loaded, "capi-knn", scenes, cache_folder=cache, image_size=SIZE, workers=1
        )
        values.append(outcome.values)
    assert values[0] == values[2]
    assert len(list(cache.glob("*.npy"))) == 10  # two halves: labels, and per file two arrays
    student = load_backbone(
        tiny_run / "checkpoint0000.pth", BackboneSpec(weights="student", **arguments)
    )
    assert identity_of(student) != identity_of(loaded)
    assert protocol_settings("capi-knn", scenes, changes={"image_size": SIZE}) == outcome.settings


def test_a_protocol_without_steps_cannot_be_shortened(tiny_run: Path, scenes: ProbeData) -> None:
    loaded = load_backbone(
        tiny_run / "checkpoint0000.pth", BackboneSpec(format="dino", architecture_options=OPTIONS)
    )
    with pytest.raises(InputError, match="protocol capi-knn has no steps to change; it has: image"):
        probe_checkpoint(loaded, "capi-knn", scenes, steps=3)
