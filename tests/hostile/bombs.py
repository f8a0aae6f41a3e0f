"""Small files that ask for much: memory, time, or both."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.row import Must, Row, refused
from tests.hostile.written import (
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    NONE,
    archive,
    call,
    legacy,
    number,
    program,
)

NAME = "checkpoint0000.pth"
HUGE = 2**31 - 1


def zipped(content: bytes, compression: int = zipfile.ZIP_STORED) -> Callable[[Path], Path]:
    return lambda folder: archive(folder / NAME, content, compression=compression)


def old(content: bytes) -> Callable[[Path], Path]:
    return lambda folder: legacy(folder / NAME, content)


def index(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / ".metadata").write_bytes(content)
        return folder

    return make


KINDS = {"zip": zipped, "legacy": old, "index": index}
# A pickle's body, and what must happen.
BODIES: dict[str, tuple[bytes, Must]] = {
    "memo index 2**31 (LONG_BINPUT)": (NONE + b"r" + struct.pack("<I", HUGE), refused("memo")),
    "memo index 10**12 (PUT)": (NONE + b"p1000000000000\n", refused("memo")),
    "bytearray(2**31 - 1)": (
        call("builtins", "bytearray", number(HUGE)),
        refused("builtins.bytearray|cannot be read|damaged"),
    ),
    "bytearray in protocol 2": (
        call("__builtin__", "bytearray", number(HUGE)),
        refused("bytearray|cannot be read|damaged"),
    ),
    "BINUNICODE8 of 2**40": (b"\x8d" + struct.pack("<Q", 2**40), refused("cut off|damaged|more")),
    "BINBYTES8 of 2**62": (b"\x8e" + struct.pack("<Q", 2**62), refused("cut off|damaged|more")),
    "BYTEARRAY8 of 2**40": (b"\x96" + struct.pack("<Q", 2**40), refused("cut off|damaged|more")),
    "BINUNICODE of 2**31": (b"X" + struct.pack("<I", HUGE), refused("cut off|damaged|more")),
    "LONG4 of 2**31 bytes": (b"\x8b" + struct.pack("<i", HUGE), refused("cut off|damaged|more")),
    "LONG of a million digits": (b"L" + b"9" * 10**6 + b"L\n", refused("number|digits")),
    "FRAME of 2**60": (b"\x95" + struct.pack("<Q", 2**60) + NONE, refused("")),
    "two million opcodes": (EMPTY_LIST + b"0" * 0 + (NONE + b"0") * 10**6, refused("opcodes")),
    "lists in lists, 100,000 deep": (
        EMPTY_LIST * 100_000 + b"a" * 99_999,
        refused("deep|inside each other"),
    ),
    "tuples in tuples, 100,000 deep": (
        EMPTY_TUPLE + b"\x85" * 100_000,
        refused("deep|inside each other"),
    ),
    "a set of 2**31 by list(range)": (
        call("builtins", "set", call("builtins", "range", number(HUGE))),
        refused("range|cannot be read"),
    ),
    "no end": (EMPTY_DICT + b"(" * 1000, refused("")),
}


def _bodies() -> list[Row]:
    return [
        Row(f"{kind}: {name}", make(program(body, 4)), must)
        for name, (body, must) in BODIES.items()
        for kind, make in KINDS.items()
    ]


ROWS = tuple(row for row in _bodies() if "range" in row.name)
