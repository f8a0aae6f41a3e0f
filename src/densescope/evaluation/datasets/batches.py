"""The one place where photos and masks are resized together for dense evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from densescope.errors import InputError
from densescope.evaluation.datasets.depth import DepthSet
from densescope.evaluation.datasets.sets import SegmentationSet

if TYPE_CHECKING:
    from PIL.Image import Image

RESIZES = ("squash", "short-side-crop")

Array = np.ndarray[Any, Any]
Box = tuple[float, float, float, float]


def decode_split(
    dataset: SegmentationSet,
    *,
    image_size: int,
    resize: str = "squash",
    label_size: int | None = None,
    workers: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode a whole split to square photos and square masks of one geometry.

    ``"squash"`` takes the whole image and changes its aspect ratio; ``"short-side-crop"`` takes
    the central square of the short side and leaves out the rest. The same region of image and
    mask fills the same part of both results, whatever the two sizes: the corners of the region
    are the corners of both (``align_corners=False``). Photos are bicubic and antialiased. A mask
    pixel takes the class at its own center, ``floor(left + (i + 1/2) * side / size)``: classes
    are never mixed, and small objects can vanish where ``label_size`` is far below the original.
    Scores depend on ``label_size`` and ``resize``: name both beside any mIoU.

    Args:
        dataset: the split.
        image_size: side of the photos in pixels.
        resize: ``"squash"`` or ``"short-side-crop"``.
        label_size: side of the masks in pixels, ``image_size`` when left out.
        workers: threads; all processors when left out.

    Returns:
        uint8 photos ``images 3 rows columns`` (RGB) and uint8 masks ``images rows columns``
        (class ids, 255 ignored), on the CPU, in the order of ``dataset.names``. Holds the whole
        split in memory: ``images * (3 * image_size**2 + label_size**2)`` bytes.

    Raises:
        InputError: a size, a name of a resize or a number of workers is impossible.
        DataError: a file is damaged, or image and mask do not fit; the text names it.

    Deviations: mmsegmentation scores at the original resolution of every image; here masks have
        one size, as in the protocols that train on cached features. The crop is resized after
        cutting, so the outermost photo pixels see nothing beyond the region.
    """
    label_size = image_size if label_size is None else label_size
    masks = torch.empty(len(dataset), label_size, label_size, dtype=torch.uint8)
    photos = _decode(
        dataset.photo_and_mask, masks, image_size=image_size, resize=resize, workers=workers
    )
    return photos, masks


def decode_depths(
    dataset: DepthSet,
    *,
    image_size: int,
    resize: str = "squash",
    label_size: int | None = None,
    workers: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode photos and depth maps as :func:`decode_split` does photos and masks.

    Returns:
        uint8 photos ``images 3 rows columns`` and float32 depths ``images rows columns`` in
        meters, 0 where nothing was measured (nearest neighbor: never mixed with a measurement).

    Raises:
        InputError: as :func:`decode_split`.
        DataError: as :func:`decode_split`.
    """
    label_size = image_size if label_size is None else label_size
    depths = torch.empty(len(dataset), label_size, label_size, dtype=torch.float32)
    photos = _decode(
        dataset.photo_and_depth, depths, image_size=image_size, resize=resize, workers=workers
    )
    return photos, depths


def _decode(
    read: Callable[[int], tuple[Image, Array]],
    labels: Tensor,
    *,
    image_size: int,
    resize: str,
    workers: int | None,
) -> Tensor:
    workers = workers if workers is not None else os.cpu_count() or 1
    if resize not in RESIZES:
        raise InputError(f"there is no resize {resize!r}; there are: {', '.join(RESIZES)}")
    if min(image_size, labels.shape[-1], workers) < 1:
        raise InputError(
            f"image_size {image_size}, label_size {labels.shape[-1]} and workers {workers} must "
            "all be at least 1"
        )
    photos = torch.empty(len(labels), 3, image_size, image_size, dtype=torch.uint8)

    def work(index: int) -> None:
        photo, label = read(index)
        box = region(photo.size, resize)
        photos[index] = torch.from_numpy(resized_photo(photo, box, image_size)).permute(2, 0, 1)
        labels[index] = torch.from_numpy(resized_labels(label, box, labels.shape[-1]))

    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in pool.map(work, range(len(labels))):
                pass
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return photos


def region(size: tuple[int, int], resize: str) -> Box:
    """Left, top, right and bottom of what is kept of an image of ``columns, rows`` pixels."""
    columns, rows = size
    if resize == "squash":
        return 0.0, 0.0, float(columns), float(rows)
    side = min(size)
    left, top = (columns - side) // 2, (rows - side) // 2
    return float(left), float(top), float(left + side), float(top + side)


def resized_photo(photo: Image, box: Box, size: int) -> Array:
    """The region of a photo as ``size size 3`` pixels, bicubic and antialiased."""
    from PIL import Image

    return np.array(photo.resize((size, size), Image.Resampling.BICUBIC, box=box))


def resized_labels(labels: Array, box: Box, size: int) -> Array:
    """The region of a label map as ``size size`` values, each taken at the center of its pixel."""
    left, top, right, bottom = box
    centers = (np.arange(size) + 0.5) / size
    rows = np.floor(top + centers * (bottom - top)).astype(np.int64)
    columns = np.floor(left + centers * (right - left)).astype(np.int64)
    return labels[rows[:, None], columns[None, :]]
