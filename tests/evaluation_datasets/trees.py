"""Small trees of files in the layout of every data set, with what their masks mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

VOC = "VOCdevkit/VOC2012"
ADE = "ADEChallengeData2016"


@dataclass(frozen=True)
class Case:
    """One split of one row: where a file pair goes, and what pixel values must become."""

    row: str
    split: str
    image: str
    mask: str
    name: str
    meaning: Mapping[int, str | None]  # pixel value -> class name, None where ignored
    unknown: int | None  # a value that the data set does not define
    palette: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)


COCO_IMAGE = "images/val2017/000000000139.jpg"
COCO_MASK = "annotations/val2017/000000000139.png"
COCO_NAME = "000000000139"
CITY_IMAGE = "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png"
CITY_MASK = "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png"
CITY_NAME = "ulm/ulm_000000_000019"

CASES = (
    Case(
        "voc2012",
        "val",
        f"{VOC}/JPEGImages/2007_000033.jpg",
        f"{VOC}/SegmentationClass/2007_000033.png",
        "2007_000033",
        {0: "background", 1: "aeroplane", 15: "person", 20: "tvmonitor", 255: None},
        21,
        palette=True,
        texts={f"{VOC}/ImageSets/Segmentation/val.txt": "2007_000033\n"},
    ),
    Case(
        "voc2012",
        "trainaug",
        f"{VOC}/JPEGImages/2008_000002.jpg",
        f"{VOC}/SegmentationClassAug/2008_000002.png",
        "2008_000002",
        {0: "background", 8: "cat", 12: "dog", 255: None},
        200,
        texts={
            f"{VOC}/ImageSets/Segmentation/trainaug.txt": (
                "/JPEGImages/2008_000002.jpg /SegmentationClassAug/2008_000002.png\n\n"
            )
        },
    ),
    Case(
        "ade20k",
        "train",
        f"{ADE}/images/training/ADE_train_00000001.jpg",
        f"{ADE}/annotations/training/ADE_train_00000001.png",
        "ADE_train_00000001",
        {0: None, 1: "wall", 2: "building", 13: "person", 150: "flag"},
        151,
    ),
    Case(
        "cityscapes-19",
        "val",
        CITY_IMAGE,
        CITY_MASK,
        CITY_NAME,
        {
            **dict.fromkeys((0, 1, 6, 9, 10, 14, 15, 16, 18, 29, 30)),
            7: "road",
            8: "sidewalk",
            11: "building",
            26: "car",
            31: "train",
            33: "bicycle",
        },
        34,
    ),
    Case(
        "cityscapes-27",
        "val",
        CITY_IMAGE,
        CITY_MASK,
        CITY_NAME,
        {0: None, 6: None, 7: "road", 9: "parking", 18: "polegroup", 29: "caravan", 33: "bicycle"},
        34,
    ),
    Case(
        "coco-stuff-171",
        "val",
        COCO_IMAGE,
        COCO_MASK,
        COCO_NAME,
        {0: "person", 10: "fire hydrant", 12: "stop sign", 91: "banner", 181: "wood", 255: None},
        11,
    ),
    Case(
        "coco-stuff-27",
        "val",
        COCO_IMAGE,
        COCO_MASK,
        COCO_NAME,
        {
            0: "person-things",
            2: "vehicle-things",
            71: "electronic-things",
            120: "food-stuff",
            55: "food-things",
            177: "water-stuff",
            156: "sky-stuff",
            11: "outdoor-things",
            97: "furniture-stuff",
            255: None,
        },
        182,
    ),
    Case(
        "coco-stuff-15",
        "val",
        COCO_IMAGE,
        COCO_MASK,
        COCO_NAME,
        {0: None, 90: None, 91: "textile-stuff", 123: "plant-stuff", 181: "solid-stuff", 255: None},
        182,
    ),
    Case(
        "coco-thing-12",
        "val",
        COCO_IMAGE,
        COCO_MASK,
        COCO_NAME,
        {0: "person-things", 16: "animal-things", 90: "indoor-things", 91: None, 255: None},
        254,
    ),
    Case(
        "camvid",
        "test",
        "images/test/0001TP_008550.jpg",
        "labels/test/0001TP_008550.png",
        "0001TP_008550",
        {0: "sky", 3: "road", 8: "car", 10: "bicyclist", 11: None},
        12,
    ),
    Case(
        "folders",
        "mine",
        "images/mine/a/b.webp",
        "masks/mine/a/b.tif",
        "a/b",
        {0: "cat", 1: "dog", 255: None},
        2,
        texts={"classes.txt": "cat\ndog\n"},
    ),
    Case(
        "scenes",
        "train",
        "train/images/00000.png",
        "train/masks/00000.png",
        "00000",
        {0: "plain", 3: "diagonals", 7: "grain"},
        8,
    ),
)


def mask_of(values: Sequence[int]) -> np.ndarray:
    """Every value twice, in two rows: ``2 x len(values)`` pixels."""
    return np.tile(np.array(values, dtype=np.uint8), (2, 1))


def write_image(path: Path, size: tuple[int, int], **options: object) -> None:
    """A gray gradient of ``columns, rows`` pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gradient = np.linspace(0, 255, size[0] * size[1] * 3).astype(np.uint8)
    Image.fromarray(gradient.reshape(size[1], size[0], 3)).save(path, **options)


def stored_pixels(path: Path) -> np.ndarray:
    """The pixels of an image file as they are stored."""
    with Image.open(path) as image:
        return np.array(image)


def write_mask(path: Path, mask: np.ndarray, *, palette: bool = False) -> None:
    """A mask as gray or palette image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if palette:
        image = image.convert("P")
        image.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
        image.frombytes(mask.tobytes())
    image.save(path)


def write_tree(case: Case, root: Path, values: Sequence[int] | None = None) -> None:
    """The files of a case; its mask holds ``values``, or all values that have a meaning."""
    mask = mask_of(list(case.meaning) if values is None else values)
    write_mask(root / case.mask, mask, palette=case.palette)
    write_image(root / case.image, (mask.shape[1], mask.shape[0]))
    for path, text in case.texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
