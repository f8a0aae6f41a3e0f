from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densescope.errors import DataError
from densescope.evaluation.datasets import open_dataset
from densescope.evaluation.datasets.pixels import read_indices, read_photo
from tests.evaluation_datasets.trees import stored_pixels, write_image, write_mask

IDS = np.array([[0, 1, 2], [3, 1, 0]], np.uint8)


def packed_png(path: Path, ids: np.ndarray, depth: int, color_type: int) -> None:
    """A PNG with less than 8 bits a pixel, written by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = b""
    for row in ids:
        bits = "".join(f"{value:0{depth}b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], depth, color_type, 0, 0, 0)
    palette = (
        chunk(b"PLTE", bytes(value % 256 for value in range(3 * 2**depth)))
        if color_type == 3
        else b""
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("color_type", [0, 3], ids=["gray", "palette"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_masks_of_few_bits_keep_their_numbers(tmp_path: Path, depth: int, color_type: int) -> None:
    ids = IDS & (2**depth - 1)
    packed_png(tmp_path / "m.png", ids, depth, color_type)
    assert np.array_equal(read_indices(tmp_path / "m.png"), ids)


def test_palette_is_never_applied(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", IDS, palette=True)
    with Image.open(tmp_path / "m.png") as stored:
        assert stored.mode == "P"
    assert np.array_equal(read_indices(tmp_path / "m.png"), IDS)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_masks(tmp_path: Path, suffix: str) -> None:
    ids = IDS.astype(np.uint16) * 300
    Image.fromarray(ids).save(tmp_path / f"m{suffix}")
    assert np.array_equal(read_indices(tmp_path / f"m{suffix}"), ids)


def test_wide_and_negative_values_are_unknown_not_wrapped(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", (3, 1))
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.array([[1, -1, 65536 + 1]], np.int32)).save(tmp_path / "masks/a.tif")
    opened = open_dataset(
        "folders", tmp_path, "", classes=["a", "b"], images="images", masks="masks"
    )
    with pytest.raises(DataError, match=r"does not define: -1 \(1 pixels\), 65537 \(1 pixels\);"):
        opened.mask(0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F"])
def test_color_masks_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("m.tif" if mode == "F" else "m.png")
    Image.fromarray(IDS).convert(mode).save(path)
    with pytest.raises(DataError, match=rf"floating-point image \(mode {mode}\): one integer a p"):
        read_indices(path)


def test_jpeg_masks_are_refused(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "m.png", format="JPEG")
    with pytest.raises(DataError, match=r"m\.png is a JPEG, which alters its numbers: write PNG"):
        read_indices(tmp_path / "m.png")


def test_damaged_masks_are_named(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8))
    whole = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"mask .*m\.png cannot be decoded \(.*\): replace it, or"):
        read_indices(tmp_path / "m.png")


@pytest.mark.parametrize(
    ("mask_size", "expected"),
    [((6, 4), "stored"), ((4, 6), "rotated")],
)
def test_camera_rotation_is_followed_where_the_mask_says_so(
    tmp_path: Path, mask_size: tuple[int, int], expected: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(tmp_path / "photo.png", (6, 4), exif=exif)
    stored = stored_pixels(tmp_path / "photo.png")
    photo = np.asarray(read_photo(tmp_path / "photo.png", size=mask_size))
    assert np.array_equal(photo, stored if expected == "stored" else np.rot90(stored, -1))


@pytest.mark.parametrize(("orientation", "size"), [(3, (6, 4)), (6, (5, 5))])
def test_rotation_that_sizes_cannot_settle_is_ignored(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_image(tmp_path / "photo.png", size, exif=exif)
    stored = stored_pixels(tmp_path / "photo.png")
    assert np.array_equal(np.asarray(read_photo(tmp_path / "photo.png", size=size)), stored)
