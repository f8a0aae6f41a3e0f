"""Tar shards whose headers lie."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

from tests.hostile.images_written import SOUND, Make, decoded, rows_of_table, skipped
from tests.hostile.row import Row, either, read, refused


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


ROWS = (
    *rows_of_table(SHARDS),
    Row("a pipe among them", _pipe_shard, BROKEN_TAR, decoded),
    Row(
        "a broken image, skipped",
        shard(TWO + member("x.png", b"no image") + END),
        read("2 images. 1 image was skipped"),
        skipped,
    ),
)
