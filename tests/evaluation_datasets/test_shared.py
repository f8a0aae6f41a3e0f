"""The rows on real files in their original layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densescope.errors import DataError
from densescope.evaluation.datasets import (
    DATASETS,
    SegmentationSet,
    decode_split,
    open_dataset,
    open_labelled_images,
    overlap,
)

pytestmark = pytest.mark.shared

FOLDERS = {
    "voc2012": "",
    "ade20k": "",
    "cityscapes-19": "cityscapes",
    "cityscapes-27": "cityscapes",
    "coco-stuff-171": "coco_stuff",
    "coco-stuff-27": "coco_stuff",
    "coco-stuff-15": "coco_stuff",
    "coco-thing-12": "coco_stuff",
    "camvid": "camvid_small",
}
# Images of each split, and one image with classes that can be seen in it.
FOUND = {
    "voc2012": ({"train": 3}, "2011_000003", {"person", "bottle"}),
    "ade20k": ({"train": 1, "val": 3}, "ADE_val_00000001", {"building", "sky", "tree", "road"}),
    "cityscapes-19": ({"train": 2, "val": 1}, "aachen/aachen_000002_000019", {"road", "car"}),
    "cityscapes-27": ({"train": 2, "val": 1}, "aachen/aachen_000002_000019", {"road", "car"}),
    "coco-stuff-171": (
        {"train": 13, "val": 8},
        "000000000139",
        {"person", "chair", "potted plant", "tv", "clock", "vase", "refrigerator", "dining table"},
    ),
    "coco-stuff-27": (
        {"train": 13, "val": 8},
        "000000000139",
        {"person-things", "furniture-things", "wall-stuff", "window-stuff", "appliance-things"},
    ),
    "coco-stuff-15": ({"train": 13, "val": 8}, "000000001584", {"building-stuff", "ground-stuff"}),
    "coco-thing-12": ({"train": 13, "val": 8}, "000000000785", {"person-things", "sports-things"}),
    "camvid": ({"train": 367, "val": 101, "test": 233}, "0001TP_008550", {"road", "car", "sky"}),
}


def seen(dataset: SegmentationSet, index: int) -> set[str]:
    return {dataset.classes[value] for value in dataset.mask(index).unique() if value != 255}


def test_every_published_row_is_read_here() -> None:
    published = {row.name for row in DATASETS.values() if row.splits}
    assert published == set(FOLDERS) == set(FOUND)


@pytest.mark.parametrize("name", FOLDERS)
def test_sample_files_have_sensible_classes(shared: Path, name: str) -> None:
    root = shared / "data" / FOLDERS[name]
    counts, example, expected = FOUND[name]
    looked_at = []
    for split, count in counts.items():
        dataset = open_dataset(name, root, split)
        assert len(dataset) == count
        for index in range(0, count, 1 if count < 20 else 25):
            photo, mask = dataset.photo_and_mask(index)
            assert photo.size == mask.shape[::-1]
            assert (mask != 255).mean() > 0.05 or name.startswith("coco")
        if example in dataset.names:
            assert expected <= seen(dataset, dataset.names.index(example))
            looked_at.append(split)
    assert len(looked_at) == 1


def test_a_partial_copy_says_so(shared: Path) -> None:
    dataset = open_dataset("voc2012", shared / "data", "train")
    assert dataset.note == "3 of the 1464 images of the split train are here"
    whole = open_dataset("camvid", shared / "data/camvid_small", "val")
    assert whole.note == DATASETS["camvid"].note


def test_the_shared_validation_list_is_empty(shared: Path) -> None:
    with pytest.raises(DataError, match=r"val\.txt names no image, so the split is empty"):
        open_dataset("voc2012", shared / "data", "val")


def test_camvid_void_share_is_plausible(shared: Path) -> None:
    dataset = open_dataset("camvid", shared / "data/camvid_small", "train")
    _, masks = decode_split(dataset.subset(range(0, 367, 8)), image_size=8, label_size=60)
    shares = torch.bincount(masks.flatten().long(), minlength=256) / masks.numel()
    assert 0.01 < float(shares[255]) < 0.08
    top = shares[:11].argsort(descending=True)[:3].tolist()
    assert {dataset.classes[value] for value in top} == {"road", "building", "sky"}
    assert float(shares[:11].sum() + shares[255]) == pytest.approx(1)


def test_stuff_and_things_are_disjoint_and_make_the_27(shared: Path) -> None:
    root = shared / "data/coco_stuff"
    rows = ("coco-stuff-27", "coco-stuff-15", "coco-thing-12")
    whole, stuff, things = (open_dataset(name, root, "val") for name in rows)
    for index in range(len(whole)):
        mask, is_stuff, is_thing = (part.mask(index) != 255 for part in (whole, stuff, things))
        assert not (is_stuff & is_thing).any()
        assert torch.equal(is_stuff | is_thing, mask)
        assert seen(whole, index) == seen(stuff, index) | seen(things, index)


def test_cityscapes_sky_lies_above_road(shared: Path) -> None:
    dataset = open_dataset("cityscapes-19", shared / "data/cityscapes", "train")
    _, masks = decode_split(dataset, image_size=16, label_size=64, workers=1)
    middle = {}
    for name in ("sky", "road"):
        rows = (masks == dataset.classes.index(name)).nonzero()[:, 1]
        middle[name] = float(rows.float().mean())
    assert middle["sky"] < 20 < 40 < middle["road"]


def test_tiny_imagenet_shard_has_classes(shared: Path) -> None:
    train = open_labelled_images(shared / "data/tiny_imagenet/train-00.tar")
    held_out = open_labelled_images(
        shared / "data/tiny_imagenet/train-05.tar", classes=train.classes
    )
    assert len(train) == len(held_out) == 4000
    assert len(train.classes) == 200
    assert all(name.split("/")[1].startswith("n") for name in train.names)
    name, label = held_out.names[7], held_out.labels[7]
    assert train.classes[label] == name.split("/")[1].split("_")[0]


def test_camvid_splits_share_no_file(shared: Path) -> None:
    train, test = (
        open_dataset("camvid", shared / "data/camvid_small", split) for split in ("train", "test")
    )
    assert overlap(train, test) == []
    assert overlap(train, train.subset([5])) == [train.names[5]]
