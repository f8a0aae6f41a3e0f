"""What there is to know about a data set before any of its files is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from densescope.errors import DataError, InputError
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


NUMBERED = re.compile(r"(\d+)\s*:\s*(.+)")


def class_list(
    path: Path,
    given: Sequence[str] | Mapping[int, str] | None,
    ignored: Sequence[int],
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names and ``pixel value -> class id``, from an argument or the file beside the data.

    Values that are ignored are no class: with names for 0, 1, 2 and 0 ignored, the class ids are
    0 for value 1 and 1 for value 2.

    Raises:
        InputError: no class is left, more than 255, a name twice, or an impossible value.
        DataError: no argument was given and the file is missing.
    """
    named = _numbered(given) if given is not None else _read(path)
    values = sorted(value for value in named if value not in ignored)
    names = tuple(named[value] for value in values)
    if not 1 <= len(names) <= IGNORE_INDEX:
        raise InputError(f"{len(names)} classes cannot be told apart here: give 1 to 255 of them")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the class {twice!r} is named twice: give every value its own name")
    if not all(0 <= value <= 65535 for value in (*named, *ignored)):
        raise InputError("pixel values lie between 0 and 65535: correct the class list")
    return names, {value: index for index, value in enumerate(values)}


def _numbered(given: Sequence[str] | Mapping[int, str]) -> dict[int, str]:
    return dict(given) if isinstance(given, Mapping) else dict(enumerate(given))


def _read(path: Path) -> dict[int, str]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: write one class a line (or 'value: name'), or give classes=..."
        )
    text = path.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [NUMBERED.fullmatch(line) for line in lines]
    if not any(matches):
        return dict(enumerate(lines))
    if not all(matches):
        plain = next(line for line, match in zip(lines, matches, strict=True) if not match)
        raise DataError(
            f"{path} numbers some classes but not {plain!r}: number all lines ('value: name') or "
            "none"
        )
    pairs = [(int(match[1]), match[2]) for match in matches if match]
    if len({value for value, _ in pairs}) < len(pairs):
        raise DataError(f"{path} gives one value to two classes: every value needs one line")
    return dict(pairs)
