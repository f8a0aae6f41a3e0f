"""Images as an attacker writes them, and what is done with a place of images."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, features

from densescope.features.images import decode_subset, draw_subset, open_images
from tests.hostile.row import Must, Row, refused, sentinel
from tests.tiny_run import write_images

Make = Callable[[Path], Path]
UNDECODABLE = refused(r"cannot be decoded \(.+\): replace it, move it away, or skip")
PIPE = "it is a pipe, a device or a socket"
BY_KIND = refused("those of no image format among")


def decoded(given: Path) -> str:
    """All images of a place, as a sweep sees them."""
    subset = draw_subset(open_images(given), 64, 0)
    pixels = decode_subset(subset, image_size=32, workers=2)
    return f"{len(pixels)} images"


def skipped(given: Path) -> str:
    """The same, without those that are broken."""
    subset = draw_subset(open_images(given, skip_broken=True), 64, 0)
    pixels = decode_subset(subset, image_size=32, workers=2)
    return f"{len(pixels)} images. {' '.join(subset.remarks)}"


def beside(name: str, data: bytes | Callable[[Path], bytes]) -> Make:
    """A folder of four sound images, and one more file."""

    def make(folder: Path) -> Path:
        write_images(folder / "images", 4)
        content = data if isinstance(data, bytes) else data(folder)
        (folder / "images" / name).write_bytes(content)
        return folder / "images"

    return make


def encoded(form: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 77 if mode in ("L", "P") else None).save(stream, form, **how)
    return stream.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], *, depth: int = 8, color: int = 2, rows: int | None = None) -> bytes:
    """A PNG of zeros; only so many rows of it are there."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    line = 1 + (size[0] * channels * depth + 7) // 8
    packer, packed = zlib.compressobj(9), b""
    for _ in range(size[1] if rows is None else rows):
        packed += packer.compress(bytes(line))
    header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0)
    palette = _chunk(b"PLTE", bytes(3)) if color == 3 else b""
    data = _chunk(b"IDAT", packed + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + palette + data + _chunk(b"IEND", b"")


def text_bomb(size: int = 1 << 26) -> bytes:
    """A small PNG whose compressed text is large."""
    whole = png((8, 8))
    packed = zlib.compress(bytes(size), 9)
    return whole[:33] + _chunk(b"zTXt", b"Comment\0\0" + packed) + whole[33:]


def eps(folder: Path) -> bytes:
    """A PostScript program that writes a file, if anything runs it."""
    where = os.fspath(sentinel(folder))
    return (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n"
        + f"({where}) (w) file closefile\n%pipe%touch {where}\n".encode()
        + b"showpage\n%%EOF\n"
    )


def bmp(size: tuple[int, int], *, offset: int = 54, data: bytes = b"") -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, offset) + head + data


def tiff(entries: list[tuple[int, int, int, int]], following: int = 0, data: bytes = b"") -> bytes:
    """A little-endian TIFF: tag, type, count, value."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    directory = struct.pack("<H", len(entries)) + body + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8) + directory + data


def tiff_of(width: int, height: int, **more: int) -> bytes:
    fields = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 64}
    fields |= {int(tag[1:]): value for tag, value in more.items()}
    return tiff([(tag, 4, 1, value) for tag, value in sorted(fields.items())], data=bytes(64))


def gif(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x02\x02\x44\x01\x00;"
    )


SOUND = {form: encoded(form) for form in ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF")}
if features.check("webp"):
    SOUND["WEBP"] = encoded("WEBP")
SUFFIX = {"BMP": "bmp", "GIF": "png", "JPEG": "jpg", "PNG": "png", "PPM": "ppm", "TIFF": "tif"}


def suffix(form: str) -> str:
    return SUFFIX.get(form, form.lower())


def rows_of_table(table: dict[str, tuple[Make, Must]]) -> tuple[Row, ...]:
    """A row for each entry of a table: the images are decoded."""
    return tuple(Row(name, make, must, decoded) for name, (make, must) in table.items())
