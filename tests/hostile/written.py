"""Files as an attacker writes them: pickles opcode by opcode, archives member by member."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tests import tiny_run

PROTO, STOP, MARK, NONE = b"\x80\x02", b".", b"(", b"N"
EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE = b"}", b"]", b")"
POP, DUP, REDUCE, BUILD, SETITEM, APPEND = b"0", b"2", b"R", b"b", b"s", b"a"


def text(value: str | bytes) -> bytes:
    """BINUNICODE."""
    coded = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(coded)) + coded


def number(value: int) -> bytes:
    """BININT, or LONG1 for larger ones."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    coded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(coded)]) + coded


def named(module: str, name: str) -> bytes:
    """GLOBAL."""
    return b"c" + f"{module}\n{name}\n".encode("utf-8", "surrogatepass")


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """A name, called with arguments."""
    return named(module, name) + MARK + b"".join(arguments) + b"t" + REDUCE


def dictionary(items: Mapping[str, bytes]) -> bytes:
    """A dictionary with texts as keys."""
    inside = b"".join(text(key) + value for key, value in items.items())
    return EMPTY_DICT + MARK + inside + b"u"


def program(body: bytes, protocol: int = 2) -> bytes:
    """A whole pickle."""
    return b"\x80" + bytes([protocol]) + body + STOP


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    """The persistent id of a storage."""
    fields = (text("storage"), named("torch", kind), text(key), text("cpu"), number(count))
    return MARK + b"".join(fields) + b"tQ"


def tensor(
    key: str,
    size: tuple[int, ...],
    *,
    stride: tuple[int, ...] | None = None,
    offset: int = 0,
    held: int | None = None,
    kind: str = "FloatStorage",
) -> bytes:
    """A tensor as torch pickles it, with whatever numbers."""
    steps = stride if stride is not None else tuple(torch.empty(size, device="meta").stride())
    count = held if held is not None else int(torch.Size(size).numel())
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage(key, count, kind),
        number(offset),
        numbers(size),
        numbers(steps),
        b"\x89",
        call("collections", "OrderedDict"),
    )


def numbers(values: tuple[int, ...]) -> bytes:
    """A tuple."""
    return MARK + b"".join(map(number, values)) + b"t"


def archive(
    path: Path,
    content: bytes,
    data: Mapping[str, bytes] | None = None,
    *,
    root: str = "archive/",
    compression: int = zipfile.ZIP_STORED,
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """A zip file as ``torch.save`` writes it."""
    with zipfile.ZipFile(path, "w", compression) as stream:
        stream.writestr(f"{root}data.pkl", content)
        for key, piece in (data or {}).items():
            stream.writestr(f"{root}data/{key}", piece)
        for name, piece in (more or {}).items():
            stream.writestr(f"{root}{name}", piece)
    return path


MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def legacy(path: Path, content: bytes, keys: list[str] | None = None, data: bytes = b"") -> Path:
    """A file as torch wrote them before 1.6."""
    system = {
        "protocol_version": VERSION,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    stream = io.BytesIO()
    for value in (MAGIC, VERSION, system):
        pickle.dump(value, stream, protocol=2)
    stream.write(content)
    pickle.dump(keys or [], stream, protocol=2)
    stream.write(data)
    path.write_bytes(stream.getvalue())
    return path


def good() -> dict[str, Any]:
    """A checkpoint of the tiny vision transformer that can be read."""
    return tiny_run.checkpoint(0)


def saved(path: Path, content: Any, **options: Any) -> Path:
    """What ``torch.save`` writes."""
    torch.save(content, path, **options)
    return path


def changed(change: Callable[[dict[str, Any]], Any], **options: Any) -> Callable[[Path], Path]:
    """Makes a good checkpoint in which something was changed."""

    def make(folder: Path) -> Path:
        content = good()
        change(content)
        return saved(folder / "checkpoint0000.pth", content, **options)

    return make
