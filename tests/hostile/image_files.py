"""Image files: other formats, bombs, damage."""

from __future__ import annotations

import struct

import numpy as np

from tests.hostile.images_written import (
    BY_KIND,
    SOUND,
    UNDECODABLE,
    Make,
    beside,
    bmp,
    decoded,
    encoded,
    eps,
    gif,
    png,
    rows_of_table,
    suffix,
    text_bomb,
    tiff,
    tiff_of,
)
from tests.hostile.row import Row, either, read


def _damaged() -> list[Row]:
    """Every format cut off and overwritten at several places: an image, or a sentence."""
    rows = []
    for form, data in SOUND.items():
        for part in (1, 8, 24, len(data) // 3, len(data) - 7):
            make = beside(f"x.{suffix(form)}", data[:part])
            must = either("cannot be decoded", "5 images")
            rows.append(Row(f"{form} cut off after {part} bytes", make, must, decoded))
        for where in (4, 10, 18, 40):
            noise = np.random.default_rng(where).bytes(16)
            changed = data[:where] + noise + data[where + 16 :]
            make = beside(f"x.{suffix(form)}", changed)
            rows.append(
                Row(
                    f"{form} overwritten at {where}",
                    make,
                    either("cannot be decoded", "images"),
                    decoded,
                )
            )
    return rows


TURNED_NINE = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0"
ONE = {
    "an EPS named x.jpg": (beside("x.jpg", eps), BY_KIND),
    "an EPS with a DOS header": (
        beside("x.jpg", lambda f: b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 200) + eps(f)),
        BY_KIND,
    ),
    "a PDF named x.png": (beside("x.png", encoded("PDF")), BY_KIND),
    "an ICO named x.png": (beside("x.png", encoded("ICO", (16, 16))), BY_KIND),
    "an SVG named x.png": (beside("x.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), BY_KIND),
    "a pickle named x.jpg": (beside("x.jpg", b"\x80\x04cos\nsystem\n(X\x02\0\0\0idtR."), BY_KIND),
    "a zip named x.png": (beside("x.png", b"PK\x03\x04" + bytes(64)), BY_KIND),
    "HTML named x.jpg": (beside("x.jpg", b"<!doctype html><html></html>"), BY_KIND),
    "an empty file": (beside("x.jpg", b""), BY_KIND),
    "a PNG of 1 x 30000": (beside("x.png", png((1, 30_000))), read("5 images")),
    "a PNG of 30000 x 1": (beside("x.png", png((30_000, 1))), read("5 images")),
    "a PNG of 1 x 1": (beside("x.png", png((1, 1))), read("5 images")),
    "a PNG of 2**31 - 1 squared": (beside("x.png", png((2**31 - 1,) * 2, rows=0)), UNDECODABLE),
    "a PNG of 0 x 0": (beside("x.png", png((0, 0))), UNDECODABLE),
    "a PNG of 1 x 120,000,000 by its header": (
        beside("x.png", png((1, 120_000_000), rows=3)),
        UNDECODABLE,
    ),
    "a PNG of 20,000 x 20,000": (beside("x.png", png((20_000, 20_000), rows=9)), UNDECODABLE),
    "a PNG text bomb of 64 MB": (beside("x.png", text_bomb()), either("cannot be decoded")),
    "a PNG of 16 bits": (beside("x.png", png((40, 30), depth=16, color=0)), read("5 images")),
    "a PNG without data": (beside("x.png", png((40, 30), rows=0)), UNDECODABLE),
    "a PNG of depth 3": (beside("x.png", png((40, 30), depth=3, color=0)), UNDECODABLE),
    "a BMP of 2**31 - 1 squared": (beside("x.bmp", bmp((2**31 - 1,) * 2)), UNDECODABLE),
    "a BMP upside down": (
        beside("x.bmp", bmp((4, -4), data=bytes(48))),
        either("cannot be decoded", "5 images"),
    ),
    "a BMP whose pixels lie at 2**32": (
        beside("x.bmp", bmp((4, 4), offset=2**32 - 1)),
        UNDECODABLE,
    ),
    "a PPM of 10**9 squared": (beside("x.ppm", b"P6 1000000000 1000000000 255\n"), UNDECODABLE),
    "a PPM with a number of a million digits": (
        beside("x.ppm", b"P6 " + b"9" * 10**6 + b" 1 255\n"),
        UNDECODABLE,
    ),
    "a plain PPM of 16 megapixels": (beside("x.ppm", b"P3 4096 4096 255\n0 0 0"), UNDECODABLE),
    "a PPM of comments": (beside("x.ppm", b"P6\n" + b"#\n" * 10**6 + b"1 1 255\n"), UNDECODABLE),
    "a PFM of floating-point pixels": (
        beside("x.ppm", b"Pf\n4 4\n-1.0\n" + bytes(64)),
        UNDECODABLE,
    ),
    "a GIF of 65,535 squared": (beside("x.png", gif(65_535, 65_535)), UNDECODABLE),
    "a TIFF of 2**32 - 1 squared": (beside("x.tif", tiff_of(2**32 - 1, 2**32 - 1)), UNDECODABLE),
    "a TIFF of strips at the end of the world": (
        beside("x.tif", tiff_of(64, 64, t273=2**32 - 1)),
        either("cannot be decoded"),
    ),
    "a TIFF of 10**6 samples a pixel": (
        beside("x.tif", tiff_of(64, 64, t277=10**6)),
        either("cannot be decoded"),
    ),
    "a TIFF whose directories go in a circle": (
        beside("x.tif", tiff([(256, 4, 1, 8), (257, 4, 1, 8)], following=8)),
        either("cannot be decoded"),
    ),
    "a TIFF of 2**32 - 1 values in a tag": (
        beside("x.tif", tiff([(256, 4, 2**32 - 1, 8), (257, 4, 1, 8)])),
        either("cannot be decoded"),
    ),
    "a JPEG that turns by EXIF 9": (
        beside(
            "x.jpg",
            encoded(
                "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0"
            ),
        ),
        read("5 images"),
    ),
    "a JPEG with a broken EXIF": (
        beside("x.jpg", encoded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")),
        either("cannot be decoded", "5 images"),
    ),
    "a JPEG of 65,500 squared by its header": (
        beside("x.jpg", encoded("JPEG").replace(struct.pack(">HH", 30, 40), b"\xff\xdc\xff\xdc")),
        UNDECODABLE,
    ),
    "a CMYK JPEG": (beside("x.jpg", encoded("JPEG", mode="CMYK")), read("5 images")),
}


def _large(color: int, size: tuple[int, int]) -> Make:
    return beside("x.png", lambda folder: png(size, color=color))


LARGE = tuple(
    Row(name, _large(color, size), read("5 images"), decoded, bounded=False)
    for name, color, size in (
        ("a PNG of 100 megapixels from 300 kB", 2, (10_000, 10_000)),
        ("a PNG of 100 megapixels, gray", 0, (10_000, 10_000)),
        ("a PNG of 60 megapixels with alpha", 6, (10_000, 6_000)),
        ("a PNG of 1 x 1,000,000", 2, (1, 1_000_000)),
    )
)

ROWS = (*rows_of_table(ONE), *_damaged(), *LARGE)
