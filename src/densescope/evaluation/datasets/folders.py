"""A user's own folders of images and masks: their layout, their split and all that is wrong."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from densescope.errors import DataError, InputError
from densescope.evaluation.datasets.complaints import (
    CheckedPair,
    Missing,
    complaints,
    inspect_pairs,
    value_range,
)
from densescope.evaluation.datasets.layout import (
    IGNORE_INDEX,
    MASK_SUFFIXES,
    PHOTO_SUFFIXES,
    class_list,
)
from densescope.evaluation.datasets.pairs import Pair, files_by_name
from densescope.evaluation.datasets.sets import SegmentationSet

NAME = "folders"
MASK_FOLDERS = ("masks", "labels", "annotations")
PARTS = ("train", "test")
TEST_SPLITS = ("test", "val")
TEST_FRACTION = 0.25
CLASSES_FILE = "classes.txt"
TREES = """\
images/train/a.jpg, masks/train/a.png, images/test/b.jpg, ...   (a folder per split)
train/images/a.jpg, train/masks/a.png, test/images/b.jpg, ...   (the same the other way around)
images/a.jpg, masks/a.png, ...                                  (flat: a split is drawn)"""


@dataclass(frozen=True)
class DrawnSplit:
    """How the test half of flat folders is drawn.

    Names are ordered by the SHA-256 of seed and name, and the first of them are the test half: the
    same names give the same split on every machine, and an added image moves few others.

    Attributes:
        fraction: of the images that become the test half, between 0 and 1.
        seed: another one gives another split.
    """

    fraction: float = TEST_FRACTION
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise InputError(f"the test fraction is {self.fraction}; it must lie between 0 and 1")

    def halves(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Names of the training and of the test half, each in the order given.

        Raises:
            DataError: fewer than two names.
        """
        if len(names) < 2:
            raise DataError(f"{len(names)} image cannot be split into a training and a test half")
        keyed = sorted(names, key=lambda name: _digest([str(self.seed), name]))
        count = min(max(1, round(self.fraction * len(names))), len(names) - 1)
        chosen = set(keyed[:count])
        return {
            "train": [name for name in names if name not in chosen],
            "test": [name for name in names if name in chosen],
        }


@dataclass(frozen=True)
class Layout:
    """Where the images and masks of a user's folders lie.

    Attributes:
        root: the folder that holds them.
        images: below the root, with ``{split}`` where there is a folder per split.
        masks: the same for masks.
        splits: names of the splits that are there; empty where the folders are flat.
    """

    root: Path
    images: str
    masks: str
    splits: tuple[str, ...] = ()

    def folders(self, split: str) -> tuple[Path, Path]:
        """The two folders of a split; flat ones have the same for all."""
        images, masks = (part.replace("{split}", split) for part in (self.images, self.masks))
        return self.root / images, self.root / masks


def open_folders(
    root: str | os.PathLike[str],
    *,
    train: str = "train",
    test: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | int | Path | None = None,
    ignored: Sequence[int] = (),
    drawn: DrawnSplit | None = None,
    workers: int | None = None,
) -> tuple[SegmentationSet, SegmentationSet]:
    """Open a training and a test half of your own images and masks, and check every file.

    The folders are ``images/SPLIT`` and ``masks/SPLIT``, ``SPLIT/images`` and ``SPLIT/masks``, or
    flat ``images`` and ``masks`` of which a test half is drawn. Masks may lie in ``labels`` or
    ``annotations`` as well, and have the names of their images.

    Args:
        root: the folder that holds them.
        train: the split that is fitted on.
        test: the split that is reported; ``test``, else ``val``, by default.
        classes: names (the position is the pixel value), pixel value -> name, how many, or a file
            with one name a line; by default ``classes.txt`` below the root, else one class for each
            value that the masks hold.
        ignored: pixel values without a label; 255 always is one unless it is named as a class.
        drawn: how flat folders are split.
        workers: threads; all processors by default.

    Returns:
        The two halves, with the same classes.

    Raises:
        InputError: an argument that is impossible, or without effect on this layout.
        DataError: no such folders, or files that do not fit: all of them in one text.
    """
    folder = Path(root)
    layout = find_layout(folder, train)
    pairs, missing = _pairs(layout, train, test, drawn)
    looks = inspect_pairs([pair for half in pairs.values() for pair in half], workers)
    none = _ignored(classes, ignored)
    names, mapping = _classes(folder, classes, none, looks)
    found = complaints(looks, missing, mapping, none)
    if found:
        count = len(looks) + sum(len(part.names) for part in missing if part.what == "mask")
        listed = "\n".join(f"- {complaint}" for complaint in found)
        raise DataError(
            f"of {count} images below {folder}, some do not fit their masks:\n{listed}\n"
            "Every image needs a mask of its name and its size, with class numbers as pixel "
            "values: mend these files, or take them out"
        )
    notes = [] if layout.splits else [_drawn_note(pairs, drawn or DrawnSplit())]
    if classes is None and not (folder / CLASSES_FILE).is_file():
        notes.append(
            f"{len(names)} classes were found in the masks ({value_range(sorted(mapping))})"
        )
    note = "; ".join(notes) or None
    opened = [
        SegmentationSet(NAME, half, folder, names, mapping, none, tuple(part), note, record)
        for half, part in pairs.items()
        for record in [_record(layout, half, part, drawn or DrawnSplit())]
    ]
    return opened[0], opened[1]


def find_layout(root: Path, train: str = "train") -> Layout:
    """Which of the layouts a folder has.

    Raises:
        DataError: none of them; the text says what was found.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: check the path")
    for masks in MASK_FOLDERS:
        if (root / "images" / train).is_dir() and (root / masks / train).is_dir():
            below = _folders(root / "images")
            splits = tuple(name for name in below if (root / masks / name).is_dir())
            return Layout(root, "images/{split}", f"{masks}/{{split}}", splits)
        if (root / train / "images").is_dir() and (root / train / masks).is_dir():
            splits = tuple(name for name in _folders(root) if (root / name / "images").is_dir())
            return Layout(root, "{split}/images", f"{{split}}/{masks}", splits)
        if (root / "images").is_dir() and (root / masks).is_dir() and train in PARTS:
            return Layout(root, "images", masks)
    there = ", ".join([*_folders(root), *(f"images/{name}" for name in _folders(root / "images"))])
    raise DataError(
        f"{root} has no images and masks of a split {train!r}; it holds the folders: "
        f"{there or 'none'}. One of these is expected, with masks in {', '.join(MASK_FOLDERS)}:\n"
        f"{TREES}"
    )


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pairs(
    layout: Layout, train: str, test: str | None, drawn: DrawnSplit | None
) -> tuple[dict[str, list[Pair]], list[Missing]]:
    """The pairs of the training and of the test half, and what has no partner."""
    if layout.splits:
        if drawn is not None:
            raise InputError(
                f"{layout.root} has splits of its own ({', '.join(layout.splits)}): a test "
                "fraction or a seed has no effect, leave it out"
            )
        halves = {split: _matched(layout, split) for split in (train, _test_of(layout, test))}
        if len(halves) < len(PARTS):
            raise InputError(f"the split {train!r} cannot be fitted on and reported: name two")
        pairs = {split: found for split, (found, _) in halves.items()}
        return pairs, [part for _, missing in halves.values() for part in missing]
    if train != "train" or test not in (None, "test"):
        raise InputError(
            f"{layout.root} is flat, so its splits are drawn and called 'train' and 'test': name "
            "no others"
        )
    found, missing = _matched(layout, "")
    by_name = {pair.name: pair for pair in found}
    names = (drawn or DrawnSplit()).halves(list(by_name)) if len(found) > 1 or not missing else {}
    return {half: [by_name[name] for name in names.get(half, by_name)] for half in PARTS}, missing


def _test_of(layout: Layout, test: str | None) -> str:
    wanted = TEST_SPLITS if test is None else (test,)
    for split in wanted:
        if split in layout.splits:
            return split
    raise DataError(
        f"{layout.root} has no split {' or '.join(wanted)}; it has: {', '.join(layout.splits)}. "
        "Make one, name another as the test split, or put all images into one folder: a split is "
        "drawn"
    )


def _matched(layout: Layout, split: str) -> tuple[list[Pair], list[Missing]]:
    images, masks = layout.folders(split)
    photos, labels = files_by_name(images, PHOTO_SUFFIXES), files_by_name(masks, MASK_SUFFIXES)
    if not photos:
        raise DataError(
            f"{images} holds no image ({', '.join(PHOTO_SUFFIXES)}): put images and masks of one "
            "name there, or take the folder away"
        )
    both = [Pair(name, photos[name], labels[name]) for name in sorted(photos) if name in labels]
    unmasked = [name for name in sorted(photos) if name not in labels]
    spare = [name for name in sorted(labels) if name not in photos]
    if not unmasked:
        return both, []  # a mask too many hurts nobody
    alone = (Missing("mask", masks, unmasked), Missing("image", images, spare))
    return both, [part for part in alone if part.names]


def _ignored(
    classes: Sequence[str] | Mapping[int, str] | int | Path | None, ignored: Sequence[int]
) -> tuple[int, ...]:
    named = isinstance(classes, Mapping) and IGNORE_INDEX in classes
    return tuple(sorted({*ignored, *(() if named else (IGNORE_INDEX,))}))


def _classes(
    root: Path,
    classes: Sequence[str] | Mapping[int, str] | int | Path | None,
    ignored: tuple[int, ...],
    looks: Sequence[CheckedPair],
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names and ``pixel value -> class id``: given, listed in a file, or found in the masks."""
    file = classes if isinstance(classes, Path) else root / CLASSES_FILE
    if isinstance(classes, Path) or (classes is None and file.is_file()):
        return class_list(file, None, ignored)
    if isinstance(classes, int):
        classes = {value: f"class {value}" for value in range(classes)}
    if classes is None:
        values = sorted({value for look in looks for value in look.values} - set(ignored))
        classes = {value: f"class {value}" for value in values}
        if not values:  # nothing could be read: the complaints say why
            return (), {}
    return class_list(file, classes, ignored)


def _drawn_note(pairs: Mapping[str, Sequence[Pair]], drawn: DrawnSplit) -> str:
    test, total = len(pairs["test"]), sum(map(len, pairs.values()))
    return (
        f"the split was drawn: {test} of {total} images are the test half (fraction "
        f"{drawn.fraction:g}, seed {drawn.seed}); frames of one video may lie in both halves"
    )


def _record(
    layout: Layout, half: str, pairs: Sequence[Pair], drawn: DrawnSplit
) -> dict[str, int | float | str] | None:
    """What a record keeps of a drawn half."""
    if layout.splits:
        return None
    return {
        "fraction": drawn.fraction,
        "seed": drawn.seed,
        f"{half}_images": len(pairs),
        f"{half}_names_sha256": _digest([pair.name for pair in pairs]),
    }


def _digest(parts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
