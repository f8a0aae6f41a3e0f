"""Image files of others: opened by few decoders, and within bounds that the header is held to."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from densescope.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Done = TypeVar("Done")
# Each is decoded inside Pillow; others would start programs (EPS starts Ghostscript).
DECODERS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_BYTES = 1 << 29  # of a file
MOST_PIXELS = 110_000_000  # of an image; a photo of the largest cameras has 102 million
MOST_SIDE = 1 << 20  # pixels
LARGE_PIXELS = 1 << 24  # images with more are decoded one at a time, whatever the threads
_one_at_a_time = threading.Lock()


@contextmanager
def open_image(data: bytes) -> Iterator[Image]:
    """Open an image of any origin; it is decoded by who uses its pixels, inside this block.

    Args:
        data: the bytes of its file.

    Raises:
        DataError: the bytes are those of no image that is decoded here, or it is too large. The
            text says why, without a name.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=DECODERS)
    except Image.DecompressionBombError as cause:
        raise DataError(f"it has more than {MOST_PIXELS:,} pixels") from cause
    except UnidentifiedImageError as cause:
        known = ", ".join(DECODERS)
        raise DataError(f"its bytes are those of no image format among {known}") from cause
    with image:
        pixels = image.width * image.height
        if pixels > MOST_PIXELS or max(image.size) > MOST_SIDE:
            raise DataError(
                f"it has {image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are "
                f"decoded, and at most {MOST_SIDE:,} a side"
            )
        with _one_at_a_time if pixels > LARGE_PIXELS else nullcontext():
            yield image


def decode(data: bytes, what: str, cure: str, use: Callable[[Image], Done]) -> Done:
    """What some use of an image gives, or one sentence on why it cannot be decoded.

    Args:
        data: the bytes of its file.
        what: names it in the sentence: ``"image a.jpg of photos"``.
        cure: what to do.
        use: is given the opened image.

    Raises:
        DataError: it cannot be decoded.
    """
    # Decoders report a damaged file by a dozen kinds of exceptions; all mean the same here.
    try:
        with open_image(data) as image:
            return use(image)
    except Exception as cause:
        reason = str(cause) or type(cause).__name__
        raise DataError(f"{what} cannot be decoded ({reason}): {cure}") from cause
