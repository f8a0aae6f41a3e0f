"""Small arrays become pictures inside the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_PIXELS = 168
# Eight colors that remain distinct under the common color-vision deficiencies: Okabe and Ito
# (2008), "Color Universal Design"; black is replaced by a light gray for the background.
CLUSTER_COLORS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (205, 208, 212),
)
# From paper white to deep blue, evenly darker.
SIMILARITY_COLORS = (
    (247, 249, 251),
    (203, 220, 235),
    (138, 179, 214),
    (60, 124, 181),
    (10, 63, 122),
    (5, 28, 68),
)
QUERY_COLOR = (213, 94, 0)


def shade(values: ArrayLike) -> NDArray[np.float32]:
    """Numbers in [0, 1] as colors of the similarity scale, with a last axis of three."""
    anchors = np.array(SIMILARITY_COLORS, dtype=np.float32)
    position = np.clip(np.asarray(values, dtype=np.float32), 0, 1) * (len(anchors) - 1)
    below = np.minimum(np.floor(position).astype(np.int64), len(anchors) - 2)
    part = (position - below.astype(np.float32))[..., None]
    colors: NDArray[np.float32] = anchors[below] * (1 - part) + anchors[below + 1] * part
    return colors


def png(colors: ArrayLike, *, mark: tuple[int, int] | None = None) -> str:
    """A grid of colors, ``rows columns 3`` in 0..255, as a PNG data URI; one tile per patch.

    Args:
        colors: the grid.
        mark: row and column of a patch to be framed.
    """
    grid = np.asarray(colors)
    rows, columns = grid.shape[:2]
    scale = max(1, -(-PICTURE_PIXELS // max(rows, columns)))
    picture = _image(grid).resize((columns * scale, rows * scale), resample=0)
    if mark is not None:
        _frame(picture, mark, rows=rows, columns=columns)
    return _uri(picture, "PNG", optimize=True)


def photo(image: ArrayLike, *, mark: tuple[int, int] | None = None, grid: tuple[int, int]) -> str:
    """An image, ``3 height width`` in 0..255, as a JPEG data URI.

    Args:
        image: the image.
        mark: row and column of a patch to be framed.
        grid: rows and columns of the patch grid that lies over the image.
    """
    picture = _image(np.moveaxis(np.asarray(image), 0, -1))
    picture.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    if mark is not None:
        _frame(picture, mark, rows=grid[0], columns=grid[1])
    return _uri(picture, "JPEG", quality=82, optimize=True)


def _image(colors: NDArray[np.generic]) -> Image:
    from PIL import Image

    whole = np.rint(colors).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(whole))


def _frame(picture: Image, mark: tuple[int, int], *, rows: int, columns: int) -> None:
    from PIL import ImageDraw

    row, column = mark
    tile_width, tile_height = picture.width / columns, picture.height / rows
    left, top = round(column * tile_width), round(row * tile_height)
    right, bottom = round((column + 1) * tile_width) - 1, round((row + 1) * tile_height) - 1
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 3, top - 3, right + 3, bottom + 3), outline=(255, 255, 255), width=1)
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), outline=QUERY_COLOR, width=2)


def _uri(picture: Image, form: str, **options: int | bool) -> str:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    code = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/{form.lower()};base64,{code}"
