"""Images of others: files, folders, tar shards, Hugging Face sets, pipes, links, names."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from densescope.features.images import decode_subset, draw_subset, open_images
from tests.hostile.row import Must, Row, either, read, refused, sentinel
from tests.tiny_run import write_images

Make = Callable[[Path], Path]
UNDECODABLE = refused(r"cannot be decoded \(.+\): replace it, move it away, or skip")
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
    return f"{len(pixels)} images. {subset.skipped_sentence}"


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


def png(
    size: tuple[int, int], *, depth: int = 8, color: int = 2, rows: int | None = None
) -> bytes:
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


def _tiff(width: int, height: int, **more: int) -> bytes:
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


def _suffix(form: str) -> str:
    return SUFFIX.get(form, form.lower())


def _damaged() -> list[Row]:
    """Every format cut off and overwritten at several places: an image, or a sentence."""
    rows = []
    for form, data in SOUND.items():
        for part in (1, 8, 24, len(data) // 3, len(data) - 7):
            make = beside(f"x.{_suffix(form)}", data[:part])
            must = either("cannot be decoded", "5 images")
            rows.append(Row(f"{form} cut off after {part} bytes", make, must, decoded))
        for where in (4, 10, 18, 40):
            noise = np.random.default_rng(where).bytes(16)
            changed = data[:where] + noise + data[where + 16 :]
            make = beside(f"x.{_suffix(form)}", changed)
            rows.append(
                Row(
                    f"{form} overwritten at {where}",
                    make,
                    either("cannot be decoded", "images"),
                    decoded,
                )
            )
    return rows


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
    "a BMP whose pixels lie at 2**32": (beside("x.bmp", bmp((4, 4), offset=2**32 - 1)), UNDECODABLE),
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
    "a TIFF of 2**32 - 1 squared": (beside("x.tif", _tiff(2**32 - 1, 2**32 - 1)), UNDECODABLE),
    "a TIFF of strips at the end of the world": (
        beside("x.tif", _tiff(64, 64, t273=2**32 - 1)),
        either("cannot be decoded"),
    ),
    "a TIFF of 10**6 samples a pixel": (
        beside("x.tif", _tiff(64, 64, t277=10**6)),
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
        beside("x.jpg", encoded("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0")),
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
}  # fmt: skip


def _large(color: int, size: tuple[int, int]) -> Make:
    return beside("x.png", lambda folder: png(size, color=color))


LARGE = [
    Row("a PNG of 100 megapixels from 300 kB", _large(2, (10_000, 10_000)), read("5 images"), decoded, bounded=False),
    Row("a PNG of 100 megapixels, gray", _large(0, (10_000, 10_000)), read("5 images"), decoded, bounded=False),
    Row("a PNG of 60 megapixels with alpha", _large(6, (10_000, 6_000)), read("5 images"), decoded, bounded=False),
    Row("a PNG of 1 x 2,000,000", _large(2, (1, 1_000_000)), read("5 images"), decoded, bounded=False),
]  # fmt: skip


# --- places ---


def _place(change: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> Path:
        images = write_images(folder / "images", 4)
        change(images)
        return images

    return make


def _named(name: bytes) -> Make:
    def change(images: Path) -> None:
        with open(os.fsencode(images) + b"/" + name, "wb") as stream:
            stream.write(SOUND["PNG"])

    return _place(change)


def _links(images: Path) -> None:
    (images / "a").symlink_to(images / "b")
    (images / "b").symlink_to(images / "a")
    (images / "up").symlink_to("..")
    (images / "down").mkdir()
    (images / "down" / "again").symlink_to(images)


def _deep(images: Path) -> None:
    at = images
    for _ in range(60):
        at = at / ("d" * 50)
        at.mkdir()
    (at / "x.png").write_bytes(SOUND["PNG"])


def _sparse(images: Path) -> None:
    with (images / "x.png").open("wb") as stream:
        stream.truncate(2**40)


PIPE = "it is a pipe, a device or a socket"
PLACES = {
    "a pipe named x.jpg": (_place(lambda i: os.mkfifo(i / "x.jpg")), refused(PIPE)),
    "a link to /dev/zero": (_place(lambda i: (i / "x.jpg").symlink_to("/dev/zero")), refused(PIPE)),
    "a link to /dev/stdin": (
        _place(lambda i: (i / "x.jpg").symlink_to("/dev/stdin")),
        refused("cannot read image x.jpg|no image format"),
    ),
    "a link to itself": (
        _place(lambda i: (i / "x.jpg").symlink_to("x.jpg")),
        refused("cannot read image x.jpg .*symbolic links"),
    ),
    "a link to nothing": (
        _place(lambda i: (i / "x.jpg").symlink_to("gone")),
        refused("cannot read image x.jpg .*No such file"),
    ),
    "a link to /etc/passwd": (_place(lambda i: (i / "x.jpg").symlink_to("/etc/passwd")), BY_KIND),
    "folders that lead back by links": (_place(_links), read("images")),
    "sixty folders in each other": (_place(_deep), read("5 images")),
    "a sparse file of 1 TB": (_place(_sparse), refused("more than 536,870,912 bytes")),
    "a folder named x.jpg": (_place(lambda i: (i / "x.jpg").mkdir()), read("4 images")),
    "a name that is no UTF-8": (_named(b"caf\xe9.png"), read("5 images")),
    "a name with a new line": (_named(b"a\nb.png"), read("5 images")),
    "a name with an escape sequence": (_named(b"\x1b[31mred.png"), read("5 images")),
    "a name of 255 bytes": (_named(b"x" * 251 + b".png"), read("5 images")),
    "a name of spaces": (_named(b"   .png"), read("5 images")),
    "a name that looks like a pattern": (_named(b"[a-z]*.png"), read("5 images")),
    "a hidden file that is no image": (
        _place(lambda i: (i / ".x.png").write_bytes(b"no")),
        read("4 images"),
    ),
    "no image at all": (lambda f: f, refused("holds no image")),
    "one image": (
        lambda f: write_images(f / "images", 1),
        refused("holds 1 image: at least 2 are needed"),
    ),
    "nothing there": (lambda f: f / "gone", refused("does not exist")),
    "a path of 5,000 letters": (lambda f: f / ("x" * 5_000), refused("too long|does not exist")),
    "a path with a null": (lambda f: f / "a\0b", refused("does not exist|null")),
    "a file, not a folder": (lambda f: write_images(f / "i", 1) / "000.png", refused("is one file")),
    "a device": (lambda f: Path("/dev/zero"), refused("is a pipe, a device or a socket")),
}


# --- tar shards ---


def header(name: str | bytes, size: int, kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """One header of a tar file; a negative size is written as GNU tar would."""
    member = tarfile.TarInfo(os.fsdecode(name))
    member.size, member.type = max(size, 0), kind
    for key, value in fields.items():
        setattr(member, key, value)
    raw = bytearray(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    if size < 0:
        raw[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def member(name: str | bytes, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


def _pax(**records: str) -> bytes:
    body = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest) + len(str(len(rest)))
        length = len(rest) + len(str(length))
        body += str(length).encode() + rest
    return member("././@PaxHeader", body, tarfile.XHDTYPE)


TWO = b"".join(member(f"{i}.png", SOUND["PNG"]) for i in range(2))
END = bytes(1024)


def shard(content: bytes, name: str = "a.tar") -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


BROKEN_TAR = refused("is not a whole, uncompressed tar file")
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
SHARDS = {
    "a sound shard": (shard(TWO + END), read("2 images")),
    "a name that is no UTF-8": (
        shard(TWO + member(b"caf\xe9.png", SOUND["PNG"]) + END),
        read("3 images"),
    ),
    "a member of 2**40 bytes": (shard(TWO + header("x.png", 2**40) + END), BROKEN_TAR),
    "a member of -512 bytes": (shard(TWO + header("x.png", -512) + END), BROKEN_TAR),
    "a member of -2**40 bytes": (shard(TWO + header("x.png", -(2**40)) + END), BROKEN_TAR),
    "a pax header of 2**40 bytes": (
        shard(TWO + header("x", 2**40, tarfile.XHDTYPE) + END),
        BROKEN_TAR,
    ),
    "a pax header of -512 bytes": (
        shard(TWO + header("x", -512, tarfile.XHDTYPE) + END),
        BROKEN_TAR,
    ),
    "a long name of 2**33 bytes": (
        shard(TWO + header("x", 2**33, tarfile.GNUTYPE_LONGNAME) + END),
        BROKEN_TAR,
    ),
    "a pax size of -1": (shard(TWO + _pax(size="-1") + member("x.png", b"") + END), BROKEN_TAR),
    "a pax size of 10**30": (
        shard(TWO + _pax(size=str(10**30)) + member("x.png", b"") + END),
        BROKEN_TAR,
    ),
    "a pax size that is no number": (
        shard(TWO + _pax(size="many") + member("x.png", b"abc") + END),
        either("tar file|cannot be decoded", "images"),
    ),
    "a pax name that leads out": (
        shard(TWO + _pax(path="../../../etc/x.png") + member("x.png", SOUND["PNG"]) + END),
        read("3 images"),
    ),
    "a pax header without a length": (
        shard(TWO + member("x", b"size=3\n" * 50, tarfile.XHDTYPE) + END),
        either("tar file", "images"),
    ),
    "a thousand pax headers in a row": (
        shard(TWO + _pax(comment="x") * 2_000 + member("x.png", b"") + END),
        either("tar file|cannot be decoded"),
    ),
    "a sparse member (GNU)": (
        shard(TWO + header("x.png", 0, tarfile.GNUTYPE_SPARSE) + END),
        BROKEN_TAR,
    ),
    "a sparse member (pax)": (
        shard(TWO + _pax(**SPARSE) + member("x.png", b"1\n0\n512\n" + bytes(504)) + END),
        BROKEN_TAR,
    ),
    "a link to a file of the system": (
        shard(TWO + header("x.png", 0, tarfile.SYMTYPE, linkname="/etc/passwd") + END),
        read("2 images"),
    ),
    "a device": (shard(TWO + header("x.png", 0, tarfile.CHRTYPE) + END), read("2 images")),
    "a pipe": (shard(TWO + header("x.png", 0, tarfile.FIFOTYPE) + END), read("2 images")),
    "an absolute name": (shard(TWO + member("/etc/x.png", SOUND["PNG"]) + END), read("3 images")),
    "the same name three times": (
        shard(TWO + member("0.png", SOUND["PNG"]) * 3 + END),
        read("2 images"),
    ),
    "names of no letters": (shard(TWO + member(".png", SOUND["PNG"]) + END), read("2 images")),
    "twenty thousand empty members": (
        shard(TWO + b"".join(header(f"{i}.txt", 0) for i in range(20_000)) + END),
        read("2 images"),
    ),
    "a wrong checksum": (
        shard(TWO + b"x" * 512 + END),
        either("tar file", "2 images"),
    ),
    "no end": (shard(TWO), read("2 images")),
    "cut off in a header": (shard(TWO + header("x.png", 0)[:100]), BROKEN_TAR),
    "an empty file": (shard(b""), refused("tar file|holds no image")),
    "zeros": (shard(bytes(10_240)), refused("holds no image")),
    "a gzip file": (shard(b"\x1f\x8b\x08" + bytes(64)), BROKEN_TAR),
    "a broken image": (
        shard(TWO + member("x.png", b"no image") + END),
        refused("image a.tar/x.png|image x.png"),
    ),
}


def _pipe_shard(folder: Path) -> Path:
    os.mkfifo(folder / "a.tar")
    return folder


# --- Hugging Face sets ---


def hugging_face(change: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> Path:
        import datasets

        rows = {"image": [Image.new("RGB", (40, 30))] * 4, "label": [0, 1, 2, 3]}
        kinds = {"image": datasets.Image(), "label": datasets.Value("int64")}
        saved = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
        datasets.disable_progress_bars()
        saved.save_to_disk(str(folder / "set"))
        change(folder / "set")
        return folder / "set"

    return make


ARROW = "data-00000-of-00001.arrow"


def _cells(rows: list[Any]) -> Make:
    def change(path: Path) -> None:  # the library itself would read what a cell names
        import pyarrow as pa

        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(rows, kind)})
        with pa.ipc.new_stream(str(path / ARROW), table.schema) as stream:
            stream.write_table(table)
        info = json.loads((path / "dataset_info.json").read_text())
        info["features"].pop("label")
        (path / "dataset_info.json").write_text(json.dumps(info))

    return hugging_face(change)


def _replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new))

    return change


def _cell(**values: Any) -> dict[str, Any]:
    return {"bytes": None, "path": None, **values}


BROKEN_SET = refused("is not a whole Hugging Face data set|holds no image|image columns|splits")
GOOD_CELL = _cell(bytes=SOUND["PNG"])
SETS = {
    "a sound set": (hugging_face(lambda p: None), read("4 images")),
    **{
        f"{name} {how}": (hugging_face(lambda p, n=name, d=damage: d(p / n)), BROKEN_SET)
        for name in ("state.json", "dataset_info.json", ARROW)
        for how, damage in {
            "is gone": lambda path: path.unlink(),
            "is cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
            "is garbage": lambda path: path.write_bytes(bytes(range(256)) * 9),
            "is empty": lambda path: path.write_bytes(b""),
            "is a folder": lambda path: (path.unlink(), path.mkdir()),
        }.items()
    },
    "state.json is a list": (
        hugging_face(lambda p: (p / "state.json").write_text("[]")),
        BROKEN_SET,
    ),
    "state.json nested 100,000 deep": (
        hugging_face(lambda p: (p / "state.json").write_text("[" * 100_000)),
        BROKEN_SET,
    ),
    "files that lead out of the folder": (
        hugging_face(_replaced("state.json", ARROW, "../../../../etc/passwd")),
        BROKEN_SET,
    ),
    "no column of images": (
        hugging_face(_replaced("dataset_info.json", '"Image"', '"Nothing"')),
        BROKEN_SET,
    ),
    "an empty cell": (_cells([GOOD_CELL, GOOD_CELL, None]), refused("has no image")),
    "a cell that names a pipe": (
        _cells([GOOD_CELL, GOOD_CELL, _cell(path="/dev/zero")]),
        refused(PIPE),
    ),
    "a cell that names a file of the system": (
        _cells([GOOD_CELL, GOOD_CELL, _cell(path="/etc/passwd")]),
        BY_KIND,
    ),
    "a cell that is no image": (_cells([GOOD_CELL, GOOD_CELL, _cell(bytes=b"no")]), BY_KIND),
}


def _rows(kind: str, table: dict[str, tuple[Make, Must]]) -> list[Row]:
    return [Row(f"{kind}: {name}", make, must, decoded) for name, (make, must) in table.items()]


def _broken_four(images: Path) -> None:
    (images / "bad.jpg").write_bytes(b"no")
    (images / "x.jpg").symlink_to("/dev/zero")
    os.mkfifo(images / "pipe.png")
    (images / "cut.png").write_bytes(SOUND["PNG"][:60])


ROWS = (
    *_rows("image", ONE),
    *_damaged(),
    *LARGE,
    *_rows("place", PLACES),
    *_rows("shard", SHARDS),
    Row("shard: a pipe among them", _pipe_shard, BROKEN_TAR, decoded),
    *_rows("set", SETS),
    Row("skipped: four broken ones", _place(_broken_four), read("4 images were skipped"), skipped),
    Row(
        "skipped: all broken",
        lambda f: _all_broken(f),
        refused("0 can be decoded: at least 2"),
        skipped,
    ),
    Row(
        "skipped: a broken one in a shard",
        shard(TWO + member("x.png", b"no image") + END),
        read("2 images. 1 image was skipped"),
        skipped,
    ),
)


def _all_broken(folder: Path) -> Path:
    for index in range(4):
        (folder / f"{index}.png").write_bytes(b"broken")
    return folder
