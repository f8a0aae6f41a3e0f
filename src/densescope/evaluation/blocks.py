"""Which images belong together: frames of one video, files of one folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial

from densescope.errors import DataError, InputError

BlockRule = Callable[[str], str]
CAMVID_FRAMES = 300  # ten seconds at 30 frames a second


def folder_block(name: str) -> str:
    """The folder of an image below its split; an image in no folder is a block of its own.

    Example:
        >>> folder_block("drive1/morning/0007"), folder_block("0007")
        ('drive1/morning', '0007')
    """
    folder, _, _ = name.rpartition("/")
    return folder or name


def camvid_block(name: str) -> str:
    """The sequence of a CamVid frame and which ten seconds of it.

    Example:
        >>> camvid_block("0016E5_07959"), camvid_block("Seq05VD_f00330")
        ('0016E5/26', 'Seq05VD/1')
    """
    sequence, _, frame = name.rpartition("/")[2].rpartition("_")
    digits = re.sub(r"\D", "", frame)
    return f"{sequence}/{int(digits) // CAMVID_FRAMES}" if sequence and digits else name


def pattern_block(pattern: str) -> BlockRule:
    """A rule of the user's: the groups of a regular expression, found anywhere in a name.

    Raises:
        InputError: the expression is none. The rule itself raises ``DataError`` for a name in
            which it is not found.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as cause:
        raise InputError(f"--blocks {pattern!r} is no regular expression: {cause}") from cause
    return partial(_by_pattern, compiled)


def _by_pattern(pattern: re.Pattern[str], name: str) -> str:
    found = pattern.search(name)
    if found is None:
        raise DataError(
            f"--blocks {pattern.pattern!r} is not found in the image name {name!r}: every name "
            "must say its block, such as with '^(seq[0-9]+)' in seq07_0031"
        )
    return "/".join(part or "" for part in found.groups()) if found.groups() else found.group()


def drawn_images(names: Sequence[str], count: int, seed: int) -> list[int]:
    """Numbers of images drawn by the SHA-256 of seed and name, in order.

    Another image more in the data moves few others.

    Example:
        >>> drawn_images(["a", "b", "c", "d"], 2, 0) == drawn_images(["a", "b", "c", "d"], 2, 0)
        True
    """

    def key(number: int) -> bytes:
        return hashlib.sha256(f"{seed} {names[number]}".encode()).digest()

    return sorted(sorted(range(len(names)), key=key)[:count])


def group_of(block: str) -> str:
    """The first part of a block: the video of a stretch of frames.

    Example:
        >>> group_of("0016E5/26"), group_of("0007")
        ('0016E5', '0007')
    """
    return block.partition("/")[0]


def fold_of_images(blocks: Sequence[str], folds: int) -> tuple[int, ...]:
    """A fold for every image, for cross-validation: blocks stay whole, folds are about as large.

    Videos (:func:`group_of`) stay whole where there are as many as folds; else the blocks do. The
    largest go first, each to the fold with the fewest images.

    Raises:
        InputError: fewer than two folds.
        DataError: fewer blocks than folds.

    Example:
        >>> fold_of_images(["a/1", "a/2", "b/1", "c/1"], 2)
        (0, 0, 1, 1)
    """
    if folds < 2:
        raise InputError(f"{folds} folds are impossible: at least 2, each is held out once")
    keys = [group_of(block) for block in blocks]
    if len(set(keys)) < folds:
        keys = list(blocks)
    sizes = {key: keys.count(key) for key in dict.fromkeys(keys)}
    if len(sizes) < folds:
        raise DataError(
            f"{folds} folds need {folds} blocks of images that belong together, and there are "
            f"{len(sizes)} ({', '.join(list(sizes)[:3])}): ask for fewer folds, or say with "
            "--blocks what belongs together"
        )
    filled = [0] * folds
    chosen: dict[str, int] = {}
    for key in sorted(sizes, key=lambda key: (-sizes[key], key)):
        chosen[key] = filled.index(min(filled))
        filled[chosen[key]] += sizes[key]
    return tuple(chosen[key] for key in keys)
