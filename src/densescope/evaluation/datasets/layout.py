"""What there is to know about a data set before any of its files is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from densescope.evaluation.blocks import BlockRule, folder_block

IGNORE_INDEX = 255
"""What every ignored pixel is after mapping, in all data sets."""

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Split:
    """Where the images and masks of one split lie, relative to the root of the data set.

    Attributes:
        images: folder of the images; searched to any depth.
        masks: folder of the masks, with the same folders below it.
        listing: text file with one name per line; all images of the folder where there is none.
        image_suffixes: what follows the name in the file name of an image.
        mask_suffixes: the same for masks.
        count: images in the whole, published split.
    """

    images: str
    masks: str
    listing: str | None = None
    image_suffixes: tuple[str, ...] = (".jpg",)
    mask_suffixes: tuple[str, ...] = (".png",)
    count: int | None = None


@dataclass(frozen=True)
class DatasetRow:
    """A segmentation data set.

    Attributes:
        name: what users call it here.
        title: what its authors call it.
        classes: class names; the position is the class id.
        mapping: pixel value in a mask file -> class id.
        ignored: pixel values that mean "no label" (:data:`IGNORE_INDEX` after mapping). Any
            other value is an error.
        splits: split name -> where its files lie.
        any_split: for folders that users name themselves, with ``{split}`` in the paths.
        classes_file: for the same, the file that lists the classes.
        tree: the folders this package expects below the root.
        obtain: where people get the files.
        licence: a hint, not legal advice.
        source: where class names and mapping were taken from.
        note: what to know before comparing numbers, or ``None``.
        block_of: name of an image -> the block of images it belongs to, such as a video.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    mapping: Mapping[int, int]
    ignored: tuple[int, ...]
    tree: str
    obtain: str
    licence: str
    source: str
    splits: Mapping[str, Split] = field(default_factory=dict)
    any_split: Split | None = None
    classes_file: str | None = None
    note: str | None = None
    block_of: BlockRule = folder_block
